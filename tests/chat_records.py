"""Records of chats.raw as a consumer gives them, for tests of stages."""

from __future__ import annotations

from streams.events import Message, encode
from streams.lanes import Incoming


def message(seq: int, text: str, conversation: str = "c-1", partition: int = 2) -> Incoming:
    """A customer's turn at offset `seq`."""
    event = Message(
        event_id=f"{conversation}.{seq}", conversation_id=conversation, seq=seq, ts="2024-05-01T10:00:00Z",
        role="customer", text=text,
    )  # fmt: skip
    return Incoming(partition, seq, conversation.encode(), encode(event), 1_700_000_000.0 + seq)
