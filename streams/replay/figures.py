"""A table's figures for metrics and `driftline buffer`, and the samples worth a person's look."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from streams.events import Sample
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import ANCHOR, QUARANTINE
from streams.replay.server import failing, unsafe
from streams.replay.shapes import NO_TTL, RECORD, LaneStats, Stats

COUNTERS = (
    "n", "bytes", "seq", "ins", "anchors", "smp", "ev", "era", "exp", "ret", "dup", "tomb", "late", "rej", "calls",
    "stale", "trn", "lex",
)  # fmt: skip
"""What a table counts; metrics and `driftline buffer` name them so."""

_RULES = struct.Struct(">IIBBBB")
_RECORD = struct.Struct(RECORD)
_LIVE, _EXEMPT = 1, 2
_BINS = 65
_LEASED, _SPENT = 63, 64
_PAGE = 1023
_POLICIES = ("fifo", "reservoir", "lowest")


def stats(table: ReplayBuffer) -> Stats:
    """Everything that a collector or an operator asks of a table, in one round trip and one a lane."""
    client, prefix = table.client, table.prefix
    pipe = client.pipeline(transaction=False)
    for name in (":cfg", ":n", ":ev", ":lanes", ":bk"):
        pipe.hgetall(prefix + name)
    for name in (":lc", ":lq"):
        pipe.get(prefix + name)
    pipe.scard(f"{prefix}:er")
    pipe.info("memory")
    pipe.info("persistence")
    pipe.time()
    cfg, raw, evicted, lanes, buckets, counts, rules, erasing, memory, persistence, now = pipe.execute()
    n = dict.fromkeys(COUNTERS, 0) | {name.decode(): int(value) for name, value in raw.items()}
    ordered = sorted((int(lane), name.decode()) for name, lane in lanes.items())
    rows = tuple(_lane(table, ids, (counts, rules), evicted) for ids in ordered)
    aged = {int(bucket): int(count) for bucket, count in buckets.items() if bucket != b"x"}
    bucket_s = int(cfg[b"bucket"])
    return Stats(
        table=table.table,
        counters=n,
        capacity=int(cfg[b"cap"]),
        max_bytes=int(cfg[b"max_bytes"]),
        lanes=rows,
        oldest=float(min(aged) * bucket_s) if aged else None,
        mean_age_s=_mean_age(aged, bucket_s, float(cfg.get(b"clock", now[0]))),
        ttl_s=int(cfg[b"ttl"]),
        erasing=int(erasing),
        limiter=_limiter(table, n),
        lineage_from=int(cfg.get(b"lineage_from", 0)),
        problems=(*unsafe(memory, persistence), *failing(persistence)),
    )


def top(table: ReplayBuffer, k: int, *, by: Literal["priority", "age", "unlabelled"] = "priority") -> list[Sample]:
    """The k stored samples of highest priority, greatest age, or newest without any label: for the review queue."""
    found = []
    for _, record in live_records(table):
        digest, ts, seq, _, _, number, flags, *_ = record
        bucket = NO_TTL if flags & _EXEMPT else ts // table.limits.bucket_s
        rank = {"priority": (number if number < _LEASED else 0, seq), "age": (-ts, -seq), "unlabelled": (seq, 0)}[by]
        found.append((rank, digest, bucket))
    found.sort(reverse=True)
    chosen: list[Sample] = []
    for at in range(0, len(found), max(k, 32)):
        read = table.read([(digest, bucket) for _, digest, bucket in found[at : at + max(k, 32)]])
        chosen += [s for s in read if s is not None and (by != "unlabelled" or _unlabelled(s))]
        if len(chosen) >= k:
            break
    return chosen[:k]


def live_records(table: ReplayBuffer) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Slot and unpacked record of every live sample, page by page."""
    hi = int(table.client.hget(f"{table.prefix}:n", "hi") or 0)
    for page in range(-(-hi // _PAGE)):
        raw: Any = table.client.get(f"{table.prefix}:m:{page}") or b""
        for nth, record in enumerate(_RECORD.iter_unpack(raw)):
            if record[6] & _LIVE:
                yield page * _PAGE + nth, record


def _lane(
    table: ReplayBuffer, ids: tuple[int, str], packed: tuple[bytes, bytes], evicted: dict[bytes, bytes]
) -> LaneStats:
    lane, name = ids
    total, fresh, scored, _ = struct.unpack_from(">IIII", packed[0], lane * 16)
    quota, _, policy, *_ = _RULES.unpack_from(packed[1], lane * _RULES.size)
    raw: Any = table.client.get(f"{table.prefix}:bc:{lane}")
    bins = struct.unpack(f">{_BINS}I", raw) if raw else (0,) * _BINS
    gone = int(evicted.get(f"{lane}:{policy}".encode(), 0))
    return LaneStats(name, _POLICIES[policy], quota, total, fresh, scored, bins[_LEASED], bins[_SPENT], gone, bins)


def _limiter(table: ReplayBuffer, n: dict[str, int]) -> float | None:
    limits = table.limits
    if not limits.samples_per_insert:
        return None
    inserted = n["ins"] - n["anchors"]
    return inserted * limits.samples_per_insert - n["smp"] + limits.error_buffer


def _mean_age(aged: dict[int, int], bucket_s: int, now: float) -> float | None:
    """By the buckets' counts, each sample as old as the middle of its bucket, in the newest of its part so far."""
    total = sum(aged.values())
    middles = {bucket: (bucket * bucket_s + min((bucket + 1) * bucket_s, now)) / 2 for bucket in aged}
    return sum(count * (now - middles[bucket]) for bucket, count in aged.items()) / total if total else None


def _unlabelled(sample: Sample) -> bool:
    return any(turn.is_target and turn.label == "unknown" for turn in sample.turns)


def in_lane(table: ReplayBuffer, lane: str, k: int) -> list[Sample]:
    """The k newest stored samples of a lane: what waits in quarantine."""
    raw: Any = table.client.hget(f"{table.prefix}:lanes", lane)
    found = []
    for _, record in live_records(table) if raw is not None else ():
        digest, ts, seq, _, held, _, flags, *_ = record
        if held == int(raw):
            found.append((seq, digest, NO_TTL if flags & _EXEMPT else ts // table.limits.bucket_s))
    read = table.read([(digest, bucket) for _, digest, bucket in sorted(found, reverse=True)[:k]])
    return [sample for sample in read if sample is not None]


@dataclass(frozen=True)
class News:
    """What has come since a place in a table."""

    seq: int
    """The place of the newest sample."""
    samples: dict[bytes, Sample]
    """By digest, oldest first; anchors and what waits in quarantine left out."""
    stored: frozenset[bytes]
    """Digests of everything that the table holds."""


def place(table: ReplayBuffer) -> int:
    """Where the newest sample stands; 0 in a table that never held one."""
    return int(table.client.hget(f"{table.prefix}:n", "seq") or 0)


def news(table: ReplayBuffer, since: int) -> News:
    """Samples that were inserted behind the place `since`: read without a draw, a lease or a move of the limiter."""
    apart = [int(raw) for raw in table.client.hmget(f"{table.prefix}:lanes", ANCHOR, QUARANTINE) if raw is not None]
    found, stored, newest = [], set(), since
    for _, record in live_records(table):
        digest, ts, seq, _, lane, _, flags, *_ = record
        stored.add(digest)
        newest = max(newest, seq)
        if seq > since and lane not in apart:
            found.append((seq, digest, NO_TTL if flags & _EXEMPT else ts // table.limits.bucket_s))
    wanted = [(digest, bucket) for _, digest, bucket in sorted(found)]
    read = zip(wanted, table.read(wanted), strict=True)
    return News(newest, {digest: one for (digest, _), one in read if one is not None}, frozenset(stored))
