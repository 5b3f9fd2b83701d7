"""One input topic's way through its stage: collect what is there, run the stage in a thread, put the outcome out.

A stage is synchronous and idempotent: it takes a batch of records and answers one `Output` each. While Redis is away
or full the same batch is tried again, so reading stops and Kafka's heartbeats go on. A batch that fails otherwise is
run record by record, and the one that fails alone becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar

import redis

from streams.outbox import Acknowledged, Outbox, Output

T = TypeVar("T")

RETRY_S = (0.05, 0.1, 0.2, 0.5)
"""Pauses before a batch is tried again while Redis is away; the last one repeats."""

HELD_LOOK_S = 0.1
"""Between two looks at held events while nothing arrives."""

_TRANSIENT = ("BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED")
_TRANSIENT_CLASSES = (
    redis.ConnectionError, redis.TimeoutError, redis.exceptions.OutOfMemoryError, redis.ReadOnlyError,
    redis.exceptions.MasterDownError, redis.exceptions.TryAgainError,
)  # fmt: skip
"""Errors that redis-py has classes for: it takes the word that the server begins them with off their text."""


class Incoming(NamedTuple):
    """A record as a stage sees it; `at` is its Kafka timestamp, seconds."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    at: float
    headers: tuple[tuple[str, bytes], ...] = ()
    event: Acknowledged | None = None
    """What Faust wants acknowledged; None where the consumer commits what the lane says is done."""


class Fetched(Protocol):
    """A record as the consumer read it; `timestamp` in milliseconds."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """Key."""

    @property
    def value(self) -> bytes | None:
        """Value."""

    @property
    def timestamp(self) -> int:
        """Of the broker or the sender, as the topic says."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Headers."""


class Stage(Protocol):
    """What a lane runs: pure but for its store, the same answer however often it is asked."""

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One output for each record. Raises redis.RedisError when it has to be repeated."""

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """The dead letter of a record on which `run` failed."""


class Holder(Protocol):
    """A stage that may hold an event for the next one."""

    @property
    def holding(self) -> int:
        """Events that are held now."""

    def release(self, *, everything: bool) -> list[Output]:
        """What becomes of held events that have waited long enough, or of all. Raises redis.RedisError."""

    def revoke(self, partition: int) -> None:
        """Drop what is held of a partition that another worker reads now; from any thread."""


@dataclass
class Counters:
    """What a lane tells its metrics."""

    paused: Callable[[bool], None]
    """True while the lane waits for Redis."""
    took: Callable[[float, int], None]
    """Seconds that a batch took, and its size."""
    caught: Callable[[BaseException], None]
    """An error that was handled."""


def is_transient(error: redis.RedisError) -> bool:
    """True if the same call may succeed later: no connection, a full server, one that loads its data."""
    if isinstance(error, _TRANSIENT_CLASSES):
        return True
    return str(error).startswith(_TRANSIENT) or "OOM command not allowed" in str(error)  # out of a script on 6.2


class Lane:
    """The queue between an agent and its stage, and the loop that empties it."""

    def __init__(
        self, stage: Stage, outbox: Outbox, counters: Counters, *, batch: int, limit: int,
        skip: Callable[[int, range], None] = lambda _partition, _gap: None, hold: Callable[[], bool] = lambda: False,
        holder: Holder | None = None,
    ) -> None:  # fmt: skip
        self._skip = skip
        self._holder = holder
        self._ending = False
        self._hold = hold
        self._taken: dict[int, int] = {}
        self.stage = stage
        self.outbox = outbox
        self._counters = counters
        self._batch = batch
        self._limit = limit
        self._queue: deque[Incoming] = deque()
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self.done: dict[int, int] = {}
        """Partition -> offset behind the last acknowledged record."""
        self.seen_at: dict[int, float] = {}
        """Partition -> newest timestamp of an acknowledged record."""
        self._lives: Counter[int] = Counter()
        """Partition -> how often it was taken from this worker."""
        self._working = 0

    @property
    def idle(self) -> bool:
        """Nothing is queued, worked on or waiting for acknowledgment."""
        return not (self._queue or self._working or self.outbox.waiting)

    @property
    def has_room(self) -> bool:
        """Whether more should be fetched of this topic."""
        return len(self._queue) < self._limit

    async def take(self, record: Incoming) -> None:
        """Queue a record; waits while the lane is full."""
        while not self.has_room:
            self._left.clear()
            await self._left.wait()
        self._queue.append(record)
        self._arrived.set()

    def feed(self, partition: int, records: Sequence[Fetched]) -> None:
        """Queue what was fetched of a partition, in order; ask `has_room` before fetching."""
        self._queue.extend(
            [Incoming(partition, r.offset, r.key, r.value, r.timestamp / 1000, r.headers) for r in records]
        )
        self._arrived.set()

    def finish(self) -> None:
        """No more is read: what is held goes on as it is."""
        self._ending = True
        self._arrived.set()

    async def run(self) -> None:
        """Work off the queue, for ever."""
        while True:
            await self._arrival()
            if self._holder is not None and self._holder.holding:
                await self._release(self._holder)
            if not self._queue:
                continue
            while self._hold():  # noqa: ASYNC110 - what it waits for is another topic's lag
                await asyncio.sleep(RETRY_S[0])
            records = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            self._left.set()
            self._working = len(records)
            started = perf_counter()
            done = self._acknowledged(records)
            await self._pass_gaps(records)
            outputs = await self._outputs(records)
            self._counters.took(perf_counter() - started, len(records))
            await self.outbox.put(records, outputs, done)
            self._working = 0

    async def _arrival(self) -> None:
        """Wait for a record, or for the moment to look at what is held."""
        if self._queue:
            return
        self._arrived.clear()
        if self._holder is None or not self._holder.holding:
            await self._arrived.wait()
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), HELD_LOOK_S)

    async def _release(self, holder: Holder) -> None:
        """Held events that are due go on; all of them when nothing else could be acknowledged before them."""
        everything = self._ending or self.outbox.waiting + self._batch >= self._limit
        outputs = await self.call(partial(holder.release, everything=everything))
        if outputs:
            await self.outbox.put((), outputs, lambda: None)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run something in the stage's thread, again and again while Redis is away."""
        loop = asyncio.get_running_loop()
        for attempt in range(1 << 62):
            try:
                found = await loop.run_in_executor(self._thread, function, *args)
            except redis.RedisError as error:
                if not is_transient(error):
                    raise
                self._counters.paused(True)  # noqa: FBT003 - a gauge
                self._counters.caught(error)
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            else:
                if attempt:
                    self._counters.paused(False)  # noqa: FBT003 - a gauge
                return found
        raise AssertionError("unreachable")

    def forget(self, partition: int) -> None:
        """Drop what is queued of a partition that was revoked: its next owner reads it again."""
        kept = [record for record in self._queue if record.partition != partition]
        self._queue.clear()
        self._queue.extend(kept)
        self._lives[partition] += 1
        if self._holder is not None:
            self._holder.revoke(partition)
        self.done.pop(partition, None)
        self._taken.pop(partition, None)
        self.seen_at.pop(partition, None)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _pass_gaps(self, records: Sequence[Incoming]) -> None:
        """Tell of offsets between two records of a partition that will never arrive."""
        taken = self._taken
        for record in records:
            before = taken.get(record.partition, record.offset - 1)
            if record.offset > before + 1:
                await self.call(self._skip, record.partition, range(before + 1, record.offset))
            if record.offset > before:
                taken[record.partition] = record.offset

    async def _outputs(self, records: Sequence[Incoming]) -> list[Output]:
        try:
            return await self.call(self.stage.run, records)
        except redis.RedisError:
            raise  # a script that fails is no fault of a record: the worker ends, nothing is acknowledged
        except Exception as error:  # noqa: BLE001 - the stage's edge: what fails alone becomes a dead letter
            self._counters.caught(error)
            if len(records) == 1:
                (record,) = records
                await self.call(self._skip, record.partition, range(record.offset, record.offset + 1))
                return [self.stage.poison(record, error)]
        return [output for record in records for output in await self._outputs([record])]

    def _acknowledged(self, records: Sequence[Incoming]) -> Callable[[], None]:
        """What to do when all of a batch is delivered; nothing for partitions that were taken away meanwhile."""
        ends: dict[int, tuple[int, float]] = {}
        for record in records:
            _, newest = ends.get(record.partition, (0, 0.0))
            ends[record.partition] = (record.offset + 1, max(record.at, newest))
        lives = {partition: self._lives[partition] for partition in ends}

        def done() -> None:
            for partition, (end, newest) in ends.items():
                if self._lives[partition] == lives[partition]:
                    self.done[partition] = end
                    self.seen_at[partition] = max(newest, self.seen_at.get(partition, 0.0))

        return done
