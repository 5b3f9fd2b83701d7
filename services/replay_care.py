"""Care for the replay buffer in the process that writes it: background housekeeping, figures for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.replay.erasure import resume_erasures
from streams.replay.figures import stats
from streams.replay.tables import Tables

PERIOD_S = 1.0
"""Pause between two rounds of housekeeping; leases and ttl are counted in seconds."""

BUDGET_MS = 5.0
"""Server time that one table's housekeeping may take in a round."""


class ReplayCollector(Collector):
    """The gauges of the training tables, all lines together, read when somebody asks; nothing while Redis is away."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def describe(self) -> list[Metric]:
        """Nothing: registering must not need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Items by state, capacity, age of the oldest."""
        try:
            found = [stats(table) for table in self._tables.trained]
        except redis.RedisError:
            return
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
                "driftline_replay_buffer_oldest_timestamp_seconds",
                "Start of the oldest bucket with samples",
                min(oldest),
            )


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
