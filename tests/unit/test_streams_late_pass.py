"""The conversation pass of the assembler: ended conversations only, masked before a sample is cut, counted."""

from __future__ import annotations

import redis

from streams.assemble.conversation import Conversation
from streams.config import StreamConfig
from streams.events import CleanEvent
from streams.late_pass import LatePass
from streams.scrub import ConversationState, Keys, ScrubConfig
from streams.scrub.conversation import Numbering
from streams.scrub.identity import value_key
from streams.scrub.masking import mask_turn
from streams.scrub_stage import ScrubStore

KEYS = Keys("k1", {"k1": b"r" * 32}, b"f" * 32)
NAME = "k1:abc"


def event(seq: int, text: str | None, role: str = "customer") -> CleanEvent:
    """A turn as the scrubber left it; without text the close."""
    kind = {"type": "conversation_closed", "turns": seq} if text is None else {"type": "message", "role": role}
    return CleanEvent(
        event_id=f"e{seq}", conversation=NAME, seq=seq, ts="2024-05-01T10:00:00Z", received_at=1.0 + seq,
        offset=(0, seq),
        split_key="s", text=text, **kind,
    )  # fmt: skip


def test_late_pass_masks_what_became_known(redis_client: redis.Redis) -> None:
    """A surname in the first turn is masked once the conversation has closed; a second look finds nothing more."""
    state = ConversationState()
    mask_turn("my name is Ines Quellmark", "customer", 1, Numbering(state, value_key(KEYS)), ScrubConfig())
    store = ScrubStore(redis_client, StreamConfig(), "e1", 1_000)
    assert store.save({NAME: (0, state)}, [(0, 1)])
    counts: list[int] = []
    late = LatePass(store, KEYS, counts.append)
    conversation = Conversation(NAME)
    for each in (event(0, "the parcel for quellmark never came"), event(1, "my name is <PERSON_1>")):
        conversation.add(each)
    late([conversation])
    assert conversation.events["e0"].text == "the parcel for quellmark never came"
    conversation.add(event(2, None))
    late([conversation])
    late([conversation])
    assert [m.text for m in conversation.messages()] == [
        "the parcel for <PERSON_1> never came",
        "my name is <PERSON_1>",
    ]
    assert counts == [1]


def test_late_pass_of_an_unknown_conversation(redis_client: redis.Redis) -> None:
    """Without a state of its own, a conversation is left as it is."""
    conversation = Conversation(NAME)
    conversation.add(event(0, "hello there"))
    conversation.add(event(1, None))
    LatePass(ScrubStore(redis_client, StreamConfig(), "e1", 1_000), KEYS, lambda _: None)([conversation])
    assert conversation.messages()[0].text == "hello there"
