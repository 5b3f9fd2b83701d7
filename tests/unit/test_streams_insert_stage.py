"""The buffer's stage in its lane: a full Redis is waited for, and costs no sample."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from streams.config import StreamConfig
from streams.events import encode_record
from streams.insert_stage import InsertStage
from streams.lanes import Counters, Lane
from streams.ledger import Entry
from streams.outbox import Outbox
from streams.replay import Offsets, ReplayConfig, TopicPartition, open_tables
from streams.replay.audit import audit
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
        lane = Lane(InsertStage(tables, offsets, StreamConfig(), KEY), box, counters, batch=8, limit=100)
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
