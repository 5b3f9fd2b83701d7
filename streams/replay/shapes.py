"""What the replay buffer answers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from streams.events import Sample
from streams.replay.mix import Mix, effective_size, importance

RECORD = ">8sII8sHBBIIHBBII"
"""A stored record: digest8, ts, seq, customer8, lane, bin, flags, position, bytes, times trained, previous bin, lease,
first and last step."""

ROW = struct.Struct(RECORD + "IBd")
"""A drawn item: its record, slot, part of the mix, probability."""

NO_TTL = 0xFFFF_FFFF
"""Bucket number of samples in lanes without ttl."""


class Handle(NamedTuple):
    """Names one stored sample: slot and seq tell whether it is still there, the digest feeds the lineage.

    `lease` numbers the lease that the sample was drawn under, 1 to 255, and is 0 without: only its holder ends a lease.
    """

    slot: int
    seq: int
    digest: bytes
    lease: int = 0


class Drawn(NamedTuple):
    """One draw: handle, bucket of its payload, lane id, times trained before, part of the mix, declared probability."""

    handle: Handle
    bucket: int
    lane: int
    times: int
    part: int
    p: float


@dataclass(frozen=True)
class InsertReport:
    """What became of inserted samples, one letter each in `letters` (i, d, t, e, r, or - for deferred)."""

    letters: str
    evicted: int
    size: int
    bytes: int

    @property
    def inserted(self) -> int:
        """Stored."""
        return self.letters.count("i")

    @property
    def duplicate(self) -> int:
        """Known by offset, by digest, or by every target."""
        return self.letters.count("d")

    @property
    def tombstoned(self) -> int:
        """Of an erased customer."""
        return self.letters.count("t")

    @property
    def expired(self) -> int:
        """Past their ttl on arrival."""
        return self.letters.count("e")

    @property
    def rejected(self) -> int:
        """Too big, without a usable weight, or without room in their lane."""
        return self.letters.count("r")

    @property
    def deferred(self) -> int:
        """Not consumed: send them again."""
        return self.letters.count("-")


@dataclass(frozen=True)
class Wait:
    """Nothing was drawn: the table is too small (`empty`), or the learner is ahead of the inserts (`limiter`)."""

    reason: Literal["empty", "limiter"]
    size: int


@dataclass(frozen=True)
class Draw:
    """A mini-batch by name, with how it was drawn: enough to declare every probability and to repeat it."""

    seed: int
    mix: Mix
    alpha: float
    now: float
    """Server time, seconds."""
    table_seq: int
    """Inserts that the table had seen."""
    eligible: int
    """Items that the mix could have drawn."""
    least_p: float
    """Smallest probability among them: the largest weight hangs on it."""
    records: tuple[Drawn, ...]
    shares: tuple[float, ...]
    """Expected share of each part; an empty part gives its share to the others."""
    drawn: tuple[int, ...]
    """Items of each part in this batch."""


@dataclass(frozen=True)
class Batch:
    """A fetched draw: sample i is None when it was erased, evicted or expired in between."""

    samples: tuple[Sample | None, ...]
    handles: tuple[Handle, ...]
    p_mix: tuple[float, ...]
    least_p: float = 1.0
    poisoned: int = 0

    @property
    def missing(self) -> int:
        """Samples that are gone or cannot be read."""
        return sum(sample is None for sample in self.samples)

    def weights(self, beta: float) -> list[float]:
        """Importance weights, at most 1; beta 0 leaves the mix as it is, 1 undoes it."""
        return importance(self.p_mix, self.least_p, beta)

    def ess(self, beta: float) -> float:
        """Effective sample size of these weights."""
        return effective_size(self.weights(beta))


@dataclass(frozen=True)
class UpdateReport:
    """Handles whose sample was still there, those whose sample was not, and samples that a reservoir let go."""

    applied: int
    stale: int
    evicted: int


@dataclass(frozen=True)
class SweepReport:
    """What one sweep did."""

    leases: int = 0
    """Overdue leases whose samples went back to their bin."""
    expired: int = 0
    """Samples past their ttl that were removed."""
    evicted: int = 0
    """Samples above a lowered limit."""
    trimmed: int = 0
    """Queue entries of samples that had left."""


@dataclass(frozen=True)
class TableErasure:
    """What one table held of a customer and let go."""

    table: str
    erased: tuple[bytes, ...] = ()
    """digest8 of each erased sample."""
    left: int = 0
    """Samples of the customer that are still there; 0 when complete."""
    first_step: int = 0
    last_step: int = 0
    """Training steps that saw the customer's samples, erased ones and those that had left before; 0 and 0 for none."""
    trainings: int = 0
    """How often they were trained."""


@dataclass(frozen=True)
class ErasureReceipt:
    """What erasing a customer did, over all tables."""

    customers: tuple[str, ...]
    """Hex digests of the pseudonyms that were erased."""
    at: float
    """Server time of the tombstone, seconds."""
    tables: tuple[TableErasure, ...] = ()
    unreachable: tuple[str, ...] = ()
    """Tables whose server did not answer: repeat the erasure."""
    aof_rewritten_at: float | None = None
    """Server time at which the append-only file was clean, seconds; None while it is not."""
    backups: str = "replicas and backups of this server keep their own copies until they are rewritten"

    @property
    def items(self) -> int:
        """Samples that this call erased."""
        return sum(len(table.erased) for table in self.tables)

    @property
    def complete(self) -> bool:
        """Nothing is left anywhere, the append-only file included."""
        clean = self.aof_rewritten_at is not None
        return clean and not self.unreachable and all(table.left == 0 for table in self.tables)


@dataclass(frozen=True)
class LaneStats:
    """One lane's figures."""

    name: str
    policy: str
    quota: int
    total: int
    fresh: int
    scored: int
    leased: int
    spent: int
    evicted: int
    bins: Sequence[int] = field(repr=False, default=())
    """Samples in each of the 65 bins: the priority histogram."""


@dataclass(frozen=True)
class Stats:
    """A table's figures, read without touching a sample."""

    table: str
    counters: dict[str, int]
    """By the names of `figures.COUNTERS`."""
    capacity: int
    max_bytes: int
    lanes: tuple[LaneStats, ...]
    oldest: float | None
    """Start of the oldest bucket that holds a sample, seconds."""
    mean_age_s: float | None
    """Mean age of the samples that have a ttl, to the width of a bucket, seconds."""
    ttl_s: int
    """Age at which they leave, seconds."""
    erasing: int
    """Customers whose erasure has begun and not ended."""
    limiter: float | None
    """Samples that the learner may draw before it waits; None without limit."""
    lineage_from: int
    """Training step from which on the lineage is complete."""
    problems: tuple[str, ...] = ()
    """What is unsafe about the server now."""

    @property
    def fresh(self) -> int:
        """Samples that were never trained."""
        return sum(lane.fresh for lane in self.lanes)

    @property
    def leased(self) -> int:
        """Samples in the hands of a learner."""
        return sum(lane.leased for lane in self.lanes)

    @property
    def trained(self) -> int:
        """Samples that were trained and are held by nobody."""
        return sum(lane.scored + lane.spent for lane in self.lanes)
