"""The buffer's stage in its lane: a full Redis is waited for, and costs no sample."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import redis

from streams.assemble.store import AssembleStore
from streams.config import StreamConfig
from streams.events import Annotation, ExampleRecord, Rejection, encode_record
from streams.insert_stage import InsertStage
from streams.lanes import Counters, Incoming, Lane
from streams.ledger import Entry, Ledger, Outcome
from streams.outbox import Outbox
from streams.quality import QualityConfig
from streams.replay import Offsets, ReplayConfig, TopicPartition, open_tables
from streams.replay.audit import audit
from streams.topics import CHATS_CLEAN, CHATS_REJECTED
from tests.conversations import Counted, conversation
from tests.replay_fuzz import KEY, sample

RECORDS = 12


@dataclass(frozen=True)
class Read:
    """A record as the consumer read it."""

    offset: int
    value: bytes
    key: bytes = b"k"
    timestamp: int = 5_000
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Producer:
    """Delivers at once and remembers what it was given: only dead letters leave this stage."""

    produced: list[str] = field(default_factory=list)

    def produce(self, topic: str, *, on_delivery: Callable[[Any, Any], None], **_: Any) -> None:
        """Delivered."""
        self.produced.append(topic)
        on_delivery(None, None)

    def poll(self, _timeout: float) -> int:
        """Nothing is under way."""
        return 0


def test_insert_stage_waits_while_redis_is_full(redis_client: redis.Redis) -> None:
    """At maxmemory the lane pauses; with room again every sample is stored, and none became a dead letter."""
    config = replace(ReplayConfig(), compress=False)
    tables = open_tables(redis_client, config, KEY, "ep", configure=True)
    offsets = Offsets(redis_client, "ep", 1_000)
    now = float(redis_client.time()[0])
    reads = [Read(i, encode_record(sample(i, received_at=now))) for i in range(RECORDS)]
    paused: list[bool] = []

    def pause(waits: bool) -> None:  # noqa: FBT001 - the lane's signature
        paused.append(waits)
        if len(paused) == 3:
            redis_client.config_set("maxmemory", "0")

    async def move(_moves: Sequence[tuple[str, Entry]]) -> None: ...

    async def run(producer: Producer) -> None:
        box = Outbox(producer, move, 100, lambda _: None)
        counters = Counters(pause, lambda *_: None, lambda _: None)
        lane = Lane(
            InsertStage(tables, offsets, StreamConfig(), KEY, load=lambda _: ()), box, counters, batch=8, limit=100
        )
        tasks = [asyncio.create_task(box.run()), asyncio.create_task(lane.run())]
        lane.feed(0, reads)
        async with asyncio.timeout(60):
            while lane.done != {0: RECORDS}:  # noqa: ASYNC110 - the lane has no event for the test
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        lane.close()

    producer = Producer()
    redis_client.config_set("maxmemory", "1mb")
    try:
        asyncio.run(run(producer))
    finally:
        redis_client.config_set("maxmemory", "0")
    assert (paused[:4], producer.produced) == ([True, True, True, False], [])
    assert int(redis_client.hget("{rb:train}:n", "n") or 0) == RECORDS
    assert offsets.resume_offset(TopicPartition("examples", 0)) == RECORDS
    assert audit(tables.train, full=True) == []


def test_insert_stage_every_refusal_leaves_its_record(redis_client: redis.Redis) -> None:
    """On chats.rejected, again after a kill: too big, no target; not what is stored, trained elsewhere or erased."""
    config, counted = StreamConfig(), Counted()
    tables = open_tables(redis_client, replace(ReplayConfig(), compress=False), KEY, "ep", configure=True)
    store = AssembleStore(redis_client, config, QualityConfig(), KEY, "ep")
    now = float(redis_client.time()[0])
    events = [event for name in ("c0", "c1", "c2") for event in conversation(name, 2)]
    store.arrive(CHATS_CLEAN, [(0, n) for n in range(len(events))], events, [encode_record(e) for e in events])
    known = {name: [e for e in events if e.conversation == name] for name in ("c0", "c1", "c2")}

    def held(i: int, name: str, text: str = "answer") -> ExampleRecord:
        made = sample(i, received_at=now, reply=text, n=i)
        reply = next(e.event_id for e in known[name] if e.role == "agent")
        turns = (*made.turns[:-1], msgspec.structs.replace(made.turns[-1], event_id=reply))
        return msgspec.structs.replace(
            made, conversation=name, sample_id=f"{reply}/sft/0", turns=turns,
            event_ids=tuple(e.event_id for e in known[name] if e.type == "message"),
        )  # fmt: skip

    note = Annotation(
        feedback_id="review-1", conversation="c0", targets=("gone",), label="bad", weight=0.0, received_at=now
    )
    huge = "word " * ReplayConfig().train.max_item_bytes
    sent = [held(0, "c0"), held(1, "c0"), held(2, "c1", huge), note, held(3, "c2", huge)]
    batch = [Incoming(0, n, b"k", encode_record(record), now) for n, record in enumerate(sent)]
    redis_client.delete("asm:c:c2")

    def run(count: Counted | None) -> list[Rejection]:
        stage = InsertStage(tables, Offsets(redis_client, "ep", 1_000), config, KEY, load=store.load, count=count)
        made = [record for output in stage.run(batch) for record in output.records]
        assert {record.topic for record in made} == {CHATS_REJECTED}
        return [msgspec.json.decode(record.value or b"", type=Rejection) for record in made]

    found = run(counted)
    texts = {event.event_id: event.text for event in known["c1"] if event.type == "message"}
    assert {row.event_id: (row.reason, row.text) for row in found} == {
        **{name: ("too_big", text) for name, text in texts.items()},
        "review-1": ("no_target", None),
    }
    assert run(None) == found
    ledger = Ledger(redis_client, KEY, 1_000)
    entries = ledger.read([ledger.digest(row.event_id) for row in found])
    assert [(e.outcome, e.reason) for e in entries if e] == [(Outcome.REJECTED, row.reason) for row in found]
    assert counted.found["rejected", "too_big"] == 2 * len(texts)
    assert (counted.found["accepted", ""], counted.found["rejected", "no_target"]) == (1, 1)
