"""What the filter may answer and by which thresholds: reasons, verdicts, configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_LANGUAGE = re.compile(r"[a-z]{2}")


class Reason(StrEnum):
    """Why a turn, a reply or a sample teaches nothing; label values of `driftline_rejections_total{stage="filter"}`."""

    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    ENCODING = "encoding"
    GIBBERISH = "gibberish"
    SPAM = "spam"
    NON_DIALOGUE = "non_dialogue"
    AUTO_REPLY = "auto_reply"
    TOXIC = "toxic"
    BIAS = "bias"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTROL_TOKENS = "control_tokens"
    LANGUAGE = "language"
    CUSTOMER_CAP = "customer_cap"
    SOURCE_FLOOD = "source_flood"
    NO_REPLY = "no_reply"
    OUT_OF_ORDER = "out_of_order"
    VERSION_MIXED = "version_mixed"
    LATE = "late"
    UNRATED = "unrated"
    NO_TARGET = "no_target"
    HELDOUT_COPY = "heldout_copy"


class Tag(StrEnum):
    """What is kept but marked; never counted as a rejection."""

    TEMPLATE = "template"
    TONE = "tone"
    LOW_SIGNAL = "low_signal"
    CONTRADICTS = "contradicts"
    HELD = "held"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Verdict:
    """The judgement of one text: kept or not, why, marks, and the score (0 to 1) of each code that was computed."""

    keep: bool
    reasons: tuple[Reason, ...] = ()
    tags: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityConfig:
    """Thresholds, limits and caps of the filter; scores and thresholds run from 0 to 1."""

    spam: float = 0.70
    """A reply is rejected as spam from this score on."""
    gibberish: float = 0.60
    """As `spam`, for word salad and key mashing."""
    toxic: float = 0.90
    """As `spam`, for insult, hate, threat and harassment; a customer's is only tagged."""
    non_dialogue: float = 0.85
    """As `spam`, for logs, notices and articles."""
    noise: float = 0.95
    """A reply that no class is sure of is rejected as the likeliest when their scores sum up to this."""
    customer: float = 0.85
    """Score from which spam and gibberish reject a customer's turn: dropping context needs more certainty."""
    pasted: float = 0.97
    """As `customer`, for non_dialogue: customers paste logs and error messages for good reason."""
    unsure: float = 0.40
    """A kept reply with a score from here on is tagged `unsure`."""
    min_chars: int = 1
    """Letters and digits that a reply must hold."""
    max_chars: int = 8_000
    """Longest text that is learned from or used as context, characters."""
    max_tokens: int = 2_048
    """Longest reply, in estimated tokens (the larger of words * 1.3 and bytes / 4)."""
    gibberish_chars: int = 6
    """Shorter texts are never gibberish: "y", "7m" and "brrr" are answers."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that are kept; empty keeps all."""
    language_chars: int = 40
    """Shorter texts are not judged by language: identification is a guess there."""
    customer_daily: int = 20
    """Samples a day of one customer (of one conversation where no customer is named)."""
    cluster_hourly: int = 20
    """Samples an hour by which a cluster of near copies may grow, whoever sends them."""
    template_count: int = 5
    """A reply that occurred so often before is tagged `template`."""
    model: str = ""
    """A transformers sequence classifier, on disk or from a hub, whose scores join; empty for none."""
    model_deadline_s: float = 2.0
    """Longest wait for a model's labels of a batch, seconds; past it what is known without it stands alone."""
    judge: str = ""
    """A transformers sequence classifier of moods or outcomes, on disk or from a hub, that reads what a customer says
    next where no rule does; empty for none."""
    judge_sure: float = 0.8
    """Probability below which that judge abstains."""
    near_ttl_s: int = 7 * 24 * 3600
    """How long bands and clusters of near copies are remembered, seconds."""

    def __post_init__(self) -> None:
        """Refuse thresholds outside 0..1 and limits that contradict each other."""
        for name in (
            "spam",
            "gibberish",
            "toxic",
            "non_dialogue",
            "customer",
            "pasted",
            "noise",
            "unsure",
            "judge_sure",
        ):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name} = {value}: wants more than 0 and at most 1")
        for name in ("min_chars", "max_tokens", "customer_daily", "cluster_hourly", "template_count", "near_ttl_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: wants at least 1")
        if not self.model_deadline_s > 0:
            raise ValueError(f"model_deadline_s = {self.model_deadline_s}: wants more than 0")
        if self.max_chars <= self.min_chars:
            raise ValueError(f"max_chars = {self.max_chars}: wants more than min_chars = {self.min_chars}")
        for code in self.languages:
            if not _LANGUAGE.fullmatch(code):
                raise ValueError(f"languages = {code!r}: wants ISO 639-1 codes of two lower-case letters")
