"""An optional model that reads what a customer says next: asked where no rule speaks, in time, free to abstain."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from streams.events import Label
from streams.quality.config import QualityConfig
from streams.signals import Judge, Signal, signal_of

if TYPE_CHECKING:
    from streams.quality.backend import Labeller

_OUTCOMES: dict[Label, frozenset[str]] = {
    "good": frozenset(["good", "positive", "satisfied", "resolved", "solved", "happy", "joy", "gratitude", "4 stars",
                       "5 stars"]),
    "bad": frozenset(["bad", "negative", "dissatisfied", "unresolved", "unsolved", "angry", "anger", "annoyance",
                      "1 star", "2 stars"]),
}  # fmt: skip
"""What models call an outcome; all other labels, and the model's own doubt, are abstentions."""

LEAST = 0.5
"""Confidence of a judgement at the least probability that counts; a rule's is .55 and more."""


def judge_of(config: QualityConfig) -> Judge | None:
    """The configured judge, loaded once; None if there is none. Raises OSError if its model is not there."""
    if not config.judge:
        return None
    from streams.quality.backend import labeller  # noqa: PLC0415 - numpy; settings import this package's config

    return _judge(labeller(config.judge, config.model_deadline_s), config.judge_sure)


@lru_cache(maxsize=2)
def _judge(model: Labeller, sure: float) -> Judge:
    return judge(model, sure)


def judge(model: Labeller, sure: float) -> Judge:
    """A judge by this model; it remembers what it said, for a chat is looked at again with every turn."""

    @lru_cache(maxsize=1 << 12)
    def asked(said: str) -> Signal | None:
        found = model.labels([said])
        if not found:
            return None
        name, probability = max(found[0], key=lambda label: label[1], default=("", 0.0))
        outcome = next((label for label, names in _OUTCOMES.items() if name.lower() in names), None)
        if outcome is None or probability < sure:
            return None
        return signal_of(outcome, LEAST * probability / sure, "judge")

    return asked
