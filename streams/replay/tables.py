"""All tables of one deployment: opened with one call, fed by split, annotated, asked and erased together."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import msgspec
import redis

from streams.events import Annotation, Sample
from streams.ledger import claims, entry_key, event_digest
from streams.replay.buffer import Limits, ReplayBuffer
from streams.replay.codec import label_code
from streams.replay.config import ANCHOR, QUARANTINE, ConfigMismatch, Quota, ReplayConfig, TableConfig
from streams.replay.erasure import erase
from streams.replay.offsets import Offset
from streams.replay.rewrite import settle
from streams.replay.scripts import full_as_error
from streams.replay.scripts import text as script_text
from streams.replay.server import check_server
from streams.replay.shapes import ErasureReceipt, InsertReport

SCHEMA = 2
"""Version of the layout in Redis; a table of another one is refused."""

TABLES = ("train", "val", "test", "golden")
"""Names of the tables; a further training line has `train-<line>`, a shard `train:<n>`."""

_POLICIES = ("fifo", "reservoir", "lowest")
_UNCHANGEABLE = ("schema", "bucket", "ttl", "key", "basis")
_RULES = struct.Struct(">IIBBBB")


@dataclass(frozen=True)
class Fate:
    """What the buffer knows of one sample digest."""

    resident: bool
    trained: bool


def open_table(
    client: redis.Redis, table: str, config: TableConfig, key: bytes, epoch: str = "", **options: Any
) -> ReplayBuffer:
    """One table. With `configure=True` (the writer) it is made and its limits are set, else it must exist.

    Options: `configure`, `compress`, `test_clock` (seconds; for a new table of a test). Raises `ConfigMismatch`.
    """
    compress, clock = options.get("compress", True), options.get("test_clock")
    name = f"{{rb:{table}}}:cfg"
    wanted = _fields(config, key)
    found = {text(k): text(v) for k, v in client.hgetall(name).items() if not text(k).startswith("rules:")}
    for setting in _UNCHANGEABLE:
        if found and found.get(setting) != str(wanted[setting]):
            have = found.get(setting)
            raise ConfigMismatch(
                f"table {table} has {setting} = {have}, the settings say {wanted[setting]}; it cannot change"
            )
    if options.get("configure"):
        _configure(client, table, config, wanted, None if found else clock)
    elif not found:
        raise ConfigMismatch(f"table {table} was never made; start the writer (driftline clean) first")
    limits = Limits(
        config.ttl_s, config.bucket_s, config.max_item_bytes,
        config.samples_per_insert, config.min_size, config.error_buffer, config.retention_basis,
    )  # fmt: skip
    return ReplayBuffer(client, table, limits, key, epoch, compress=compress)


def open_tables(
    client: redis.Redis,
    config: ReplayConfig,
    key: bytes,
    epoch: str = "",
    *,
    configure: bool = False,
    pause: Callable[[float], bool] | None = None,
) -> Tables:
    """All tables on one server, which is checked first. `key` is the ledger key, `epoch` the broker's.

    The writer (`configure`) waits until a server that has just started is settled; `pause(seconds)` is called
    meanwhile, True gives up. Raises `UnsafeServer` or `ConfigMismatch`.
    """
    wanted = {field.name: getattr(config, field.name) for field in fields(config) if field.name in TABLES}
    tables = *wanted.values(), *(config.train for _ in config.lines)
    warnings = check_server(client, require_aof=config.require_aof, tables=tables)
    if configure:
        settle(client, pause or threading.Event().wait)

    def opened(table: str, limits: TableConfig) -> ReplayBuffer:
        return open_table(client, table, limits, key, epoch, configure=configure, compress=config.compress)

    made = {name: opened(name, limits) for name, limits in wanted.items()}
    more = {line: opened(f"train-{line}", config.train) for line in config.lines}
    return Tables(client=client, key=key, epoch=epoch, config=config, more=more, warnings=warnings, **made)


@dataclass(frozen=True)
class Tables:
    """The tables of one server; `train`, `val`, `test` and `golden` are buffers of their own.

    A line of `config.lines` has its own training table in `more`, so that nothing of it is drawn for another line; all
    other lines share `train`. Held-out tables are shared and read by line.
    """

    client: redis.Redis
    key: bytes
    epoch: str
    config: ReplayConfig
    train: ReplayBuffer
    val: ReplayBuffer
    test: ReplayBuffer
    golden: ReplayBuffer
    more: Mapping[str, ReplayBuffer] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What the server was warned of when they were opened."""

    @property
    def all(self) -> tuple[ReplayBuffer, ...]:
        """Every table, in the order in which an erasure visits them."""
        return *self.trained, self.val, self.test, self.golden

    @property
    def trained(self) -> tuple[ReplayBuffer, ...]:
        """The tables that are drawn for training."""
        return self.train, *self.more.values()

    def of(self, line: str) -> ReplayBuffer:
        """The table from which a line is trained."""
        return self.more.get(line, self.train)

    def home(self, sample: Sample) -> ReplayBuffer:
        """The table of a sample: by its split, and of training samples by their line."""
        return {"val": self.val, "test": self.test}.get(sample.split) or self.of(sample.line)

    def insert(self, items: Sequence[Sample], source: Sequence[Offset] | None = None) -> dict[str, InsertReport]:
        """Store samples, each in its table; reports by table. Raises as `ReplayBuffer.insert`."""
        reports = {}
        for table in (*self.trained, self.val, self.test):
            places = [i for i, sample in enumerate(items) if self.home(sample) is table]
            if places:
                offsets = [source[i] for i in places] if source is not None else None
                reports[table.table] = table.insert([items[i] for i in places], offsets)
        return reports

    def annotate(self, annotation: Annotation, source: Offset | None = None) -> str:
        """Lay a late label and weight over stored replies: `applied`, `duplicate`, or `no_target`.

        With a lane their samples move there first, as far as it has room; a repeated call finds them there.
        """
        if annotation.lane:
            self.relane(annotation.targets, annotation.lane, edits=False)
        request = {
            "epoch": self.epoch,
            "offset": list(source) if source is not None else [],
            "feedback": event_digest(annotation.feedback_id, self.key),
            "label": label_code(annotation),
            "weight": annotation.weight,
            "targets": [event_digest(target, self.key) for target in annotation.targets],
        }
        life = [self.config.train.ledger_ttl_s, self.config.train.source_retention_s]
        with full_as_error():
            script = self.client.register_script(script_text("annotate"))
            answer: bytes = script(args=[msgspec.msgpack.encode(request), *life])
        return answer.decode()

    def relane(self, targets: Sequence[str], lane: str, *, edits: bool = True) -> int:
        """Move samples that hold these replies as targets to a lane while it has room; '' takes them out."""
        held = self._holders(targets, edits=edits)
        return sum(
            table.relane(held[table.table], lane) if lane else table.retire(held[table.table], "reviewed")
            for table in self.all
            if table.table in held
        )

    def _holders(self, targets: Sequence[str], *, edits: bool) -> dict[str, list[bytes]]:
        """Digests of the samples that train these replies, by table."""
        keys = [entry_key(event_digest(target, self.key)) for target in targets]
        entries: Any = self.client.mget(keys) if keys else []
        held: dict[str, set[bytes]] = {}
        for entry in entries:
            for kind, holder in claims(entry):
                digest, _, name = holder.split(":", 2)
                if edits or not kind.startswith("edit"):
                    held.setdefault(name, set()).add(bytes.fromhex(digest))
        return {name: sorted(digests) for name, digests in held.items()}

    def fates(self, digests: Iterable[bytes]) -> list[Fate]:
        """Whether samples are stored in any table, and whether any step has trained them: for reconcile."""
        wanted = list(digests)
        resident = self.is_resident(wanted)
        trained = self.was_trained(wanted)
        return [Fate(r, t) for r, t in zip(resident, trained, strict=True)]

    def is_resident(self, digests: Sequence[bytes]) -> list[bool]:
        """Whether each sample is stored in any table now."""
        found = [False] * len(digests)
        for table in self.all:
            for bucket in self.client.hkeys(f"{table.prefix}:bk"):
                values = _by_chunk(self.client, f"{table.prefix}:d:{text(bucket)}", digests, "hexists")
                found = [a or b for a, b in zip(found, values, strict=True)]
        return found

    def was_trained(self, digests: Sequence[bytes]) -> list[bool]:
        """Whether each sample was in a training step, within the ledger's life."""
        found = [False] * len(digests)
        now = int(self.client.time()[0])
        days = range((now - self.config.train.ledger_ttl_s) // 86_400 - 1, now // 86_400 + 1)
        for name in (f"{table.prefix}:tr:{day}" for table in self.trained for day in days):
            if self.client.exists(name):
                values = _by_chunk(self.client, name, digests, "sismember")
                found = [a or b for a, b in zip(found, values, strict=True)]
        return found

    def erase(self, customers: Sequence[str]) -> ErasureReceipt:
        """Forget customers by pseudonym in all tables; final once `rewrite_aof` has stamped the receipt. Idempotent."""
        return erase(self.all, [self.train.customer_digest(customer) for customer in customers])

    def is_tombstoned(self, customer: str) -> bool:
        """Whether this pseudonym was erased, within the life of tombstones."""
        return self.client.zscore(f"{self.train.prefix}:tomb", self.train.customer_digest(customer)) is not None


def text(raw: bytes | str) -> str:
    """A reply of Redis as text, however the client decodes."""
    return raw.decode() if isinstance(raw, bytes) else raw


def _by_chunk(client: redis.Redis, name: str, digests: Sequence[bytes], command: str) -> list[bool]:
    found: list[bool] = []
    for at in range(0, len(digests), 512):
        pipe = client.pipeline(transaction=False)
        for digest in digests[at : at + 512]:
            getattr(pipe, command)(name, digest)
        found += [bool(answer) for answer in pipe.execute()]
    return found


def _fields(config: TableConfig, key: bytes) -> dict[str, str | int]:
    return {
        "schema": SCHEMA,
        "key": event_digest("replay buffer", key),
        "cap": config.capacity,
        "max_bytes": config.max_bytes,
        "max_item": config.max_item_bytes,
        "ttl": config.ttl_s,
        "basis": config.retention_basis,
        "bucket": config.bucket_s,
        "max_sampled": config.max_sampled,
        "recent": config.recent,
        "ledger_ttl": config.ledger_ttl_s,
        "retention": config.source_retention_s,
        "lineage_steps": config.lineage_steps,
    }


def _rules(name: str, quota: Quota) -> bytes:
    counted = name != ANCHOR
    starred = name not in {ANCHOR, QUARANTINE}
    return _RULES.pack(
        quota.max_items, quota.fresh_items, _POLICIES.index(quota.policy), quota.exempt, starred, counted
    )


def _configure(
    client: redis.Redis, table: str, config: TableConfig, wanted: dict[str, str | int], clock: float | None
) -> None:
    """Write limits; lanes that exist keep their policy and whether they expire, for their indexes hang on it."""
    prefix = f"{{rb:{table}}}"
    quotas = {ANCHOR: Quota(exempt=True), QUARANTINE: Quota(), **config.quotas}
    rules = {name: _rules(name, quota) for name, quota in quotas.items()}
    mapping: dict[Any, Any] = {**wanted, **{f"rules:{name}": packed for name, packed in rules.items()}}
    if clock is not None:
        mapping["clock"] = clock
    pipe = client.pipeline(transaction=True)
    pipe.hset(f"{prefix}:cfg", mapping=mapping)
    for raw, number in client.hgetall(f"{prefix}:lanes").items():
        lane, at = text(raw), int(number) * _RULES.size
        new = rules.get(lane, _rules(lane, config.quotas["*"]))
        old = client.getrange(f"{prefix}:lq", at, at + _RULES.size - 1)
        if _RULES.unpack(cast(bytes, old))[2:4] != _RULES.unpack(new)[2:4]:
            raise ConfigMismatch(f"lane {lane} of {table} exists with another policy or exemption; it cannot change")
        pipe.setrange(f"{prefix}:lq", at, new)
    pipe.execute()
