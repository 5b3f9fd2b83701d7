"""Records into Kafka: a request waits for its acknowledgments, and is refused when they do not come in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Producer

from services.topic_feed import producer_settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

POLL_S = 0.05
GIVE_UP_MS = 10_000
"""How long librdkafka keeps trying after the request was refused, milliseconds; the ledger drops what comes twice."""


@dataclass(frozen=True, repr=False)
class Outgoing:
    """One record of chats.raw."""

    key: bytes
    value: bytes
    tenant: str
    traceparent: str = ""
    """W3C trace context of the request, carried through."""


class Unavailable(Exception):
    """Kafka has not acknowledged in time, or too much waits for it."""


class _Delivery:
    """Counts down the records of one request, whichever thread reports them."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop, settled: Callable[[], None]) -> None:
        self.future: asyncio.Future[bool] = loop.create_future()
        self._left = count
        self._good = True
        self._loop = loop
        self._settled = settled
        self._lock = threading.Lock()

    def done(self, *, good: bool) -> None:
        """One record is through or lost."""
        with self._lock:
            self._left -= 1
            self._good = self._good and good
            last = self._left == 0
        if last:
            self._settled()
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result(self._good)


class Sink:
    """A producer with a bounded queue, polled by a thread of its own from `start` to `close`."""

    def __init__(
        self,
        base: Mapping[str, Any],
        topic: str,
        clock: Callable[[], float],
        *,
        max_queue_bytes: int,
        timeout_s: float,
    ) -> None:
        settings = {"linger.ms": 1, "compression.type": "lz4", "log_level": 3, "message.timeout.ms": GIVE_UP_MS}
        self._producer = Producer({**producer_settings({}), **settings, **base})
        self._topic = topic
        self._clock = clock
        self._max_bytes = max_queue_bytes
        self._timeout_s = timeout_s
        self._waiting: dict[int, tuple[float, int]] = {}
        """Number of a request -> when it was queued, and its bytes."""
        self._bytes = 0
        self._numbers = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka", daemon=True)
        self.paused = False
        """Set while the reader is too far behind: an embedded broker would delete records unread."""

    def start(self) -> None:
        """Begin to poll for delivery reports."""
        self._thread.start()

    def queued_bytes(self) -> int:
        """Bytes that wait for Kafka."""
        return self._bytes

    def stuck(self) -> bool:
        """Whether something has waited longer than a request may: then Kafka is away, and the next one need not try."""
        with self._lock:
            oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and self._clock() - oldest[0] > self._timeout_s

    def reachable(self, timeout_s: float = 1.0) -> bool:
        """Whether the broker answers now; blocks."""
        try:
            self._producer.list_topics(self._topic, timeout=timeout_s)
        except KafkaException:
            return False
        return True

    async def put(self, records: Sequence[Outgoing]) -> None:
        """Produce all and wait for their acknowledgments. Raises `Unavailable`; some may arrive all the same."""
        size = sum(len(record.key) + len(record.value) for record in records)
        if self.paused or self.stuck() or self._bytes + size > self._max_bytes:
            raise Unavailable
        number = self._enter(size)
        delivery = _Delivery(len(records), asyncio.get_running_loop(), partial(self._leave, number))

        def reported(error: KafkaError | None, _message: Message) -> None:
            delivery.done(good=error is None)

        for record in records:
            given = {"tenant": record.tenant, "traceparent": record.traceparent}
            headers = [(name, value.encode()) for name, value in given.items() if value]
            try:
                self._producer.produce(self._topic, record.value, record.key, headers=[*headers], on_delivery=reported)
            except (BufferError, KafkaException):
                delivery.done(good=False)
        try:
            async with asyncio.timeout(self._timeout_s):
                good = await delivery.future
        except TimeoutError:
            raise Unavailable from None
        if not good:
            raise Unavailable

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait for what is on its way, then stop."""
        self._producer.flush(timeout_s)
        self._stop.set()
        self._thread.join(timeout_s)

    def _enter(self, size: int) -> int:
        with self._lock:
            self._numbers += 1
            self._waiting[self._numbers] = (self._clock(), size)
            self._bytes += size
            return self._numbers

    def _leave(self, number: int) -> None:
        with self._lock:
            _, size = self._waiting.pop(number)
            self._bytes -= size

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(POLL_S)
