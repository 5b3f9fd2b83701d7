"""Faust's Kafka transport with two changes: partitions start where Redis says, and records go straight to the lanes.

Stock Faust makes a message, an event, two futures and an entry of its own bookkeeping of every record, which is most
of its cost. The lean consumer hands what was fetched to the lanes as it came and commits what they say is done.
`METHODS_SHA256` is of the methods that it replaces: with any other version of Faust the stock way is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiokafka.errors import IllegalStateError
from faust.transport import consumer as stock
from faust.transport.drivers import aiokafka as driver

from streams.config import StreamConfig

Resume = Callable[[str, int, int | None, int], int | None]

METHODS = (
    "_drain_messages", "getmany", "_wait_next_records", "_filter_tps_with_pending_acks", "_new_offset",
    "_should_commit", "perform_seek",
)  # fmt: skip
"""Of Faust's consumer: what the lean one replaces or relies on."""

METHODS_SHA256 = "c4e5963738a1f7f34fb888f6c5da7cd5ee440be027eff67426b86bd849c8ddee"
"""Of the sources of those methods in the version that the lean consumer was written for."""

WAIT_S = 1.0
"""Longest wait for records; Faust's own."""

PART_WAIT_S = 0.02
"""The same while a lane is full and only the others are asked for, so that it is not left without work."""

FULL_PAUSE_S = 0.002
"""Pause while every lane is full; Faust sleeps a second there."""


class Way(Protocol):
    """Where the records of a topic go."""

    done: dict[int, int]
    """Partition -> offset behind the last record of which nothing is outstanding."""

    @property
    def has_room(self) -> bool:
        """Whether more should be fetched."""

    def feed(self, partition: int, records: Sequence[Any]) -> None:
        """Take what was fetched of a partition, in order."""


def is_known() -> bool:
    """Whether the installed Faust has the methods that the lean consumer replaces, unchanged."""
    sources = "".join(inspect.getsource(getattr(stock.Consumer, name)) for name in METHODS)
    return hashlib.sha256(sources.encode()).hexdigest() == METHODS_SHA256


def transport_with(
    app: Any, config: StreamConfig, resume: Resume, ways: Mapping[str, Way], unread: Callable[[str, int], None]
) -> Any:
    """The transport of `app`, whose consumer rewinds by `resume` and goes the lean way where it can.

    `ways` by full topic name; it may be filled until the app starts. `unread` hears of records that the broker deleted
    before they were read.
    """
    kind = LeanConsumer if config.lean_drain and is_known() else RewindingConsumer
    transport = driver.Transport(app.conf.broker_consumer, app)
    own = {"resume": staticmethod(resume), "prefix": config.prefix, "ways": ways, "unread": staticmethod(unread)}
    own["fetch_wait_ms"] = round(config.fetch_wait_s * 1000)
    transport.Consumer = type(kind.__name__, (kind,), own)
    return transport


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc] # faust has no types for us
    """Faust's thread of a consumer, with the fetches' wait as set: Faust has a number in the code."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.consumer.fetch_wait_ms  # noqa: SLF001 - read when it starts; no setting
        return consumer


class RewindingConsumer(driver.Consumer):  # type: ignore[misc] # faust has no types for us
    """Starts each partition at its committed offset, or before it where Redis does not know all effects."""

    resume: Resume
    prefix: str = ""
    fetch_wait_ms: int = 1_500

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._began: dict[Any, int] = {}

    def _new_consumer_thread(self) -> Any:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def started_at(self, tp: Any) -> int:
        """The offset at which a partition's reading began."""
        return self._began.get(tp, 0)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek every partition to the lower of its committed offset and what Redis asks for.

        One without a committed offset, or with 0, goes back to its first record: aiokafka would leave it where it has
        read to, behind records that a rebalance overtook and nobody was given.
        """
        committed = dict(await super().seek_to_committed())
        loop = asyncio.get_running_loop()
        assigned = list(self.assignment())
        earliest = await self.earliest_offsets(*assigned) if assigned else {}
        sought = {}
        for tp in assigned:
            known = committed.get(tp)
            known = known if known is not None and known >= 0 else None
            first = earliest.get(tp, 0)
            topic = tp.topic.removeprefix(self.prefix)
            wanted = await loop.run_in_executor(None, self.resume, topic, tp.partition, known, first)
            begin = known or first
            if known and wanted is not None and wanted < known:
                begin = max(wanted, first)
            if begin != known or not known:
                sought[tp] = begin
            committed[tp] = self._began[tp] = begin
        with suppress(IllegalStateError):  # revoked meanwhile: the rebalance that takes it away seeks again
            if sought:
                await self.seek_wait(sought)
        return committed


class LeanConsumer(RewindingConsumer):
    """Hands fetched records to the lanes whole, and commits what the lanes have done."""

    ways: Mapping[str, Way]
    unread: Callable[[str, int], None]

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch and hand over until this consumer or its fetcher stops."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):  # noqa: SLF001 - as upstream's
                await asyncio.sleep(0)
                if not self.should_stop:
                    await self._drain()
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def _drain(self) -> None:
        """One fetch. What a rebalance overtook is not handed over: its partitions are read again as committed."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        records = await self._fetched()
        if self.should_stop:
            return
        if not self.flow_active or self.app.consumer_generation_id != generation:
            await self.perform_seek()
            return
        jumps = []
        for tp, found in records.items():
            at = self._read_offset[tp]
            fresh = found if at is None or found[0].offset >= at else [r for r in found if r.offset >= at]
            if fresh:
                if at is not None and fresh[0].offset > at:
                    jumps.append((tp, at, fresh[0].offset))
                self.ways[tp.topic].feed(tp.partition, fresh)
                self._read_offset[tp] = fresh[-1].offset + 1
        for jump in jumps:  # only now: while this waits, a rebalance may begin
            await self._jumped(*jump)

    async def _jumped(self, tp: Any, expected: int, first: int) -> None:
        """Records are missing: deleted unread if the log begins behind them, else they never were chats."""
        if (await self.earliest_offsets(tp)).get(tp, 0) > expected:
            self.unread(tp.topic.removeprefix(self.prefix), first - expected)

    async def _fetched(self) -> Mapping[Any, Sequence[Any]]:
        """Records by partition, of those whose lane has room."""
        self.not_waiting_next_records.set()
        active = self._get_active_partitions()
        full = {topic for topic, way in self.ways.items() if not way.has_room}
        wanted = {tp for tp in active if tp.topic not in full} if full else active
        if not wanted:
            await asyncio.sleep(FULL_PAUSE_S if active else PART_WAIT_S)
            return {}
        found: Mapping[Any, Sequence[Any]] | None = await self._getmany(
            active_partitions=wanted, timeout=PART_WAIT_S if full else WAIT_S
        )
        return found or {}

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        owned = (tp for tp in self.assignment() if tp.topic in self.ways)
        return (tp for tp in owned if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: Any) -> int | None:
        return self.ways[tp.topic].done.get(tp.partition)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Nothing: it watches Faust's streams, through which no record goes here."""
