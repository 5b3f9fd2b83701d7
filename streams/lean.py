"""Faust's Kafka transport with two changes: partitions start where Redis says, and records go straight on.

Stock Faust wraps every record in a wait of two futures; while the flow is active and the callback does not have to
wait, that is most of its cost. `DRAIN_SHA256` is of the method that `_drain_messages` replaces: with any other
version of Faust the stock way is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from faust.transport import consumer as stock
from faust.transport.drivers import aiokafka as driver

from streams.config import StreamConfig

Resume = Callable[[str, int, int | None, int], int | None]

DRAIN_SHA256 = "44a2500309e83c630493f6828af50166ec8d96a0b3e4fb2bab735f704ae93417"
"""Of the source of `Consumer._drain_messages` in the version that the lean drain was written for."""

CHECK_EVERY = 100
"""Records between two looks at the queues."""

BUFFERED_PAUSE_S = 0.002
"""Pause while every partition's buffer is full; Faust sleeps a second there."""


def is_known() -> bool:
    """Whether the installed Faust has the method that the lean drain replaces, unchanged."""
    source = inspect.getsource(stock.Consumer._drain_messages)  # noqa: SLF001 - this is what is compared
    return hashlib.sha256(source.encode()).hexdigest() == DRAIN_SHA256


def transport_with(app: Any, config: StreamConfig, resume: Resume) -> Any:
    """The transport of `app`, whose consumer rewinds by `resume` and drains leanly where it can."""
    kind = LeanConsumer if config.lean_drain and is_known() else RewindingConsumer
    transport = driver.Transport(app.conf.broker_consumer, app)
    transport.Consumer = type(kind.__name__, (kind,), {"resume": staticmethod(resume), "prefix": config.prefix})
    return transport


class RewindingConsumer(driver.Consumer):  # type: ignore[misc] # faust has no types for us
    """Starts each partition at its committed offset, or before it where Redis does not know all effects."""

    resume: Resume
    prefix: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._began: dict[Any, int] = {}

    def started_at(self, tp: Any) -> int:
        """The offset at which a partition's reading began."""
        return self._began.get(tp, 0)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek every partition to the lower of its committed offset and what Redis asks for."""
        committed = dict(await super().seek_to_committed())
        loop = asyncio.get_running_loop()
        assigned = list(self.assignment())
        earliest = await self.earliest_offsets(*assigned) if assigned else {}
        for tp in assigned:
            known = committed.get(tp)
            known = known if known is not None and known >= 0 else None
            first = earliest.get(tp, 0)
            topic = tp.topic.removeprefix(self.prefix)
            wanted = await loop.run_in_executor(None, self.resume, topic, tp.partition, known, first)
            if wanted is not None and known is not None and wanted < known:
                committed[tp] = max(wanted, first)
                await self.seek_wait({tp: committed[tp]})
            self._began[tp] = (
                committed[tp] if committed.get(tp, -1) is not None and committed.get(tp, -1) >= 0 else first
            )
        return committed


class LeanConsumer(RewindingConsumer):
    """Awaits the conductor's callback directly while the flow is active."""

    async def _drain_messages(self, fetcher: Any) -> None:  # noqa: C901, PLR0912 - upstream's loop reads better whole
        """As upstream's, without the two futures a record: a callback that would wait is left to wait."""
        should_stop = self._stopped.is_set
        fetcher_should_stop = fetcher._stopped.is_set  # noqa: SLF001 - as upstream's
        read = self._read_offset
        seen, tight = 0, False
        try:
            while not (should_stop() or fetcher_should_stop()):
                found = self.getmany(timeout=1.0)
                await asyncio.sleep(0)
                if self.should_stop:
                    continue
                async for tp, message in found:
                    seen += 1
                    if seen % 100 == 0:
                        await asyncio.sleep(0)
                    at = read[tp]
                    if at is not None and message.offset < at:
                        continue
                    if at and message.offset - at > 1 and self.app.topics.acks_enabled_for(message.topic):
                        await self._add_gap(tp, at + 1, message.offset)
                    if seen % CHECK_EVERY == 1:
                        tight = self._is_tight()
                    if self.flow_active and not tight:
                        await self.callback(message)
                    else:
                        await self.wait_first(self.callback(message), self.suspend_flow.wait())
                    read[tp] = message.offset
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    def _is_tight(self) -> bool:
        """Whether a stream's queue could fill before the next look: then the callback may wait long."""
        queues = [topic.queue for topic in self.app.topics]
        return any(queue.maxsize and queue.qsize() > queue.maxsize - 2 * CHECK_EVERY for queue in queues)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - upstream's signature
        """As upstream's, but looks again soon when all partitions are buffered."""
        if self.flow_active and not self._get_active_partitions():
            self.not_waiting_next_records.set()
            await asyncio.sleep(BUFFERED_PAUSE_S)
            return {}, self._get_active_partitions()
        return await super()._wait_next_records(timeout)
