"""The table's invariants, checked from Redis alone by a reader of raw keys that shares no code with the scripts."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import redis

from streams.replay.buffer import ReplayBuffer

RECORD = struct.Struct(">8sII8sHBBIIHBBII")
PAGE = 1023
LIVE, EXEMPT = 1, 2
FRESH, LEASED, SPENT, BINS = 0, 63, 64, 65
STALE_QUEUE = 1_024
PART = 500

T = TypeVar("T")


class Violation(NamedTuple):
    """A broken invariant: its name in the design (I1 to I11) and what was found, without any text of a sample."""

    invariant: str
    detail: str


class _Record(NamedTuple):
    digest: bytes
    ts: int
    seq: int
    customer: bytes
    lane: int
    bin: int
    flags: int
    pos: int
    bytes: int
    times: int
    prev: int
    pad: int
    first: int
    last: int


@dataclass
class _Snapshot:
    """Everything but the samples' text, as one look at a table that nobody writes to meanwhile."""

    cfg: dict[str, str]
    n: Counter[str]
    live: dict[int, _Record] = field(default_factory=dict)
    lanes: int = 0

    @property
    def now(self) -> float:
        return float(self.cfg["now"])


def audit(table: ReplayBuffer, *, full: bool = False) -> list[Violation]:
    """Every violation of I1 to I11 on a table at rest. `full` also measures the stored payloads (I3)."""
    snapshot = _read(table)
    checks = [_arrays, _counts, _customers, _slots, _queues, _bounds, _tombs, _digests, _balance, _leases]
    found = [violation for check in checks for violation in check(table, snapshot)]
    return found + (list(_payloads(table, snapshot)) if full else [])


def _read(table: ReplayBuffer) -> _Snapshot:
    client, prefix = table.client, table.prefix
    raw: dict[Any, Any] = client.hgetall(f"{prefix}:cfg")
    cfg = {k.decode(): v.decode() for k, v in raw.items() if not k.startswith(b"rules:")}
    cfg["now"] = cfg.get("clock", str(client.time()[0]))
    counters: dict[Any, Any] = client.hgetall(f"{prefix}:n")
    snapshot = _Snapshot(cfg, Counter({k.decode(): int(v) for k, v in counters.items()}))
    for slot in range(snapshot.n["hi"]):
        if slot % PAGE == 0:
            page = client.get(f"{prefix}:m:{slot // PAGE}") or b""
        record = _Record(*RECORD.unpack_from(page, slot % PAGE * RECORD.size))  # type: ignore[arg-type]  # replies are bytes
        if record.flags & LIVE:
            snapshot.live[slot] = record
    snapshot.lanes = client.hlen(f"{prefix}:lanes")
    return snapshot


def _u32(client: redis.Redis, key: str, count: int | None = None) -> list[int]:
    raw: Any = client.get(key) or b""
    whole = raw if count is None else raw[: count * 4]
    return list(struct.unpack(f">{len(whole) // 4}I", whole))


def _arrays(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I1: every live slot is at b[lane][bin][pos] and nowhere else."""
    places: dict[int, tuple[int, int, int]] = {}
    for lane in range(snapshot.lanes):
        counts = _u32(table.client, f"{table.prefix}:bc:{lane}") or [0] * BINS
        for number, count in enumerate(counts):
            for pos, slot in enumerate(_u32(table.client, f"{table.prefix}:b:{lane}:{number}", count)):
                if slot in places:
                    yield Violation("I1", f"slot {slot} stands at {places[slot]} and at {(lane, number, pos)}")
                places[slot] = (lane, number, pos)
    for slot, record in snapshot.live.items():
        if places.pop(slot, None) != (record.lane, record.bin, record.pos):
            yield Violation("I1", f"slot {slot} is not where its record says: {record.lane, record.bin, record.pos}")
    if places:
        yield Violation("I1", f"{len(places)} dead slots stand in arrays")


def _counts(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I2: bin counts, lane counts, bucket counts and live records agree with n."""
    live = snapshot.live.values()
    if len(live) != snapshot.n["n"]:
        yield Violation("I2", f"{len(live)} live records, n = {snapshot.n['n']}")
    lanes = _u32(table.client, f"{table.prefix}:lc")
    for lane in range(snapshot.lanes):
        of_lane = [r for r in live if r.lane == lane]
        bins = Counter(r.bin for r in of_lane)
        counts = _u32(table.client, f"{table.prefix}:bc:{lane}") or [0] * BINS
        if counts != [bins[number] for number in range(BINS)]:
            yield Violation("I2", f"bin counts of lane {lane} disagree with its records")
        scored = sum(bins[number] for number in range(1, LEASED))
        expected = [len(of_lane), bins[FRESH], scored, sum(r.times == 0 for r in of_lane)]
        if lanes[lane * 4 : lane * 4 + 4] != expected:
            yield Violation("I2", f"lane {lane} counts {lanes[lane * 4 : lane * 4 + 4]}, its records say {expected}")
    buckets: dict[Any, Any] = table.client.hgetall(f"{table.prefix}:bk")
    counted = Counter(_bucket(snapshot, r) for r in live)
    if {k.decode(): int(v) for k, v in buckets.items()} != dict(counted):
        yield Violation("I2", "bucket counts disagree with the records")
    for bucket, items in counted.items():
        stored = table.client.hlen(f"{table.prefix}:d:{bucket}")
        if stored != items and not (stored == 0 and _overdue(snapshot, bucket)):
            yield Violation("I2", f"bucket {bucket} stores {stored} payloads for {items} records")


def _payloads(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I3: stored lengths are the records' bytes."""
    slots: dict[str, list[int]] = {}
    for slot, record in snapshot.live.items():
        slots.setdefault(_bucket(snapshot, record), []).append(slot)
    for bucket, held in slots.items():
        for part in _parts(held):
            digests = [snapshot.live[slot].digest for slot in part]
            values: list[Any] = table.client.hmget(f"{table.prefix}:d:{bucket}", digests)
            for slot, value in zip(part, values, strict=True):
                if value is None and _overdue(snapshot, bucket):
                    continue
                wrong = value is None or len(value) != snapshot.live[slot].bytes
                if wrong or struct.unpack_from(">I", value)[0] != slot:
                    yield Violation("I3", f"payload of slot {slot} is missing, of another length, or of another slot")


def _customers(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I3 (sum) and I4: the byte counter adds up; customer sets and live records are a bijection."""
    total = sum(r.bytes for r in snapshot.live.values())
    if total != snapshot.n["bytes"]:
        yield Violation("I3", f"records hold {total} bytes, the counter says {snapshot.n['bytes']}")
    prefix = f"{table.prefix}:c:".encode()
    expected: dict[bytes, set[int]] = {}
    for slot, record in snapshot.live.items():
        expected.setdefault(record.customer, set()).add(slot)
    found: dict[bytes, set[int]] = {}
    for part in _parts(list(table.client.scan_iter(_escape(prefix) + b"*", count=1_000))):
        pipe = table.client.pipeline(transaction=False)
        for key in part:
            pipe.smembers(key)
        for key, members in zip(part, pipe.execute(), strict=True):
            found[key[len(prefix) :]] = {int(slot) for slot in members}
    if found != expected:
        yield Violation("I4", f"{len(found)} customer sets, the records have {len(expected)}; contents differ")


def _slots(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I5: free list and live slots are disjoint and together are all slots."""
    free = [int(slot) for slot in table.client.lrange(f"{table.prefix}:free", 0, -1)]
    if len(set(free)) != len(free) or set(free) & snapshot.live.keys():
        yield Violation("I5", "a free slot is listed twice, or lives")
    if len(free) + len(snapshot.live) != snapshot.n["hi"]:
        yield Violation("I5", f"{len(free)} free and {len(snapshot.live)} live slots of {snapshot.n['hi']}")


def _queues(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I6: a queue holds each of its live (slot, seq) once, and few stale entries."""
    for lane, (_, _, policy) in _lane_rules(table, snapshot):
        if policy == 2:  # lowest keeps no queue
            continue
        entries: list[Any] = table.client.lrange(f"{table.prefix}:q:{lane}", 0, -1)
        queued = Counter(struct.unpack(">II", entry) for entry in entries)
        wanted = {
            (slot, r.seq) for slot, r in snapshot.live.items() if r.lane == lane and (policy == 0 or r.times == 0)
        }
        if any(queued[entry] != 1 for entry in wanted):
            yield Violation("I6", f"the queue of lane {lane} misses a live sample or holds it twice")
        stale = len(entries) - len(wanted)
        if stale > len(wanted) + STALE_QUEUE:
            yield Violation("I6", f"the queue of lane {lane} has {stale} stale entries for {len(wanted)} live ones")


def _bounds(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I7: table and lanes are within their limits (a lowered limit: once sweep is through)."""
    if snapshot.n["n"] > int(snapshot.cfg["cap"]) or snapshot.n["bytes"] > int(snapshot.cfg["max_bytes"]):
        yield Violation("I7", f"{snapshot.n['n']} samples, {snapshot.n['bytes']} bytes are above the limits")
    for lane, (quota, fresh, policy) in _lane_rules(table, snapshot):
        records = [r for r in snapshot.live.values() if r.lane == lane]
        untrained = sum(r.times == 0 for r in records)
        over = len(records) - untrained > quota or untrained > fresh if policy == 1 else len(records) > quota
        if over:
            yield Violation("I7", f"lane {lane} holds {len(records)} samples, {untrained} untrained: above its quota")


def _tombs(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I8: no tombstoned customer is live, unless the erasure still runs."""
    dead = set(table.client.zrange(f"{table.prefix}:tomb", 0, -1)) - table.client.smembers(f"{table.prefix}:er")
    if any(r.customer in dead for r in snapshot.live.values()):
        yield Violation("I8", "a tombstoned customer has live samples")


def _digests(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I9 (first half): digests are unique over the table."""
    del table
    counted = Counter(r.digest for r in snapshot.live.values())
    if any(count > 1 for count in counted.values()):
        yield Violation("I9", "a digest is live twice")


def _balance(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I10 (first half): what came in and what left make what is there."""
    del table
    n = snapshot.n
    if n["ins"] - n["ev"] - n["era"] - n["exp"] - n["ret"] != n["n"]:
        yield Violation("I10", "inserted - evicted - erased - expired - retired is not n")


def _leases(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[Violation]:
    """I11: leases are exactly the live slots of bin 63, deadlines in the future or overdue."""
    members: list[Any] = table.client.zrange(f"{table.prefix}:ls", 0, -1)
    leased = {int(slot) for slot in members}
    if leased != {slot for slot, r in snapshot.live.items() if r.bin == LEASED}:
        yield Violation("I11", "leases and leased bins differ")


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """In order, what one round trip asks for."""
    return (values[at : at + PART] for at in range(0, len(values), PART))


def _lane_rules(table: ReplayBuffer, snapshot: _Snapshot) -> Iterator[tuple[int, tuple[int, int, int]]]:
    raw: Any = table.client.get(f"{table.prefix}:lq") or b""
    edges = range(0, snapshot.lanes * 12 + 12, 12)
    for lane, (first, last) in enumerate(pairwise(edges)):
        quota, fresh, policy, *_ = struct.unpack(">IIBBBB", raw[first:last])
        yield lane, (quota, fresh, policy)


def _bucket(snapshot: _Snapshot, record: _Record) -> str:
    return "x" if record.flags & EXEMPT else str(record.ts // int(snapshot.cfg["bucket"]))


def _overdue(snapshot: _Snapshot, bucket: str) -> bool:
    end = (int(bucket) + 1) * int(snapshot.cfg["bucket"]) if bucket != "x" else float("inf")
    return end + int(snapshot.cfg["ttl"]) <= snapshot.now


def _escape(pattern: bytes) -> bytes:
    return pattern.replace(b"[", b"\\[").replace(b"*", b"\\*").replace(b"?", b"\\?")
