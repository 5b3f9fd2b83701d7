"""What the canary's statistics are fed with: exposures and outcomes, on topics of the same names.

    rollout.exposures   Exposure   one per conversation and rollout, written before its first answer
    rollout.outcomes    Outcome    something that happened to an answer of a conversation; absence means good

Both are keyed by the conversation's pseudonym and hold no text. Times are seconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

Arm = Literal["candidate", "control"]


class Metric(StrEnum):
    """The guardrails: every one is a rate of bad conversations; a closed set."""

    ERROR = "error"
    """An answer failed, timed out, was empty or looped."""
    SAFETY = "safety"
    """An answer was flagged: toxicity, personal data, policy."""
    SLOW = "slow"
    """The first token came later than the objective."""
    ESCALATED = "escalated"
    """Handed to a person."""
    NEGATIVE = "negative"
    """Thumbs down, correction, rephrase, reopened."""


class Source(StrEnum):
    """Who saw an outcome."""

    ROUTER = "router"
    NODE = "node"
    SIGNALS = "signals"


class Exposure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation was assigned to an arm of a rollout, with the probability of that draw."""

    rollout_id: str
    generation: int
    line: str
    conversation_id: str
    """Pseudonym."""
    arm: Arm
    version: str
    """The version that really serves; stable when the arm's own is not ready anywhere."""
    p: float
    """Probability of the candidate arm at this draw."""
    ts: float
    """The router's clock."""
    fallback: bool = False
    """Assigned to the candidate, served by stable."""
    degraded: bool = False
    """Drawn without the pin store; the conversation is left out of the analysis in both arms."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an answer, by one guardrail."""

    conversation_id: str
    """Pseudonym."""
    metric: Metric
    bad: bool
    event_ts: float
    answer_id: str = ""
    source: Source = Source.SIGNALS


_encoder = msgspec.json.Encoder()
_exposures = msgspec.json.Decoder(Exposure)
_outcomes = msgspec.json.Decoder(Outcome)


def encode(event: Exposure | Outcome) -> bytes:
    """The JSON bytes of an exposure or an outcome."""
    return _encoder.encode(event)


def decode_exposure(value: bytes) -> Exposure:
    """Read a record of rollout.exposures. Raises msgspec.DecodeError."""
    return _exposures.decode(value)


def decode_outcome(value: bytes) -> Outcome:
    """Read a record of rollout.outcomes. Raises msgspec.DecodeError."""
    return _outcomes.decode(value)
