"""What the auxiliary heads learn of a customer's turn: its sentiment and its intent. Torch-free.

No one labels live chats, so the labels are what the stream knows anyway: whether the reply before the turn was good
or bad (ratings, escalations, what was said next), else what the turn's own words say; and, of the first turn, the topic
of the chat that it opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from streams.events import Label, Sample, Turn
from streams.signals import signals

HeadName = Literal["sentiment", "intent"]
HEADS: tuple[HeadName, ...] = ("sentiment", "intent")

SENTIMENTS = {"good": "positive", "bad": "negative", "unknown": "neutral"}

NO_TOPIC = "other"
"""Topic of chats that could not be told: no class of its own."""

Classes = tuple[tuple[HeadName, str], ...]
"""(head, class) pairs of one turn."""


def classes_of(sample: Sample) -> list[Classes]:
    """The classes of each turn of a sample, empty for turns that are not the customer's."""
    intent: Classes = () if sample.topic == NO_TOPIC else (("intent", sample.topic),)
    first = next((at for at, turn in enumerate(sample.turns) if turn.role == "customer"), -1)
    return [
        (("sentiment", sentiment(sample.turns, at)), *(intent if at == first else ()))
        if turn.role == "customer"
        else ()
        for at, turn in enumerate(sample.turns)
    ]


def sentiment(turns: Sequence[Turn], at: int) -> str:
    """`positive`, `negative` or `neutral`: how the customer feels in a turn."""
    before: Label = turns[at - 1].label if at else "unknown"
    return SENTIMENTS[before if before != "unknown" else _said(turns[at].text)]


@lru_cache(maxsize=8_192)
def _said(text: str) -> Label:
    """What a turn says of the reply before it; rehearsal asks again and again."""
    return signals("", (Turn(role="customer", text=text),)).label
