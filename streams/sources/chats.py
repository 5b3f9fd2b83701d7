"""Chats of any source as records of chats.raw."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from streams.events import ChatEvent, Closed, Message, Role, encode, isoformat

NAMESPACE = uuid.UUID("5f0c3d3e-6d3b-5f0e-9d0a-0d1f7a5b2c11")
"""Of the ids that are made here; never changes, or a file that is read again would count twice."""

_ROLES: Mapping[str, Role] = {
    "customer": "customer", "user": "customer", "client": "customer", "visitor": "customer", "human": "customer",
    "requester": "customer", "end-user": "customer", "end_user": "customer", "lead": "customer", "inbound": "customer",
    "contact": "customer", "agent": "agent", "support": "agent", "staff": "agent", "operator": "agent",
    "admin": "agent", "representative": "agent", "employee": "agent", "outbound": "agent", "teammate": "agent",
    "assistant": "assistant", "bot": "assistant", "ai": "assistant", "model": "assistant", "gpt": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Line:
    """One turn: who, what, and when (Unix seconds) where the source says so."""

    role: Role
    text: str
    at: float | None = None


@dataclass(frozen=True, repr=False)
class Chat:
    """A whole conversation of a file, in order."""

    conversation_id: str
    lines: tuple[Line, ...]
    channel: str
    """Where it comes from: chat, email, faq, bitext ..."""
    resolved: bool | None = None
    customer: Mapping[str, str] = field(default_factory=dict)
    closed: bool = True


@dataclass(frozen=True, repr=False)
class SourceRecord:
    """One record for chats.raw, byte for byte; `offset_ms` is its place in the source's own time, if it has one."""

    key: bytes | None
    value: bytes
    offset_ms: float | None = None


@dataclass(frozen=True)
class Unreadable:
    """A part of a file that holds no chat: its number (from 1) and why."""

    number: int
    reason: str


def role_of(name: str) -> Role | None:
    """The role that a source calls `name`; None if nobody knows it."""
    return _ROLES.get(name.strip().lower())


def message_id(conversation_id: str, seq: int, role: str, text: str) -> str:
    """The event id of a turn that has none of its own; the same turn of the same chat always gets the same id."""
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return str(uuid.uuid5(NAMESPACE, f"{conversation_id}\n{seq}\n{role}\n{digest}"))


def chat_events(chat: Chat, started: float) -> Iterator[ChatEvent]:
    """The messages of a chat and its end; turns without a time are a second apart from `started`, Unix seconds."""
    last = started
    for seq, line in enumerate(chat.lines):
        last = line.at if line.at is not None else last + (1 if seq else 0)
        customer = chat.customer if chat.customer and line.role == "customer" else None
        yield Message(
            event_id=message_id(chat.conversation_id, seq, line.role, line.text),
            conversation_id=chat.conversation_id,
            seq=seq,
            ts=isoformat(last),
            role=line.role,
            text=line.text,
            channel=chat.channel,
            customer=customer,
        )
    if chat.closed:
        turns = len(chat.lines)
        yield Closed(
            event_id=message_id(chat.conversation_id, turns, "closed", str(chat.resolved)),
            conversation_id=chat.conversation_id,
            seq=turns,
            ts=isoformat(last),
            turns=turns,
            resolved=chat.resolved,
        )


def chat_records(chat: Chat, started: float) -> Iterator[SourceRecord]:
    """The records of a chat; `offset_ms` counts from `started` where the source has times."""
    timed = any(line.at is not None for line in chat.lines)
    at = 0.0
    events = chat_events(chat, started)
    for line, event in zip((*chat.lines, None), events, strict=False):
        if line is not None and line.at is not None:
            at = max(0.0, (line.at - started) * 1000)
        yield SourceRecord(chat.conversation_id.encode(), encode(event), at if timed else None)
