"""Care for the replay buffer in the process that writes it: housekeeping and a slow audit, in the background."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import redis
from prometheus_client import CollectorRegistry

from services.replay_figures import ReplayCollector, UsageCollector
from streams.replay.config import BrokenInvariant
from streams.replay.erasure import resume_erasures
from streams.replay.probe import Probe
from streams.replay.tables import Tables

PERIOD_S = 1.0
"""Pause between two rounds of housekeeping; leases and ttl are counted in seconds."""

BUDGET_MS = 5.0
"""Server time that one table's housekeeping may take in a round."""

PIECES = 2
"""Pieces of one table that are audited in a round: a quarter of a million samples an hour."""


def housekeep(tables: Tables) -> None:
    """One round: overdue leases, ttl, lowered limits, erasures that a crash cut short. Raises redis.RedisError."""
    for table in tables.all:
        table.sweep(BUDGET_MS)
    resume_erasures(tables.all)


class Audits:
    """The tables' probes, and how many violations each has found."""

    def __init__(self, tables: Tables) -> None:
        self._probes = [Probe(table) for table in tables.all]
        self.failures = Counter({table.table: 0 for table in tables.all})
        """By table."""

    @property
    def walks(self) -> int:
        """Whole audits of the table that had the fewest."""
        return min(probe.walks for probe in self._probes)

    def look(self) -> Iterator[BrokenInvariant]:
        """Audit the next pieces of each table, to the end of its walk at the most. Raises redis.RedisError."""
        for probe in self._probes:
            walks = probe.walks
            for _ in range(PIECES):
                found = probe.step()
                self.failures[probe.table.table] += len(found)
                for invariant, detail in found[:1]:  # a broken page would fill the log
                    yield BrokenInvariant(f"{probe.table.table}: {invariant}, {detail}; {len(found)} in this piece")
                if probe.walks > walks:
                    break


def care(
    tables: Tables, registry: CollectorRegistry, stop: threading.Event, failed: Callable[[BaseException], None]
) -> threading.Thread:
    """Register the figures, start housekeeping and audit; they end with `stop`. `failed` hears of what went wrong."""
    audits = Audits(tables)

    def rounds() -> None:
        while not stop.wait(PERIOD_S):
            try:
                housekeep(tables)
                for broken in audits.look():
                    failed(broken)
            except redis.RedisError as error:
                failed(error)

    registry.register(ReplayCollector(tables, audits))
    registry.register(UsageCollector(tables))
    thread = threading.Thread(target=rounds, name="replay-care", daemon=True)
    thread.start()
    return thread
