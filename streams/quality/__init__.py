"""Keep or reject, with reasons: noise, spam, toxicity, non-dialogue, control tokens, limits. Pure, on scrubbed text."""

from streams.quality.config import QualityConfig, Reason, Tag, Verdict
from streams.quality.judge import is_echo, judge_reply, judge_turn, judge_turns, language

__all__ = [
    "QualityConfig",
    "Reason",
    "Tag",
    "Verdict",
    "is_echo",
    "judge_reply",
    "judge_turn",
    "judge_turns",
    "language",
]
