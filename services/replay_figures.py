"""The replay buffer's figures for Prometheus, read when somebody asks; nothing while Redis is away.

Labels are table, policy and other closed sets; figures of single lanes are in `driftline buffer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import redis
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from streams.replay.figures import stats
from streams.replay.mix import HIGHEST_BIN, LOWEST_BIN, bin_weight
from streams.replay.shapes import Stats
from streams.replay.tables import Tables

INTAKE = {"ins": "inserted", "dup": "duplicate", "tomb": "tombstoned", "late": "expired", "rej": "rejected"}
"""Counter of a table -> what became of a sample that came."""

DEPARTURES = {"ev": "evicted", "era": "erased", "exp": "expired", "ret": "retired"}
"""Counter of a table -> why a stored sample left."""

COUNTS = {
    "drawn_samples": ("Samples drawn outside the lane of anchors", "smp"),
    "trainings": ("Times that a stored sample was trained", "trn"),
    "stale_trainings": ("Trained samples that had left before the step was booked", "stale"),
    "lease_expiries": ("Leases whose holder never came back", "lex"),
}
"""Counter metric -> what it counts, and the table's counter of it."""

GAUGES: Mapping[str, tuple[str, Callable[[Stats], float | None]]] = {
    "bytes": ("Stored payload bytes", lambda table: table.counters["bytes"]),
    "age_seconds": ("Mean age of the stored samples, to the width of a bucket", lambda table: table.mean_age_s),
    "ttl_seconds": ("Age at which a sample leaves", lambda table: table.ttl_s),
    "limiter_samples": ("Samples that the learner may draw before it waits", lambda table: table.limiter),
}
"""Gauge of a table -> what it is; None where there is none."""

OCTAVE = 4
"""Bins that one bucket of the priority histogram takes together: a factor of 2."""


class Audited(Protocol):
    """Where audits count."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Violations found, by table."""

    @property
    def walks(self) -> int:
        """Whole audits of every table."""


class ReplayCollector(Collector):
    """What Redis knows of the tables, and what audits found in them."""

    def __init__(self, tables: Tables, audits: Audited) -> None:
        self._tables = tables
        self._audits = audits

    def describe(self) -> list[Metric]:
        """Nothing: registering must not need Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Items by state, capacity and age of the training tables, all lines together; flow and bytes of each table."""
        yield from self._audited()
        try:
            found = [stats(table) for table in self._tables.all]
        except redis.RedisError:
            return
        yield from _training(found[: len(self._tables.trained)])
        yield _by_label("samples", "Samples that came, by what became of them", "outcome", INTAKE, found)
        yield _by_label("departures", "Stored samples that left, by reason", "reason", DEPARTURES, found)
        yield from (_count(name, text, counter, found) for name, (text, counter) in COUNTS.items())
        yield _evictions(found)
        yield from (_gauge(name, text, of, found) for name, (text, of) in GAUGES.items())
        yield _priorities(found[: len(self._tables.trained)])
        yield GaugeMetricFamily(
            "driftline_replay_buffer_open_erasures",
            "Customers whose erasure has begun and not ended, counted in each table",
            sum(table.erasing for table in found),
        )
        yield GaugeMetricFamily(
            "driftline_replay_buffer_problems", "Settings and states of Redis that lose samples", len(found[0].problems)
        )

    def _audited(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "driftline_replay_buffer_audit_failures", "Broken invariants that audits found", labels=["table"]
        )
        for table, count in self._audits.failures.items():
            failures.add_metric([table], count)
        yield failures
        yield CounterMetricFamily(
            "driftline_replay_buffer_audits", "Whole background audits of every table", self._audits.walks
        )


class UsageCollector(Collector):
    """What this process has asked of the tables: times of scripts, samples that were missing, weight of the batches."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def collect(self) -> Iterator[Metric]:
        """One summary and three counters."""
        seconds = SummaryMetricFamily(
            "driftline_replay_buffer_script_seconds", "Round trips of scripts", labels=["table", "script"]
        )
        counts = {
            name: CounterMetricFamily(f"driftline_replay_buffer_{name}_samples", text, labels=["table"])
            for name, text in {
                "fetched": "Samples of fetched batches",
                "missing": "Fetched samples that had left or could not be read",
                "effective": "Effective sample size of fetched batches at beta = 1",
            }.items()
        }
        for table in self._tables.all:
            usage = table.usage
            for script, calls in sorted(usage.calls.items()):
                seconds.add_metric([table.table, script], count_value=calls, sum_value=usage.seconds[script])
            for name, family in counts.items():
                family.add_metric([table.table], getattr(usage, name))
        yield seconds
        yield from counts.values()


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


def _by_label(name: str, text: str, label: str, names: Mapping[str, str], found: Sequence[Stats]) -> Metric:
    family = CounterMetricFamily(f"driftline_replay_buffer_{name}", text, labels=["table", label])
    for table in found:
        for counter, value in names.items():
            family.add_metric([table.table, value], table.counters[counter])
    return family


def _count(name: str, text: str, counter: str, found: Sequence[Stats]) -> Metric:
    family = CounterMetricFamily(f"driftline_replay_buffer_{name}", text, labels=["table"])
    for table in found:
        family.add_metric([table.table], table.counters[counter])
    return family


def _gauge(name: str, text: str, of: Callable[[Stats], float | None], found: Sequence[Stats]) -> Metric:
    family = GaugeMetricFamily(f"driftline_replay_buffer_{name}", text, labels=["table"])
    for table in found:
        value = of(table)
        if value is not None:
            family.add_metric([table.table], value)
    return family


def _evictions(found: Sequence[Stats]) -> Metric:
    family = CounterMetricFamily(
        "driftline_replay_buffer_evictions", "Samples that made room, by the lane's policy", labels=["table", "policy"]
    )
    for table in found:
        for policy in sorted({lane.policy for lane in table.lanes}):
            family.add_metric([table.table, policy], sum(lane.evicted for lane in table.lanes if lane.policy == policy))
    return family


def _priorities(found: Sequence[Stats]) -> Metric:
    """The bins' counts of all lanes, four of them a bucket."""
    family = HistogramMetricFamily(
        "driftline_replay_buffer_priority", "Priorities of the trained samples", labels=["table"]
    )
    for table in found:
        bins = [sum(lane.bins[number] for lane in table.lanes) for number in range(HIGHEST_BIN + 1)]
        upper = [*range(LOWEST_BIN + OCTAVE - 1, HIGHEST_BIN, OCTAVE), HIGHEST_BIN]
        below = list(accumulate(bins[LOWEST_BIN:]))
        edges = [(f"{bin_weight(number + 0.5):.4g}", float(below[number - LOWEST_BIN])) for number in upper[:-1]]
        total = sum(bins[number] * bin_weight(number) for number in range(LOWEST_BIN, HIGHEST_BIN + 1))
        family.add_metric([table.table], [*edges, ("+Inf", float(below[-1]))], sum_value=total)
    return family
