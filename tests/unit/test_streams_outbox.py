"""Outbox and lanes: acknowledged in order and only after delivery; paused while Redis is away; poison set apart."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from streams.lanes import Counters, Incoming, Lane, is_transient
from streams.ledger import Entry, Outcome
from streams.outbox import NOTHING, Hold, Outbox, Output, Record


@dataclass
class Producer:
    """librdkafka's shape: reports come when they are polled, here in the order that the test gives."""

    waiting: deque[Callable[[Any, Any], None]] = field(default_factory=deque)
    produced: list[str] = field(default_factory=list)
    full: int = 0
    """Times that the local queue is full."""
    error: Any = None
    hold: bool = False

    def produce(self, topic: str, *, on_delivery: Callable[[Any, Any], None], **_: Any) -> None:
        """Queue a record, or refuse it while the queue is full."""
        if self.full:
            self.full -= 1
            raise BufferError
        self.produced.append(topic)
        self.waiting.append(on_delivery)

    def poll(self, _timeout: float) -> int:
        """Serve the reports."""
        while self.waiting and not self.hold:
            self.waiting.popleft()(self.error, None)
        return 0


@dataclass
class Event:
    """An event that writes down when it is acknowledged; it stands for its record too."""

    offset: int
    log: list[Any]

    @property
    def event(self) -> Event:
        """Itself."""
        return self

    def ack(self) -> None:
        """Write it down."""
        self.log.append(self.offset)


class Failure:
    """A delivery error as librdkafka reports it."""

    def name(self) -> str:
        """Its constant."""
        return "_FATAL"


def outbox(producer: Producer, log: list[Any], fatal: Callable[[BaseException], None] = lambda _: None) -> Outbox:
    async def move(moves: Sequence[tuple[str, Entry]]) -> None:
        log.append([digest for digest, _ in moves])

    return Outbox(producer, move, 100, fatal)


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0.001)


def test_outbox_acknowledges_from_the_head_only() -> None:
    """A later event whose records were delivered waits for the one before it."""

    async def run() -> list[Any]:
        log: list[Any] = []
        producer = Producer(hold=True)
        box = outbox(producer, log)
        task = asyncio.create_task(box.run())
        await box.put([Event(0, log)], [Output((Record("t", b"k", b"v"),))], lambda: None)
        await box.put([Event(1, log)], [NOTHING], lambda: None)
        await turns()
        assert log == []
        assert box.waiting == 2
        producer.hold = False
        await turns()
        task.cancel()
        return log

    assert asyncio.run(run()) == [0, 1]


def test_outbox_files_the_ledger_between_delivery_and_acknowledgment() -> None:
    """An entry whose only effect is a record is written after its delivery report, before the acknowledgment."""

    async def run() -> list[Any]:
        log: list[Any] = []
        box = outbox(Producer(full=3), log)
        task = asyncio.create_task(box.run())
        moves = (("d1", Entry(Outcome.DEAD_LETTERED, "not_json")),)
        await box.put([Event(0, log)], [Output((Record("t", b"k", None),), moves)], lambda: log.append("done"))
        await turns()
        task.cancel()
        return log

    assert asyncio.run(run()) == [["d1"], 0, "done"]


def test_outbox_held_event_waits_for_what_frees_it() -> None:
    """It is acknowledged when the records that it became, with a later event, are delivered; so are those behind it."""

    async def run() -> list[Any]:
        log: list[Any] = []
        producer = Producer()
        box = outbox(producer, log)
        task = asyncio.create_task(box.run())
        held = Hold()
        await box.put([Event(0, log)], [Output(hold=held)], lambda: None)
        await box.put([Event(1, log)], [NOTHING], lambda: None)
        await turns()
        log.append("still")
        producer.hold = True
        record = Record("t", b"k", b"v")
        await box.put([Event(2, log)], [Output((record, record), frees=(held,))], lambda: None)
        await turns()
        log.append("produced")
        producer.hold = False
        await turns()
        task.cancel()
        return log

    assert asyncio.run(run()) == ["still", "produced", 0, 1, 2]


def test_outbox_fatal_delivery_error_acknowledges_nothing() -> None:
    """A record that cannot be delivered ends the worker; its event is read again."""

    async def run() -> tuple[list[Any], list[BaseException]]:
        log: list[Any] = []
        errors: list[BaseException] = []
        box = outbox(Producer(error=Failure()), log, errors.append)
        task = asyncio.create_task(box.run())
        await box.put([Event(0, log)], [Output((Record("t", b"k", b"v"),))], lambda: None)
        await turns()
        task.cancel()
        return log, errors

    log, errors = asyncio.run(run())
    assert log == []
    assert "_FATAL" in str(errors[0])


class Stage:
    """A stage that fails as the test says."""

    def __init__(self, away: int = 0, poison: frozenset[int] = frozenset()) -> None:
        self.away, self._poison = away, poison
        self.runs: list[list[int]] = []

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One record each."""
        self.runs.append([record.offset for record in batch])
        if self.away:
            self.away -= 1
            raise redis.ConnectionError("away")
        if self._poison & {record.offset for record in batch}:
            raise ValueError("chat text must not travel")
        return [Output((Record("out", b"k", b"v"),)) for _ in batch]

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """Its dead letter."""
        return Output((Record(f"dead-{record.offset}-{type(error).__name__}", None, None),))


def drive(stage: Stage, offsets: Sequence[int]) -> tuple[list[Any], list[str], list[bool]]:
    async def run() -> tuple[list[Any], list[str], list[bool]]:
        log: list[Any] = []
        waits: list[bool] = []
        producer = Producer()
        box = outbox(producer, log)
        lane = Lane(stage, box, Counters(waits.append, lambda *_: None, lambda _: None), batch=8, limit=100)
        tasks = [asyncio.create_task(box.run()), asyncio.create_task(lane.run())]
        for offset in offsets:
            await lane.take(Incoming(0, offset, b"k", b"v", float(offset), event=Event(offset, log)))
        for _ in range(300):
            await turns(5)
            if len(log) == len(offsets):
                break
        assert lane.idle
        assert lane.done == {0: offsets[-1] + 1}
        for task in tasks:
            task.cancel()
        lane.close()
        return log, producer.produced, waits

    return asyncio.run(run())


def test_lanes_repeat_a_batch_while_redis_is_away() -> None:
    """Nothing is acknowledged meanwhile, and afterwards everything is, once and in order."""
    stage = Stage(away=3)
    log, produced, waits = drive(stage, range(5))
    assert log == list(range(5))
    assert produced == ["out"] * 5
    assert waits == [True, True, True, False]


@pytest.mark.parametrize("at", [0, 3, 7])
def test_lanes_set_a_poison_record_apart(at: int) -> None:
    """A record that fails alone becomes a dead letter, at head, middle or end; the rest of its batch goes on."""
    log, produced, _ = drive(Stage(poison=frozenset({at})), range(8))
    assert log == list(range(8))
    assert produced.count("out") == 7
    assert f"dead-{at}-ValueError" in produced


@dataclass(frozen=True)
class Read:
    """A record as the consumer read it."""

    offset: int
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    timestamp: int = 5_000
    headers: tuple[tuple[str, bytes], ...] = ()


def test_lanes_fed_by_the_consumer_say_what_may_be_committed() -> None:
    """Only delivered records count as done, in order; a full lane has no room; revoked partitions count nothing."""

    async def run() -> list[Any]:
        producer = Producer(hold=True)
        box = outbox(producer, [])
        counters = Counters(lambda _: None, lambda *_: None, lambda _: None)
        lane = Lane(Stage(), box, counters, batch=4, limit=8)
        tasks = [asyncio.create_task(box.run()), asyncio.create_task(lane.run())]
        lane.feed(0, [Read(offset) for offset in range(3)])
        lane.feed(1, [Read(offset) for offset in range(40, 49)])
        seen: list[Any] = [lane.has_room]
        await turns()
        seen.append(dict(lane.done))
        lane.forget(1)
        producer.hold = False
        await turns()
        seen += [dict(lane.done), lane.seen_at[0], lane.idle, lane.has_room]
        lane.feed(1, [Read(40)])
        await turns()
        seen.append(dict(lane.done))
        for task in tasks:
            task.cancel()
        lane.close()
        return seen

    full, before, after, newest, idle, room, again = asyncio.run(run())
    assert (full, before) == (False, {})
    assert (after, newest, idle, room) == ({0: 3}, 5.0, True, True)
    assert again == {0: 3, 1: 41}


def test_lanes_know_what_passes() -> None:
    """A full or loading server is waited for; a script's own error is not."""
    assert is_transient(redis.TimeoutError("x"))
    assert is_transient(redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    assert is_transient(redis.ReadOnlyError("You can't write against a read only replica."))
    assert is_transient(redis.ResponseError("Error running script: -OOM command not allowed when used memory"))
    assert is_transient(redis.ResponseError("MISCONF Errors writing to the AOF file"))
    assert not is_transient(redis.ResponseError("user_script:12: attempt to index a nil value"))
