"""A person's decision about a reply in the review queue, as it travels on review.decisions.

A decision is feedback like any other: `annotation` says what it changes on a stored reply. An edited text is scrubbed
by the reader of the topic before it becomes a sample of kind `edit` with the preference pair (draft, final).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.events import Annotation, Label, Relane
from streams.replay.config import CHAT, QUARANTINE
from streams.signals import rating_share

Action = Literal["approve", "edit", "reject", "rate"]

STARS = (1.0, 5.0)
"""The scale of `driftline review rate`."""
MIDDLE = 0.5
"""Three stars: they say nothing."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reviewer decided: about the replies `targets` of a sample, at `at` (seconds since the epoch)."""

    decision_id: str
    sample_id: str
    conversation: str
    targets: tuple[str, ...]
    action: Action
    at: float
    rating: float | None = None
    """1 to 5, of `rate`."""
    text: str | None = None
    """The better reply, of `edit`; not yet scrubbed."""
    draft: str | None = None
    """The scrubbed reply that was edited."""
    reviewer: str = ""
    lane: str = ""
    """Where the sample lay when it was shown: one in quarantine is let in or deleted."""
    home: str = CHAT
    """The lane that it goes to when it is let in."""

    def __post_init__(self) -> None:
        """Refuse a decision that lacks what its action needs, and an edit that changes nothing."""
        if self.action == "rate" and (self.rating is None or not STARS[0] <= self.rating <= STARS[1]):
            raise ValueError(f"rating = {self.rating}: wants 1 to 5")
        if self.action == "edit" and not (self.text or "").strip():
            raise ValueError("text: an edit wants the better reply")
        if self.action == "edit" and (self.text or "").strip() == (self.draft or "").strip():
            raise ValueError("text: the reply as it was; approve it instead")

    def __repr__(self) -> str:
        """Ids only."""
        return f"Decision(decision_id={self.decision_id!r}, action={self.action})"


_decoder = msgspec.json.Decoder(Decision)
_encoder = msgspec.json.Encoder()


def encode(decision: Decision) -> bytes:
    """The JSON bytes of a decision."""
    return _encoder.encode(decision)


def decode(value: bytes) -> Decision:
    """Read a record of review.decisions. Raises msgspec.ValidationError, also for a decision that is not complete."""
    return _decoder.decode(value)


def annotation(decision: Decision) -> Annotation:
    """What the decision changes on the stored replies: approve 1.5, reject 0, an edited draft 0, stars in between."""
    label, weight = _judgement(decision)
    return Annotation(
        feedback_id=decision.decision_id, conversation=decision.conversation, targets=decision.targets,
        label=label, weight=weight, received_at=decision.at,
    )  # fmt: skip


def relane(decision: Decision) -> Relane | None:
    """Where a sample goes that waited in quarantine: to its lane if it is good, out of the buffer if not."""
    label, _ = _judgement(decision)
    if decision.lane != QUARANTINE or label == "unknown":
        return None
    lane = decision.home if label == "good" else ""
    return Relane(conversation=decision.conversation, targets=decision.targets, lane=lane, received_at=decision.at)


def _judgement(decision: Decision) -> tuple[Label, float]:
    if decision.action == "approve":
        return "good", 1.5
    if decision.action in {"reject", "edit"}:
        return "bad", 0.0
    share = rating_share(decision.rating or STARS[0], STARS)
    if share < MIDDLE:
        return "bad", 0.0
    return ("unknown", 1.0) if share == MIDDLE else ("good", 0.5 + share)
