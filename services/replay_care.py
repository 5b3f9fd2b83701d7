"""Care for the replay buffer in the process that writes it: background housekeeping, figures for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.replay.erasure import resume_erasures
from streams.replay.figures import stats
from streams.replay.shapes import Stats
from streams.replay.tables import Tables

PERIOD_S = 1.0
"""Pause between two rounds of housekeeping; leases and ttl are counted in seconds."""

BUDGET_MS = 5.0
"""Server time that one table's housekeeping may take in a round."""


INTAKE = {"ins": "inserted", "dup": "duplicate", "tomb": "tombstoned", "late": "expired", "rej": "rejected"}
"""Counter of a table -> what became of a sample that came."""

DEPARTURES = {"ev": "evicted", "era": "erased", "exp": "expired", "ret": "retired"}
"""Counter of a table -> why a stored sample left."""


class ReplayCollector(Collector):
    """The tables' figures, read when somebody asks; nothing while Redis is away."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def describe(self) -> list[Metric]:
        """Nothing: registering must not need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Items by state, capacity and age of the training tables, all lines together; flow and bytes of each table."""
        try:
            found = [stats(table) for table in self._tables.all]
        except redis.RedisError:
            return
        yield from _training(found[: len(self._tables.trained)])
        yield _counter("samples", "Samples that came, by what became of them", "outcome", INTAKE, found)
        yield _counter("departures", "Stored samples that left, by reason", "reason", DEPARTURES, found)
        drawn = CounterMetricFamily(
            "driftline_replay_buffer_drawn_samples", "Samples drawn outside the lane of anchors", labels=["table"]
        )
        size = GaugeMetricFamily("driftline_replay_buffer_bytes", "Stored payload bytes", labels=["table"])
        for table in found:
            drawn.add_metric([table.table], table.counters["smp"])
            size.add_metric([table.table], table.counters["bytes"])
        yield drawn
        yield size
        yield GaugeMetricFamily(
            "driftline_replay_buffer_open_erasures",
            "Customers whose erasure has begun and not ended, counted in each table",
            sum(table.erasing for table in found),
        )
        yield GaugeMetricFamily(
            "driftline_replay_buffer_problems", "Settings and states of Redis that lose samples", len(found[0].problems)
        )


def _training(found: Sequence[Stats]) -> Iterator[Metric]:
    items = GaugeMetricFamily("driftline_replay_buffer_items", "Stored training samples", labels=["state"])
    for state in ("fresh", "trained", "leased"):
        items.add_metric([state], sum(getattr(table, state) for table in found))
    yield items
    yield GaugeMetricFamily(
        "driftline_replay_buffer_capacity_items",
        "Samples that the training tables may hold",
        sum(table.capacity for table in found),
    )
    oldest = [table.oldest for table in found if table.oldest is not None]
    if oldest:
        yield GaugeMetricFamily(
            "driftline_replay_buffer_oldest_timestamp_seconds", "Start of the oldest bucket with samples", min(oldest)
        )


def _counter(name: str, text: str, label: str, names: Mapping[str, str], found: Sequence[Stats]) -> Metric:
    family = CounterMetricFamily(f"driftline_replay_buffer_{name}", text, labels=["table", label])
    for table in found:
        for counter, value in names.items():
            family.add_metric([table.table, value], table.counters[counter])
    return family


def housekeep(tables: Tables) -> None:
    """One round: overdue leases, ttl, lowered limits, erasures that a crash cut short. Raises redis.RedisError."""
    for table in tables.all:
        table.sweep(BUDGET_MS)
    resume_erasures(tables.all)


def care(
    tables: Tables, registry: CollectorRegistry, stop: threading.Event, failed: Callable[[BaseException], None]
) -> threading.Thread:
    """Register the figures and start the housekeeping; it ends with `stop`. `failed` hears of what Redis refused."""

    def rounds() -> None:
        while not stop.wait(PERIOD_S):
            try:
                housekeep(tables)
            except redis.RedisError as error:
                failed(error)

    registry.register(ReplayCollector(tables))
    thread = threading.Thread(target=rounds, name="replay-care", daemon=True)
    thread.start()
    return thread
