"""Clean events and whole conversations for tests of the stages: our own text, fixed by a seed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from streams.events import CleanEvent, isoformat

START = 1_700_000_000.0
"""Kafka time of the first event, seconds."""

_ASKED = ("parcel", "invoice", "router", "booking", "password", "refund", "lamp", "contract", "delivery", "card")
_DONE = ("reset", "sent", "checked", "cancelled", "renewed", "upgraded", "replaced", "moved", "corrected", "closed")
_MORE = (
    "window", "garden", "bottle", "kitchen", "ladder", "pencil", "orange", "castle", "summer", "doctor", "silver",
    "planet", "bridge", "candle", "guitar", "jacket", "market", "needle", "oyster", "pepper", "quiver", "ribbon",
    "saddle", "tablet", "umbrella", "velvet", "walnut", "yellow", "zipper", "anchor", "basket", "camera", "dragon",
    "engine", "flower", "goblet", "hammer", "island", "jungle", "kettle", "lemon", "mirror", "napkin", "office",
)  # fmt: skip


def clean(conversation: str, seq: int, **fields: Any) -> CleanEvent:
    """One clean event; a message of the customer unless `fields` say otherwise."""
    at = fields.pop("received_at", START + 10 * seq)
    given: dict[str, Any] = {
        "event_id": f"{conversation}.{seq}", "type": "message", "conversation": conversation, "seq": seq,
        "ts": isoformat(at), "received_at": at, "split_key": f"fixed:{conversation}", "offset": (0, seq),
        "role": "customer", "text": f"what about my {_ASKED[seq % 10]} from week {seq} please",
    }  # fmt: skip
    if fields.get("type", "message") != "message":
        given |= {"role": None, "text": None}
    return CleanEvent(**{**given, **fields})


def said(rng: random.Random, role: str) -> str:
    """A sentence that no other call with another state of `rng` gives."""
    thing, verb, more = rng.choice(_ASKED), rng.choice(_DONE), rng.sample(_MORE, 6)
    if role == "customer":
        return f"my {thing} with the {more[0]} {more[1]} came without {more[2]}, {more[3]} and {more[4]}, can you help"
    return f"i have {verb} the {thing} {more[0]} for you, {more[1]} and {more[2]} follow the {more[3]} {more[4]}"


def conversation(name: str, turns: int, seed: int = 0, *, close: bool = True, role: str = "agent") -> list[CleanEvent]:
    """Alternating turns, the customer first, and a close."""
    rng = random.Random(f"{name}/{seed}")
    roles = ["customer" if seq % 2 == 0 else role for seq in range(turns)]
    events = [clean(name, seq, role=who, text=said(rng, who)) for seq, who in enumerate(roles)]
    if close:
        events.append(clean(name, turns, type="conversation_closed", turns=turns))
    return events


class Counted:
    """What a stage counts: (outcome, reason) -> events."""

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str]] = Counter()

    def outcome(self, _stage: str, outcome: str, reason: str, count: int) -> None:
        """Count."""
        self.found[outcome, reason] += count
