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

    from streams.quality.classifier import Classifier

_ANGER = re.compile(
    r"\b(?:ridiculous|unacceptable|furious|pissed|angry|outrage(?:ous|d)|terrible|horrible|awful|worst|useless|scam\w*"
    r"|disgust\w*|pathetic|joke of a|fed up|sick of|how dare|never again|wtf|bullshit|damn|hell|stupid|idiots?)\b",
    re.IGNORECASE,
)
_BIAS = re.compile(
    r"\b(?:all|most|those|these|you)\s+(?:of\s+you\s+)?(?:women|men|girls|blacks?|whites?|asians?|jews?|muslims?|christians?|"
    r"immigrants?|foreigners?|gays?|lesbians?|old people|boomers|indians?|chinese|africans?|mexicans?|arabs?|gypsies)\s+"
    r"(?:people\s+)?(?:are|always|never|can't|cannot|only|just|do not|don't|should)\b",
    re.IGNORECASE,
)
_LEARNED = (Reason.SPAM, Reason.TOXIC, Reason.GIBBERISH, Reason.NON_DIALOGUE)


def judge_turn(text: str, role: Role, config: QualityConfig, model: Classifier | None = None) -> Verdict:
    """Judge a turn that is context: a customer's is never rejected for anger, which is tagged `tone`."""
    if role in {"agent", "assistant"}:
        return judge_reply((), text, config, model)
    found = _formal(text, config)
    if found is not None:
        return _rejected(found)
    scores = (model or _classifier()).scores(text)
    angry = max(scores[Reason.TOXIC], 0.9 if _ANGER.search(text) else 0.0)
    tags = (Tag.TONE.value,) if angry >= config.unsure else ()
    limits = {
        Reason.SPAM: config.customer, Reason.GIBBERISH: config.customer, Reason.NON_DIALOGUE: config.pasted,
    }  # fmt: skip
    reasons = tuple(code for code in _LEARNED if code in limits and scores[code] >= limits[code])
    return Verdict(not reasons, reasons, tags, scores)


def judge_reply(context: Sequence[Turn], text: str, config: QualityConfig, model: Classifier | None = None) -> Verdict:
    """Judge a reply that would be learned: `context` are the turns before it, newest last (may be empty)."""
    found = _formal(text, config)
    if found is not None:
        return _rejected(found)
    if rules.too_short(text, config):
        return _rejected(Reason.TOO_SHORT)
    if rules.tokens(text) > config.max_tokens:
        return _rejected(Reason.TOO_LONG)
    if rules.auto_reply(text):
        return _rejected(Reason.AUTO_REPLY)
    if rules.machine_text(text):
        return _rejected(Reason.NON_DIALOGUE)
    scores = (model or _classifier()).scores(text)
    limits = {code: float(getattr(config, code.value)) for code in _LEARNED}
    reasons = [code for code in _LEARNED if scores[code] >= limits[code]]
    if _BIAS.search(text):
        reasons.append(Reason.BIAS)
        scores[Reason.BIAS] = 1.0
    unsure = not reasons and any(scores[code] >= config.unsure for code in _LEARNED)
    return Verdict(not reasons, tuple(reasons), (Tag.UNSURE.value,) if unsure else (), scores)


def _formal(text: str, config: QualityConfig) -> Reason | None:
    """The first reason that needs no classifier, of those that hold for customers and replies alike."""
    limit = rules.limits(text, config)
    if limit is not None:
        return limit
    if rules.control_tokens(text):
        return Reason.CONTROL_TOKENS
    if rules.broken_encoding(text):
        return Reason.ENCODING
    if rules.flood(text):
        return Reason.GIBBERISH
    if config.languages and len(text) >= config.language_chars and language(text) not in (*config.languages, "und"):
        return Reason.LANGUAGE
    return None


def _rejected(reason: Reason) -> Verdict:
    return Verdict(keep=False, reasons=(reason,), scores={reason.value: 1.0})


@lru_cache(maxsize=1)
def _classifier() -> Classifier:
    from streams.quality.classifier import shipped  # noqa: PLC0415 - numpy; settings import this package

    return shipped()


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - only where languages are set

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """ISO 639-1 code of a text, `und` where the identifier is not sure."""
    code, probability = _identifier().classify(text[:400])
    return str(code) if probability >= 0.8 else "und"  # noqa: PLR2004 - code-mixed and short texts stay below
