"""The conversation pass of the assembler: masked before a sample is cut, replaced where it has left, counted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis

from streams.assemble.conversation import Conversation
from streams.assemble.store import AssembleStore
from streams.assemble_stage import AssembleStage, Produced
from streams.clock import SETTLE_S, StreamClock
from streams.config import StreamConfig
from streams.events import CleanEvent, Sample, decode_example, encode_record, isoformat
from streams.insert_stage import InsertStage
from streams.lanes import Incoming
from streams.late_pass import LatePass
from streams.ledger import Ledger, Outcome
from streams.near_copies_store import RedisCopies
from streams.quality import QualityConfig
from streams.replay import Offsets, ReplayConfig, open_tables
from streams.replay.audit import audit
from streams.replay.codec import sample_digest
from streams.replay.tables import Tables
from streams.scrub import ConversationState, Keys, ScrubConfig
from streams.scrub.conversation import Numbering
from streams.scrub.identity import value_key
from streams.scrub.masking import mask_turn
from streams.scrub_stage import ScrubStore
from streams.topics import CHATS_REJECTED, EXAMPLES

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
    conversation.add(event(2, None))
    late([conversation])
    assert conversation.masked == {"e0"}
    late([conversation])
    assert [m.text for m in conversation.messages()] == [
        "the parcel for <PERSON_1> never came",
        "my name is <PERSON_1>",
    ]
    assert counts == [1]


KEY = b"k" * 32
TRAIN = StreamConfig(shares=(1.0, 0.0, 0.0))
TOLD = (
    "the parcel for quellmark never came to the depot at the harbour",
    "i have asked the depot, and the courier brings your parcel again tomorrow morning",
    "good, and how do i change the label then",
    "whose name should stand on the label of the new parcel, and from when on",
    "my name is <PERSON_1>",
    "thank you mister quellmark, i have changed the label for you and we send the parcel today",
)
"""The surname becomes known in the fifth turn, and the first reply has left by then."""


class Loop:
    """Assembler, late pass and replay buffer over one server, driven by hand."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self.now = client, float(client.time()[0])
        self.tables: Tables = open_tables(client, ReplayConfig(), KEY, "e1", configure=True)
        store = AssembleStore(client, TRAIN, QualityConfig(), KEY, "e1")
        self.insert = InsertStage(self.tables, Offsets(client, "e1", 1_000), TRAIN, KEY, load=store.load)
        self.late: list[int] = []
        self.stored: list[Sample] = []
        self.sent = 0
        self.restart()

    def restart(self) -> None:
        """A new worker, which knows what Redis knows."""
        states, quality = ScrubStore(self.client, TRAIN, "e1", 1_000), QualityConfig()
        store = AssembleStore(self.client, TRAIN, quality, KEY, "e1")
        self.stage = AssembleStage(
            store, RedisCopies(self.client, quality), StreamClock(self.client, "e1", lambda: self.now), TRAIN,
            quality=quality, key=KEY, late=LatePass(states, KEYS, self.late.append),
        )  # fmt: skip

    def take(self, events: Sequence[CleanEvent]) -> None:
        """Events arrive on chats.clean."""
        self.stage.run([Incoming(0, e.seq, b"k", encode_record(e), e.received_at) for e in events])

    def leave(self, newest: float) -> Produced:
        """What leaves at that time goes into the buffer, twice."""
        produced = self.stage.turn({0: False}, {0: True}, {0: newest}, [])
        self.now += 2 * SETTLE_S
        produced |= self.stage.turn({0: False}, {0: True}, {0: newest}, list(produced))
        values = [pending.value for pending in produced.values() if pending.topic == EXAMPLES]
        records = [Incoming(0, self.sent + n, b"k", value, self.now) for n, value in enumerate(values)]
        self.sent += len(records)
        self.stored += [found for v in values if isinstance(found := decode_example(v), Sample)]
        for _ in range(2 if records else 0):
            self.insert.run(records)
        return produced


@pytest.mark.parametrize("restarted", [False, True])
def test_late_pass_replaces_what_has_left(redis_client: redis.Redis, *, restarted: bool) -> None:
    """A stored sample with a late find is replaced by one without, its events are accepted once, no text is left."""
    loop = Loop(redis_client)
    said = [
        CleanEvent(
            event_id=f"e{seq}", type="message", conversation=NAME, seq=seq, ts=isoformat(loop.now + 10 * seq),
            received_at=loop.now + 10 * seq, offset=(0, seq), split_key="s", text=text,
            role="agent" if seq % 2 else "customer",
        )
        for seq, text in enumerate(TOLD)
    ]  # fmt: skip
    end = CleanEvent(
        event_id="e6", type="conversation_closed", conversation=NAME, seq=6, ts=isoformat(loop.now + 60),
        received_at=loop.now + 60, offset=(0, 6), split_key="s", turns=6,
    )  # fmt: skip
    loop.take(said[:4])
    loop.leave(loop.now + 30)
    assert [sample.sample_id for sample in loop.stored] == ["e1/sft/0"]
    state = ConversationState()
    mask_turn("my name is Ines Quellmark", "customer", 4, Numbering(state, value_key(KEYS)), ScrubConfig())
    assert ScrubStore(redis_client, TRAIN, "e1", 1_000).save({NAME: (0, state)}, [(0, 4)])
    if restarted:
        loop.restart()
    loop.take([*said[4:], end])
    produced = loop.leave(loop.now + 60)
    assert loop.late == [2]
    assert [sample.sample_id for sample in loop.stored[1:]] == ["e1/sft/1", "e5/sft/0"]
    assert loop.stored[1].replaces is not None
    assert loop.stored[1].turns[0].text == "the parcel for <PERSON_1> never came to the depot at the harbour"
    stored = loop.tables.train.samples([sample_digest(sample, KEY) for sample in loop.stored])
    assert [found is not None for found in stored] == [False, True, True]
    assert audit(loop.tables.train, full=True) == []
    ledger = Ledger(redis_client, KEY, 1_000)
    entries = ledger.read([ledger.digest(f"e{seq}") for seq in range(7)])
    assert {(entry.outcome, entry.effects) for entry in entries if entry} == {(Outcome.ACCEPTED, 1)}
    assert b"quellmark" not in b"".join(redis_client.hvals(f"asm:c:{NAME}"))  # type: ignore[arg-type] # bytes here
    assert not any(pending.topic == CHATS_REJECTED for pending in produced.values())
    loop.restart()
    assert not loop.leave(loop.now + 90)


def test_late_pass_of_an_unknown_conversation(redis_client: redis.Redis) -> None:
    """Without a state of its own, a conversation is left as it is."""
    conversation = Conversation(NAME)
    conversation.add(event(0, "hello there"))
    conversation.add(event(1, None))
    LatePass(ScrubStore(redis_client, StreamConfig(), "e1", 1_000), KEYS, lambda _: None)([conversation])
    assert conversation.messages()[0].text == "hello there"
