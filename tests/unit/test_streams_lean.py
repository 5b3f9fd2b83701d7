"""The lean drain replaces what it was written for; security settings reach the worker's consumer too."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from faust.transport import consumer as stock
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams import lean
from streams.config import StreamConfig
from streams.security import UnsupportedSecurity, credentials


class App:
    """As much of a Faust app as a transport asks for when it is made."""

    class conf:  # noqa: N801 - Faust's name
        """Its settings."""

        broker_consumer = ("kafka://127.0.0.1:1",)


def chosen(config: StreamConfig) -> list[str]:
    """Names of the consumer's classes."""
    made = lean.transport_with(App(), config, lambda *_: None, {}, lambda *_: None)
    return [kind.__name__ for kind in made.Consumer.__mro__]


def test_lean_drain_matches_the_installed_faust() -> None:
    """Upstream's method still has the shape that the lean drain replaces."""
    assert lean.is_known()
    assert chosen(StreamConfig())[1] == "LeanConsumer"


def test_lean_drain_can_be_turned_off() -> None:
    """The setting gives Faust's own drain back, with the rewinding kept."""
    assert "LeanConsumer" not in chosen(StreamConfig(lean_drain=False))
    assert "RewindingConsumer" in chosen(StreamConfig(lean_drain=False))


def test_lean_drain_falls_back_on_an_unknown_faust(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version of the method the stock way is used."""

    async def other(self: object, fetcher: object) -> None:
        del self, fetcher

    monkeypatch.setattr(stock.Consumer, "_drain_messages", other)
    assert not lean.is_known()
    assert "LeanConsumer" not in chosen(StreamConfig())


def test_lean_consumer_waits_for_fetches_as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait of a fetch comes from the settings, not from the number in Faust's code."""
    made = lean.transport_with(App(), StreamConfig(fetch_wait_s=0.1), lambda *_: None, {}, lambda *_: None)
    consumer = SimpleNamespace(_fetch_max_wait_ms=1_500)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: consumer)
    thread = object.__new__(lean.ConsumerThread)
    thread.consumer = SimpleNamespace(fetch_wait_ms=made.Consumer.fetch_wait_ms)
    assert thread._create_worker_consumer(None)._fetch_max_wait_ms == 100
    aiokafka_reads = inspect.getsource(AIOKafkaConsumer.start)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in aiokafka_reads


class Way:
    """A lane that keeps what it is fed."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self.has_room = True
        self.fed: list[int] = []

    def feed(self, partition: int, records: Sequence[Any]) -> None:
        """Keep the offsets."""
        del partition
        self.fed += [record.offset for record in records]


def fetching(offsets: Sequence[int], *, first: int = 0) -> tuple[Any, Way, list[tuple[str, int]]]:
    """A lean consumer whose next fetch gives these offsets of a log that begins at `first`; its lane; what is lost."""
    way, lost = Way(), []
    consumer: Any = object.__new__(lean.LeanConsumer)
    consumer.ways, consumer.prefix, consumer.unread = {"chats.raw": way}, "", lambda *found: lost.append(found)
    consumer.flow_active, consumer._read_offset = True, {TP("chats.raw", 0): 5}
    consumer._stopped = SimpleNamespace(is_set=lambda: False)
    consumer._crashed = consumer._stopped
    consumer.app = SimpleNamespace(consumer_generation_id=1)
    consumer.sought = 0

    async def fetched() -> dict[Any, Any]:
        return {TP("chats.raw", 0): [SimpleNamespace(offset=offset) for offset in offsets]}

    async def earliest(*tps: Any) -> dict[Any, int]:
        return dict.fromkeys(tps, first)

    async def seek() -> None:
        consumer.sought += 1

    consumer._fetched, consumer.earliest_offsets, consumer.perform_seek = fetched, earliest, seek
    return consumer, way, lost


def test_lean_drain_hands_over_what_is_new() -> None:
    """Records before the place where reading began are left out; a gap inside the log is no loss."""
    consumer, way, lost = fetching([3, 4, 5, 7])
    asyncio.run(consumer._drain())
    assert (way.fed, lost) == ([5, 7], [])
    assert consumer._read_offset == {TP("chats.raw", 0): 8}


def test_lean_drain_tells_of_records_that_were_deleted_unread() -> None:
    """The log begins behind the place where reading should go on: those records are lost, and said to be."""
    consumer, way, lost = fetching([9, 10], first=9)
    asyncio.run(consumer._drain())
    assert (way.fed, lost) == ([9, 10], [("chats.raw", 4)])


def test_lean_drain_reads_again_what_a_rebalance_overtook() -> None:
    """Records that were fetched for another generation are not handed over; reading goes back to what is committed."""
    consumer, way, _ = fetching([5, 6])
    fetched = consumer._fetched

    async def slowly() -> Any:
        consumer.app.consumer_generation_id += 1
        return await fetched()

    consumer._fetched = slowly
    asyncio.run(consumer._drain())
    assert (way.fed, consumer.sought) == ([], 1)


@pytest.mark.parametrize(
    ("committed", "asked", "first", "sought"),
    [
        (None, None, 3, 3), (-1, None, 3, 3), (0, None, 3, 3), (0, None, 0, 0), (9, None, 3, None), (9, 12, 3, None),
        (9, 7, 3, 7), (9, 1, 3, 3),
    ],
    ids=["never", "invalid", "zero", "whole", "as-committed", "redis-ahead", "redis-behind", "deleted"],
)  # fmt: skip
def test_lean_consumer_begins_where_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, committed: int | None, asked: int | None, first: int, sought: int | None
) -> None:
    """At the committed offset, before it where Redis asks, and without one at the log's begin: sought, not assumed."""
    tp = TP("chats.raw", 0)
    consumer, _, _ = fetching([], first=first)
    seeks: dict[Any, int] = {}

    async def found(_: Any) -> dict[Any, int | None]:
        return {tp: committed}

    async def seek(offsets: dict[Any, int]) -> None:
        seeks.update(offsets)

    monkeypatch.setattr(driver.Consumer, "seek_to_committed", found)
    consumer.assignment, consumer._began, consumer.seek_wait = lambda: {tp}, {}, seek
    consumer.resume = lambda _topic, _partition, _committed, _first: asked
    begins = asyncio.run(consumer.seek_to_committed())
    assert seeks == ({} if sought is None else {tp: sought})
    assert begins == {tp: committed if sought is None else sought}
    assert consumer.started_at(tp) == begins[tp]


def test_lean_consumer_outlives_a_rebalance_that_overtakes_its_seek(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that is taken away before it is sought ends nothing: the rebalance seeks again."""
    tp = TP("chats.raw", 0)
    consumer, _, _ = fetching([])

    async def found(_: Any) -> dict[Any, int | None]:
        return {tp: None}

    async def gone(_: Any) -> None:
        raise IllegalStateError("not assigned")

    monkeypatch.setattr(driver.Consumer, "seek_to_committed", found)
    consumer.assignment, consumer._began, consumer.seek_wait = lambda: {tp}, {}, gone
    consumer.resume = lambda *_: None
    assert asyncio.run(consumer.seek_to_committed()) == {tp: 0}


def test_lean_consumer_commits_what_the_lanes_have_done() -> None:
    """Partitions with a lane, as far as nothing is outstanding."""
    consumer, way, _ = fetching([])
    consumer.assignment = lambda: {TP("chats.raw", 0), TP("chats.raw", 1), TP("other", 0)}
    way.done = {1: 12}
    owned = sorted(consumer._filter_tps_with_pending_acks())
    assert [(tp.partition, consumer._new_offset(tp)) for tp in owned] == [(0, None), (1, 12)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_lean_security_follows_librdkafka_settings(mechanism: str) -> None:
    """The same settings serve producer and consumer."""
    found = credentials(
        {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.username": "u", "sasl.password": "p"}
    )
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", mechanism)
    assert found.ssl_context is None


def test_lean_security_refuses_what_it_cannot_follow() -> None:
    """A mechanism that the consumer does not speak is named, instead of tried in plain."""
    assert credentials({}) is None
    with pytest.raises(UnsupportedSecurity, match=r"GSSAPI"):
        credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"})
    with pytest.raises(UnsupportedSecurity, match=r"security\.protocol"):
        credentials({"security.protocol": "SMOKE"})
