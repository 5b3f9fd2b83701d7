"""Claims: what several customers were told of one question, and when its contradiction may be learned. Pure.

A reply that contradicts (near_copies.py) what `WITNESSES` customers were told waits in quarantine until as many others,
by different agents where these are known, were told so too: one account cannot overturn a policy. Unless known agents
stand for it, a contradiction also waits while the old claim is still being told: a policy that is stated every day has
not changed, whatever fifty accounts say. Contradictions that come faster than a cluster of copies may grow are a flood,
which waits for a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

WITNESSES = 3
"""Different customers that make a claim known, or overturn it; as many as retire a fact (learner/supersede.py)."""

STILL_S = 3_600.0
"""A claim that was told so lately, after the first contradiction, is still told; seconds."""

REPEATS = 5
"""Claims after a turning point that move what waited once more: its own record may come later than the first."""

Voices = Mapping[str, str]
"""Customer -> agent who told them, '' where unknown; both as `voice` gives them."""


class Stance(StrEnum):
    """What becomes of a reply: learned, kept apart until others agree, or kept apart for a person."""

    ADMIT = "admit"
    HOLD = "hold"
    FLOOD = "flood"


@dataclass(frozen=True)
class Evidence:
    """What is known of a claim: who was told it, who was told otherwise, by which replies, how many this hour."""

    told: Voices = field(default_factory=dict)
    against: Voices = field(default_factory=dict)
    members: tuple[str, ...] = ()
    hourly: int = 0
    told_at: float = 0.0
    """When it was told last, seconds."""
    since: float = math.inf
    """When it was first contradicted, seconds."""


def voice(pseudonym: str | None) -> str:
    """Eight bytes in hex that stand for a customer or an agent; empty for none."""
    return blake2b(pseudonym.encode(), digest_size=8).hexdigest() if pseudonym else ""


def stance(evidence: Evidence, customer: str, agent: str, at: float, hourly: int) -> Stance:
    """What becomes of one more reply against a claim at `at`, seconds; `hourly` of them in an hour are no flood yet."""
    if len(evidence.told) < WITNESSES:
        return Stance.ADMIT
    against = {customer: agent, **evidence.against}
    if len(against) >= WITNESSES and len(set(against.values()) - {""}) >= WITNESSES:
        return Stance.ADMIT
    if evidence.hourly >= hourly:
        return Stance.FLOOD
    different = {told_by or told for told, told_by in against.items()}
    still = evidence.since < evidence.told_at and at - evidence.told_at < STILL_S
    return Stance.HOLD if still or min(len(against), len(different)) < WITNESSES else Stance.ADMIT


def turned(evidence: Evidence, now: Stance, hourly: int) -> tuple[str, ...]:
    """The earlier replies that follow this stance: they are let in, or taken back, as the first ones after it come."""
    if now is Stance.FLOOD:
        return evidence.members if evidence.hourly < hourly + REPEATS else ()
    late = len(evidence.told) < WITNESSES or len(evidence.against) >= WITNESSES + REPEATS
    return () if now is Stance.HOLD or late else evidence.members
