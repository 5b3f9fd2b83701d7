"""What one deployment's replay buffer may hold, and for how long.

Errors of this package:

    ReplayError            base
    ├── ServerFull         memory is full: nothing happened, wait and send again; an error of redis-py too
    ├── UnsafeServer       the server would lose or drop data: eviction policy, no append-only file
    ├── ConfigMismatch     the table was made with other unchangeable settings
    └── BrokenInvariant    an audit found the table's indexes at odds: reported, never raised
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from redis.exceptions import OutOfMemoryError

Policy = Literal["fifo", "reservoir", "lowest"]

ANCHOR = "anchor"
"""Lane of curated examples that are rehearsed: outside `"*"`, outside the limiter, kept without ttl."""

QUARANTINE = "quarantine"
"""Lane of suspicious samples that wait for review: never drawn by `"*"`."""

CHAT = "chat"
"""Lane of conversations that nothing speaks against."""

MAX_SLOTS = 2**22
DAY_S = 86_400


class ReplayError(Exception):
    """Base of the replay buffer's errors."""


class ServerFull(ReplayError, OutOfMemoryError):
    """The server is at its memory limit and refused a write before any effect; draws and erasures still work.

    Whoever waits while Redis is away waits for room too: it is a `redis.RedisError`.
    """


class UnsafeServer(ReplayError):
    """The server may lose or drop what it acknowledged; the message says which setting."""


class ConfigMismatch(ReplayError):
    """The table exists with other settings that cannot change."""


class BrokenInvariant(ReplayError):
    """What an audit found; the message names table, invariant and slot, never a text."""


@dataclass(frozen=True)
class Quota:
    """How many samples a lane holds and which one leaves for a newcomer."""

    max_items: int = 20_000
    """Samples in the lane; of a reservoir lane, trained samples."""
    policy: Policy = "fifo"
    """fifo: the oldest leaves. reservoir: a uniform sample of what was ever trained stays. lowest: by priority."""
    fresh_items: int = 4_096
    """Samples of a reservoir lane that were never trained, first in first out."""
    exempt: bool = False
    """True keeps the lane's samples past the table's ttl."""

    def __post_init__(self) -> None:
        if min(self.max_items, self.fresh_items) < 1:
            raise ValueError(f"max_items = {self.max_items}, fresh_items = {self.fresh_items}: want at least 1")


def _train_quotas() -> Mapping[str, Quota]:
    return {"*": Quota(policy="reservoir"), ANCHOR: Quota(exempt=True), QUARANTINE: Quota(max_items=2_000)}


@dataclass(frozen=True)
class TableConfig:
    """Bounds and lifetimes of one table."""

    capacity: int = 100_000
    """Samples in the table, at most 2^22."""
    max_bytes: int = 256 * 2**20
    """Stored payload bytes, Redis' own overhead not counted."""
    max_item_bytes: int = 64 * 2**10
    """A bigger payload is rejected before anything is evicted for it."""
    ttl_s: int = 30 * DAY_S
    """Life of a sample, seconds."""
    retention_basis: Literal["kafka", "event"] = "kafka"
    """What `ttl_s` counts from: Kafka's timestamp, so that ingested history lives its full time, or by the strict
    reading the last reply's own `ts`; unchangeable."""
    bucket_s: int = DAY_S
    """Samples of this many seconds share one Redis hash, which expires as a whole; unchangeable."""
    source_retention_s: int = 8 * DAY_S
    """Life of offset bitmaps and tombstones, seconds: Kafka's retention and a margin."""
    ledger_ttl_s: int = 8 * DAY_S
    """Life of ledger entries, target claims and trained digests, seconds."""
    quotas: Mapping[str, Quota] = field(default_factory=_train_quotas)
    """Lane -> quota; `*` for lanes that are not named."""
    max_sampled: int = 0
    """A sample trained so often is drawn no more; 0 is no bound."""
    samples_per_insert: float = 0.0
    """The learner waits once it drew this many samples an insert; 0 is no limit."""
    min_size: int = 1
    """The learner waits while the table holds fewer samples."""
    error_buffer: float = 64.0
    """Samples by which the limiter may be overdrawn."""
    recent: int = 64
    """Newest samples that a lane remembers for the policy `recent`; 0 for none."""
    lineage_steps: int = 200_000
    """Training steps whose digests are kept."""

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= MAX_SLOTS:
            raise ValueError(f"capacity = {self.capacity}: wants 1 to {MAX_SLOTS}")
        if not 0 < self.max_item_bytes <= self.max_bytes:
            raise ValueError(f"max_item_bytes = {self.max_item_bytes}: wants 1 to max_bytes = {self.max_bytes}")
        if min(self.ttl_s, self.bucket_s, self.source_retention_s, self.ledger_ttl_s) < 1:
            raise ValueError("ttl_s, bucket_s, source_retention_s and ledger_ttl_s want at least 1 second")
        if self.retention_basis not in {"kafka", "event"}:
            raise ValueError(f"retention_basis = {self.retention_basis}: wants kafka or event")
        if "*" not in self.quotas:
            raise ValueError("quotas has no '*': it is the quota of lanes that are not named")
        if self.samples_per_insert and self.error_buffer < self.samples_per_insert:
            raise ValueError(
                f"error_buffer = {self.error_buffer}: wants at least samples_per_insert = {self.samples_per_insert}"
            )


@dataclass(frozen=True)
class TrainTable(TableConfig):
    """The table that is drawn for training: each sample at most 20 times, three draws an insert."""

    max_sampled: int = 20
    """A sample trained so often is drawn no more; 0 is no bound."""
    samples_per_insert: float = 3.0
    """The learner waits once it drew this many samples an insert; 0 is no limit."""


@dataclass(frozen=True)
class HeldOutTable(TableConfig):
    """A table of held-out samples: the newest stay."""

    capacity: int = 20_000
    """Samples in the table, at most 2^22."""
    max_bytes: int = 64 * 2**20
    """Stored payload bytes, Redis' own overhead not counted."""
    quotas: Mapping[str, Quota] = field(default_factory=lambda: {"*": Quota()})
    """Lane -> quota; `*` for lanes that are not named."""
    recent: int = 1_024
    """Newest samples that a lane remembers for the policy `recent`; 0 for none."""


@dataclass(frozen=True)
class GoldenTable(HeldOutTable):
    """Curated samples, kept without ttl."""

    quotas: Mapping[str, Quota] = field(default_factory=lambda: {"*": Quota(exempt=True)})
    """Lane -> quota; `*` for lanes that are not named."""


@dataclass(frozen=True)
class ReplayConfig:
    """The replay buffer's section of the settings: one table a split, and curated golden examples."""

    train: TrainTable = field(default_factory=TrainTable)
    """Drawn for training."""
    val: HeldOutTable = field(default_factory=HeldOutTable)
    """Held out for the gate."""
    test: HeldOutTable = field(default_factory=HeldOutTable)
    """Held out for reports."""
    golden: GoldenTable = field(default_factory=GoldenTable)
    """Curated examples that no version may get worse on."""
    lines: tuple[str, ...] = ()
    """Further lines (tenants, domains) whose training samples get a table of their own; the same in every process."""
    compress: bool = True
    """Store payloads deflated; off only where a test greps for plain text."""
    require_aof: bool = True
    """Refuse a server without append-only file; off only where loss is acceptable."""

    def __post_init__(self) -> None:
        if len(set(self.lines)) < len(self.lines) or any(
            len(line) != 1 or not "a" <= line <= "z" for line in self.lines
        ):
            raise ValueError(f"lines = {self.lines}: wants different letters a to z")
