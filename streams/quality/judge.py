"""Judge one turn or one reply: rules first, then the classifier; a verdict names every reason it found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from streams.events import Role, Turn
from streams.quality import rules
from streams.quality.config import QualityConfig, Reason, Tag, Verdict

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

    from streams.quality.backend import Scorer

_ANGER = re.compile(
    r"\b(?:ridiculous|unacceptable|furious|pissed|angry|outrage(?:ous|d)|terrible|horrible|awful|worst|useless|scam\w*"
    r"|disgust\w*|pathetic|joke of a|fed up|sick of|how dare|never again|wtf|bullshit|damn|hell|stupid|idiots?)\b",
    re.IGNORECASE,
)
_PEOPLE = (
    "women", "men", "girls", "black", "white", "asian", "jew", "muslim", "christian", "immigrant", "foreigner", "gay",
    "lesbian", "old people", "boomer", "indian", "chinese", "african", "mexican", "arab", "gyps",
)  # fmt: skip
_BIAS = re.compile(
    r"\b(?:all|most|those|these|you)\s+(?:of\s+you\s+)?(?:" + "|".join(_PEOPLE) + r")(?:s|ies)?\s+(?:people\s+)?"
    r"(?:are|always|never|can't|cannot|only|just|do not|don't|should)\b"
)
_PEOPLE_WORDS = frozenset(word + end for name in _PEOPLE for word in name.split() for end in ("", "s", "ies"))
"""Words, as blanks part them, without one of which `_BIAS` cannot match."""
_REPLIES = frozenset({"agent", "assistant"})
_LEARNED = (Reason.SPAM, Reason.TOXIC, Reason.GIBBERISH, Reason.NON_DIALOGUE)
_GIBBERISH = Reason.GIBBERISH.value
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")
_ECHO_WORDS = 4
_SURE = 0.8
"""Probability from which a language is named; code-mixed and short texts stay below."""


def judge_turn(text: str, role: Role, config: QualityConfig, model: Scorer | None = None) -> Verdict:
    """Judge a turn that is context: a customer's is never rejected for anger, which is tagged `tone`."""
    return _remembered(text, role, config) if model is None else judge_turns([(text, role)], config, model)[0]


def judge_reply(context: Sequence[Turn], text: str, config: QualityConfig, model: Scorer | None = None) -> Verdict:
    """Judge a reply that would be learned: `context` are the turns before it, newest last (may be empty)."""
    return _rejected(Reason.DUPLICATE) if is_echo(context, text) else judge_turn(text, "agent", config, model)


def is_echo(context: Sequence[Turn], text: str) -> bool:
    """True for a reply that only repeats what the customer said."""
    return len(text.split()) >= _ECHO_WORDS and any(t.role == "customer" and t.text == text for t in context[-4:])


@lru_cache(maxsize=1 << 13)
def _remembered(text: str, role: Role, config: QualityConfig) -> Verdict:
    """A conversation is looked at again whenever a turn arrives, and macros repeat."""
    return judge_turns([(text, role)], config)[0]


def judge_turns(turns: Sequence[tuple[str, Role]], config: QualityConfig, model: Scorer | None = None) -> list[Verdict]:
    """Judge many turns (text, role) at once: much cheaper a turn than one by one, with the same verdicts."""
    formal = [_formal(text, role, config) for text, role in turns]
    open_texts = [text for (text, _), found in zip(turns, formal, strict=True) if found is None]
    scores = iter((model or _classifier(config)).scores(open_texts))
    limits = [(code, code.value, getattr(config, code.value)) for code in _LEARNED]
    return [
        _rejected(found) if found else _weigh(text, role, next(scores), config, limits)
        for (text, role), found in zip(turns, formal, strict=True)
    ]


def _formal(text: str, role: Role, config: QualityConfig) -> Reason | None:
    """The first reason that needs no classifier."""
    found = rules.limits(text, config)
    if found is not None:
        return found
    lower = text.lower()
    words = lower.split()
    if rules.broken_encoding(text):
        return Reason.ENCODING
    if rules.control_tokens(text, lower):
        return Reason.CONTROL_TOKENS
    if rules.flood(text, words):
        return Reason.GIBBERISH
    if config.languages and len(text) >= config.language_chars and language(text) not in {*config.languages, "und"}:
        return Reason.LANGUAGE
    return _formal_reply(text, lower, words, config) if role in _REPLIES else None


def _formal_reply(text: str, lower: str, words: Sequence[str], config: QualityConfig) -> Reason | None:
    if rules.too_short(text, config):
        return Reason.TOO_SHORT
    if rules.tokens(text) > config.max_tokens:
        return Reason.TOO_LONG
    if rules.auto_reply(lower):
        return Reason.AUTO_REPLY
    if rules.machine_text(text):
        return Reason.NON_DIALOGUE
    if rules.masked_abuse(lower):
        return Reason.TOXIC
    return None if _PEOPLE_WORDS.isdisjoint(words) or not _BIAS.search(lower) else Reason.BIAS


def _weigh(
    text: str, role: Role, scores: dict[str, float], config: QualityConfig, limits: Sequence[tuple[Reason, str, float]]
) -> Verdict:
    """Compare the classifier's scores with the thresholds of the role; `limits` are those of replies."""
    if scores[_GIBBERISH] >= config.unsure and _was_asked(text, config):
        scores[_GIBBERISH] = 0.0
    if role in _REPLIES:
        reasons = tuple([code for code, name, least in limits if scores[name] >= least])
        if not reasons and sum(scores.values()) >= config.noise:
            reasons = (Reason(max(scores, key=scores.__getitem__)),)
        unsure = not reasons and max(scores.values()) >= config.unsure
        return Verdict(not reasons, reasons, (Tag.UNSURE.value,) if unsure else (), scores)
    asked = {Reason.SPAM: config.customer, Reason.GIBBERISH: config.customer, Reason.NON_DIALOGUE: config.pasted}
    reasons = tuple(code for code, limit in asked.items() if scores[code] >= limit)
    angry = scores[Reason.TOXIC] >= config.unsure or _ANGER.search(text) is not None
    return Verdict(not reasons, reasons, (Tag.TONE.value,) if angry else (), scores)


def _was_asked(text: str, config: QualityConfig) -> bool:
    """True for short answers, numbers, and placeholders for as many words as are left: none of that is gibberish."""
    if len(text) < config.gibberish_chars or sum(map(str.isdigit, text)) * 2 > len(text):
        return True
    masked = len(_PLACEHOLDER.findall(text)) if "<" in text else 0
    return masked > 0 and len(_PLACEHOLDER.sub(" ", text).split()) <= masked


def _rejected(reason: Reason) -> Verdict:
    return Verdict(keep=False, reasons=(reason,), scores={reason.value: 1.0})


def _classifier(config: QualityConfig) -> Scorer:
    if not config.model:
        from streams.quality.classifier import shipped  # noqa: PLC0415 - numpy; settings import this package

        return shipped()
    from streams.quality.backend import joined  # noqa: PLC0415 - the same

    return joined(config.model, config.model_deadline_s)


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - only where languages are set

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """ISO 639-1 code of a text, `und` where the identifier is not sure."""
    code, probability = _identifier().classify(text[:400])
    return str(code) if probability >= _SURE else "und"
