"""Produce what a stage made of its events, and acknowledge them in order once every record was delivered.

An event is acknowledged only when all before it are, so a committed offset never passes an undelivered one. Ledger
entries of events whose only effect is a record are written in between: after the delivery report, before the
acknowledgment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from streams.ledger import Entry

POLL_S = 0.002
"""Between two looks at delivery reports: the worker's share of end-to-end latency."""


class Record(NamedTuple):
    """One record to produce; `topic` is the full name on this cluster."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Hold:
    """Keeps an event unacknowledged until another output frees it and the records of that one are delivered."""

    def __init__(self) -> None:
        self.parcel: _Parcel | None = None


class Output(NamedTuple):
    """What a stage made of one event: records, and ledger entries (digest, entry) that follow their delivery."""

    records: tuple[Record, ...] = ()
    moves: tuple[tuple[str, Entry], ...] = ()
    hold: Hold | None = None
    """The event waits: what becomes of it comes with a later output."""
    frees: tuple[Hold, ...] = ()
    """Events that waited and of which these records are."""


NOTHING = Output()


class Acknowledged(Protocol):
    """An event that can be acknowledged to Kafka."""

    def ack(self) -> Any:
        """Its offset may be committed."""


class Taken(Protocol):
    """A record that was read; `event` is None where nobody but `done` has to be told."""

    @property
    def event(self) -> Acknowledged | None:
        """What is acknowledged with it."""


@dataclass
class _Parcel:
    taken: Sequence[Taken]
    moves: list[tuple[str, Entry]]
    done: Callable[[], None]
    outstanding: int = 0


@dataclass
class Outbox:
    """One stage's ordered way out, over a librdkafka producer that may be shared."""

    producer: Any
    move: Callable[[Sequence[tuple[str, Entry]]], Awaitable[None]]
    """Write ledger entries; waits as long as Redis is away."""
    limit: int
    """Events that may wait for acknowledgment."""
    fatal: Callable[[BaseException], None]
    """Called once when the producer cannot go on."""
    _queue: deque[_Parcel] = field(default_factory=deque)
    _waiting: int = 0
    _unreported: int = 0
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        return self._waiting

    async def put(self, taken: Sequence[Taken], outputs: Sequence[Output], done: Callable[[], None]) -> None:
        """Produce what became of `taken`, in order; `done` is called when all of it is acknowledged."""
        while self._waiting >= self.limit:
            self._room.clear()
            await self._room.wait()
        parcel = _Parcel(taken, [move for output in outputs for move in output.moves], done)
        self._queue.append(parcel)
        self._work.set()
        self._waiting += len(taken)
        plain = partial(self._reported, (parcel,))  # one for all records of the batch: this is the hot path
        for output in outputs:
            waited = tuple(hold.parcel for hold in output.frees if hold.parcel is not None)
            report = partial(self._reported, (parcel, *waited)) if waited else plain
            if output.hold is not None:
                output.hold.parcel = parcel
                parcel.outstanding += 1
            for record in output.records:
                for one in (parcel, *waited):
                    one.outstanding += 1
                if not self._hand_over(record, report):
                    await self._insist(record, report)
            for one in waited:
                one.outstanding -= 1

    async def produce(self, record: Record, delivered: Callable[[], None]) -> None:
        """Hand one record to librdkafka that belongs to no event; waits while its queue is full."""
        parcel = _Parcel((), [], delivered, outstanding=1)

        def report(error: Any, message: Any) -> None:
            self._reported((parcel,), error, message)
            if error is None:
                delivered()

        await self._insist(record, report)
        self._work.set()

    async def _insist(self, record: Record, report: Callable[[Any, Any], None]) -> None:
        """Hand a record over as soon as librdkafka's queue has room."""
        while not self._hand_over(record, report):  # noqa: ASYNC110 - librdkafka has no event for it
            await asyncio.sleep(POLL_S)

    def _hand_over(self, record: Record, report: Callable[[Any, Any], None]) -> bool:
        """False while librdkafka's queue is full."""
        try:
            if record.headers:
                headers = list(record.headers)
                self.producer.produce(
                    record.topic, value=record.value, key=record.key, headers=headers, on_delivery=report
                )
            else:
                self.producer.produce(record.topic, value=record.value, key=record.key, on_delivery=report)
        except BufferError:
            self.producer.poll(0)
            return False
        self._unreported += 1
        return True

    def _reported(self, parcels: Sequence[_Parcel], error: Any, _message: Any) -> None:
        self._unreported -= 1
        if error is None:
            for parcel in parcels:
                parcel.outstanding -= 1
        else:
            self.fatal(RuntimeError(f"record not delivered: {error.name()}"))

    async def run(self) -> None:
        """Serve delivery reports and acknowledge from the head of the queue, for ever."""
        while True:
            if not self._queue and not self._unreported:
                self._work.clear()
                await self._work.wait()
            self.producer.poll(0)
            while self._queue and not self._queue[0].outstanding:
                await self._acknowledge(self._queue[0])
            await asyncio.sleep(POLL_S)

    async def _acknowledge(self, parcel: _Parcel) -> None:
        if parcel.moves:
            await self.move(parcel.moves)
        for record in parcel.taken:
            if record.event is not None:
                record.event.ack()
        self._queue.popleft()
        self._waiting -= len(parcel.taken)
        self._room.set()
        parcel.done()
