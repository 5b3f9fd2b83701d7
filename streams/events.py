"""What travels over Kafka: chat events, clean events, training samples, and their JSON.

Three shapes, all named here and nowhere else:

    chats.raw     ChatEvent   Message | Feedback | Closed, as senders write it (streams/raw_events.py)
    chats.clean   CleanEvent  the same after scrubbing: pseudonyms, allow-listed fields only
    examples      Sample | Annotation   what the replay buffer stores, and what becomes known later

and the Rejection of an event that teaches nothing, on chats.rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from streams.raw_events import (
    KINDS,
    MAX_ID,
    MAX_TEXT,
    ROLES,
    SCHEMA,
    BadEvent,
    ChatEvent,
    Closed,
    DeadLetter,
    Feedback,
    Message,
    Role,
    decode,
    encode,
    from_object,
    isoformat,
    readable_id,
    timestamp,
    to_object,
)

__all__ = [
    "KINDS",
    "MAX_ID",
    "MAX_TEXT",
    "ROLES",
    "SCHEMA",
    "Annotation",
    "BadEvent",
    "ChatEvent",
    "CleanEvent",
    "Closed",
    "DeadLetter",
    "ExampleRecord",
    "Feedback",
    "Label",
    "Message",
    "Pair",
    "Rejection",
    "Role",
    "Sample",
    "Split",
    "Turn",
    "decode",
    "decode_clean",
    "decode_example",
    "encode",
    "encode_record",
    "from_object",
    "isoformat",
    "readable_id",
    "timestamp",
    "to_object",
]

Split = Literal["train", "val", "test"]
Label = Literal["good", "bad", "unknown"]


class CleanEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A scrubbed chat event on chats.clean: pseudonyms for ids, allow-listed fields only."""

    event_id: str
    type: Literal["message", "feedback", "conversation_closed"]
    conversation: str
    seq: int
    ts: str
    received_at: float
    """Kafka timestamp of the record in chats.raw, seconds."""
    split_key: str
    """Pseudonym, under a key that is never rotated, that decides train, val or test."""
    offset: tuple[int, int]
    """Partition and offset in chats.raw."""
    customer: str | None = None
    tenant: str = ""
    line: str = "a"
    role: Role | None = None
    text: str | None = None
    channel: str | None = None
    lang: str | None = None
    agent_id: str | None = None
    adapter: str | None = None
    answer_id: str | None = None
    arm: str | None = None
    p: float | None = None
    rating: float | None = None
    scale: tuple[float, float] | None = None
    corrected_text: str | None = None
    kind: str | None = None
    target_seq: int | None = None
    turns: int | None = None
    resolved: bool | None = None

    def __repr__(self) -> str:
        """Ids only, as for raw events: scrubbed text does not belong into logs either."""
        return f"CleanEvent(event_id={self.event_id!r}, type={self.type}, seq={self.seq})"


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a sample; the loss is on targets only."""

    role: Role
    text: str
    is_target: bool = False
    event_id: str | None = None
    """Of targets: the last event of the reply."""
    label: Label = "unknown"
    weight: float = 1.0

    def __repr__(self) -> str:
        """Without the text."""
        return f"Turn(role={self.role}, is_target={self.is_target})"


class Pair(msgspec.Struct, frozen=True):
    """A preference: the draft that an agent threw away and the text that went out."""

    draft: str
    final: str

    def __repr__(self) -> str:
        """Without the text."""
        return "Pair()"


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="sample", tag_field="type"):
    """A training example: context turns, replies with their loss weights, provenance."""

    sample_id: str
    """`<event id of the last reply>/<kind>/<n>`, kind one of sft, edit, aug."""
    conversation: str
    customer: str
    lane: str
    split: Split
    turns: tuple[Turn, ...]
    received_at: float
    """Kafka timestamp, in chats.raw, of the event of the last reply, seconds: digest and ttl hang on it."""
    completed_at: float
    """Kafka timestamp, in chats.raw, of the event that completed the sample, seconds: freshness starts here."""
    happened_at: float = 0.0
    """The last reply's own `ts`, seconds; 0 when unknown. Retention counts from it with `retention_basis = event`."""
    tenant: str = ""
    line: str = "a"
    priority: float = 1.0
    pair: Pair | None = None
    adapter: str | None = None
    arm: str | None = None
    p: float | None = None
    agent_id: str | None = None
    topic: str = "other"
    lang: str = "und"
    source: str = "chat"
    tags: tuple[str, ...] = ()
    event_ids: tuple[str, ...] = ()
    """Every event that the sample holds, as reply or as context."""
    offsets: Mapping[str, tuple[int, int]] = {}
    """`chats.raw-<partition>` -> first and last offset of those events."""
    replaces: str | None = None
    """Hex digest8 of the stored sample that this one replaces (a late find of personal data)."""

    @property
    def kind(self) -> str:
        """`sft`, `edit` or `aug`."""
        return self.sample_id.rsplit("/", 2)[1]

    def __repr__(self) -> str:
        """Ids only."""
        return f"Sample(sample_id={self.sample_id!r}, split={self.split}, turns={len(self.turns)})"


class Annotation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="annotation", tag_field="type"):
    """What became known of a reply after its sample left: a new label and weight for one stored target."""

    feedback_id: str
    """Event id of the feedback; applying it twice changes nothing."""
    conversation: str
    targets: tuple[str, ...]
    """Event ids of the replies that it speaks of."""
    label: Label
    weight: float
    received_at: float
    lane: str = ""
    """Lane that the stored samples of the targets move to; empty: they stay."""


class Relane(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="relane", tag_field="type"):
    """Stored samples move to another lane: out of quarantine once others agree, into it when a flood shows."""

    conversation: str
    targets: tuple[str, ...]
    """Event ids of replies; all samples that hold one as target move."""
    lane: str
    """Empty: they leave the buffer."""
    received_at: float


class Rejection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an event teaches nothing: who sent it is a pseudonym, what it said is scrubbed. reject.lua writes it too."""

    event_id: str
    conversation: str
    type: Literal["message", "feedback", "conversation_closed"]
    reason: str
    score: float
    """How sure that is, 0 to 1; 1 where no classifier was asked."""
    seq: int | None = None
    role: Role | None = None
    text: str | None = None
    offset: tuple[int, int] | None = None
    """Partition and offset in chats.raw; None for a decision out of the review queue, which came another way."""

    def __repr__(self) -> str:
        """Without the text."""
        return f"Rejection(event_id={self.event_id!r}, reason={self.reason})"


ExampleRecord = Sample | Annotation | Relane

_clean_decoder = msgspec.json.Decoder(CleanEvent)
_example_decoder: msgspec.json.Decoder[ExampleRecord] = msgspec.json.Decoder(ExampleRecord)
_encoder = msgspec.json.Encoder()


def encode_record(record: CleanEvent | ExampleRecord | Rejection) -> bytes:
    """The JSON bytes of a record of chats.clean, examples or chats.rejected."""
    return _encoder.encode(record)


def decode_clean(value: bytes) -> CleanEvent:
    """Read a record of chats.clean. Raises msgspec.ValidationError; our own writer made it."""
    return _clean_decoder.decode(value)


def decode_example(value: bytes) -> ExampleRecord:
    """Read a record of examples. Raises msgspec.ValidationError; our own writer made it."""
    return _example_decoder.decode(value)
