"""A request's new messages and its answer as chat events, so that the loop closes over Kafka."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from services.router.view import Pin
from streams.events import MAX_TEXT, Message, Role, encode, isoformat

EVENTS = uuid.UUID("6f0f6b5e-2c53-5c84-9a2e-5d1d3b6f3a10")
"""Name space of the event ids that routers make."""

ROLES: dict[str, Role] = {
    "user": "customer",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
"""OpenAI's role -> ours; others (tools) are no chat turns."""


@dataclass(frozen=True)
class Turn:
    """One message of a request as we record it."""

    role: Role
    text: str

    def __repr__(self) -> str:
        """Without the text."""
        return f"Turn(role={self.role})"


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """All that the events of one turn need besides their number."""

    conversation_id: str
    tenant: str
    line: str
    customer_id: str | None
    answer_id: str
    at: float


def recordable(text: str) -> bool:
    """Whether chats.raw takes this text; a blank or huge one would be a dead letter."""
    return bool(text.strip()) and len(text) <= MAX_TEXT


def event_id(conversation_id: str, seq: int, role: str, text: str) -> str:
    """The same turn has the same id, however often it is sent."""
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return str(uuid.uuid5(EVENTS, f"{conversation_id}\x00{seq}\x00{role}\x00{digest}"))


def asked(chat: Chat, turns: Sequence[Turn], first: int) -> list[bytes]:
    """The events of new messages, numbered from `first`."""
    return [encode(_message(chat, turn, first + at)) for at, turn in enumerate(turns)]


def answered(chat: Chat, text: str, seq: int, pin: Pin) -> bytes:
    """The event of the answer, with the version that gave it and the draw that chose the version."""
    said = _message(chat, Turn("assistant", text), seq)
    return encode(
        msgspec.structs.replace(
            said, adapter=pin.version, answer_id=chat.answer_id, arm=pin.arm, p=pin.p if pin.arm else None
        )
    )


def _message(chat: Chat, turn: Turn, seq: int) -> Message:
    return Message(
        event_id=event_id(chat.conversation_id, seq, turn.role, turn.text),
        conversation_id=chat.conversation_id,
        seq=seq,
        ts=isoformat(chat.at),
        line=chat.line,
        role=turn.role,
        text=turn.text,
        channel="router",
        customer={"id": chat.customer_id} if chat.customer_id else None,
    )
