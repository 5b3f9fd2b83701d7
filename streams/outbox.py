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
from typing import Any, Protocol

from streams.ledger import Entry

POLL_S = 0.002
"""Between two looks at delivery reports: the worker's share of end-to-end latency."""


@dataclass(frozen=True)
class Record:
    """One record to produce; `topic` is the full name on this cluster."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Output:
    """What a stage made of one event: records, and ledger entries (digest, entry) that follow their delivery."""

    records: tuple[Record, ...] = ()
    moves: tuple[tuple[str, Entry], ...] = ()


NOTHING = Output()


class Acknowledged(Protocol):
    """An event that can be acknowledged to Kafka."""

    def ack(self) -> Any:
        """Its offset may be committed."""


@dataclass
class _Parcel:
    events: Sequence[Acknowledged]
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

    async def put(self, events: Sequence[Acknowledged], outputs: Sequence[Output], done: Callable[[], None]) -> None:
        """Produce the records of `events` in order; `done` is called when all of them are acknowledged."""
        while self._waiting >= self.limit:
            self._room.clear()
            await self._room.wait()
        moves = [move for output in outputs for move in output.moves]
        parcel = _Parcel(events, moves, done)
        self._queue.append(parcel)
        self._work.set()
        self._waiting += len(events)
        for output in outputs:
            for record in output.records:
                parcel.outstanding += 1
                await self.produce(record, partial(self._delivered, parcel))

    async def produce(self, record: Record, delivered: Callable[[], None]) -> None:
        """Hand one record to librdkafka; waits while its queue is full."""

        def report(error: Any, _message: Any) -> None:
            self._unreported -= 1
            if error is None:
                delivered()
            else:
                self.fatal(RuntimeError(f"record not delivered: {error.name()}"))

        while True:
            try:
                self.producer.produce(
                    record.topic, value=record.value, key=record.key, headers=list(record.headers), on_delivery=report
                )
            except BufferError:
                self.producer.poll(0)
                await asyncio.sleep(POLL_S)
            else:
                self._unreported += 1
                self._work.set()
                return

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
        for event in parcel.events:
            event.ack()
        self._queue.popleft()
        self._waiting -= len(parcel.events)
        self._room.set()
        parcel.done()

    @staticmethod
    def _delivered(parcel: _Parcel) -> None:
        parcel.outstanding -= 1
