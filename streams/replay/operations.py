"""What a table's operations ask of Redis, without asking: generators that yield calls and are sent the answers.

`buffer.py` runs them on a blocking client, `aio.py` on an asyncio one; both share this file, the codec and the Lua.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec

from streams.events import Sample
from streams.ledger import entry_key
from streams.replay.codec import Coder, PoisonedPayload
from streams.replay.config import ReplayError
from streams.replay.mix import Mix, priority_bin
from streams.replay.offsets import Offset
from streams.replay.shapes import (
    NO_TTL,
    ROW,
    Batch,
    Draw,
    Drawn,
    Handle,
    InsertReport,
    SweepReport,
    UpdateReport,
    Wait,
)

GROUP_LIMIT = 64
"""Samples of one offset, and of one insert script."""

HANDLES_PER_CALL = 256
"""Handles of one update script."""

REMOVALS = 16
"""Items that one script of an erasure, a sweep or a retirement takes out: a removal costs some 30 us, four times that
in a table of a million, and nobody else is served meanwhile."""

INSERT_ROUNDS = 1_000
"""Times an insert is sent again because the script had evicted enough; 256 evictions each."""

_COLUMNS = (
    "group", "lane", "ts", "least", "most", "hex", "events", "targets", "kind", "claims", "replaces", "reason",
)  # fmt: skip
"""What an insert tells of each item beside its payload."""

_EXEMPT, _ANNOTATED = 2, 4


class Script(NamedTuple):
    """A call of one of the table's scripts."""

    name: str
    args: Sequence[Any]


class Reads(NamedTuple):
    """Reading commands that go out together; answered by a list."""

    commands: Sequence[tuple[Any, ...]]


Steps = Generator[Script | Reads, Any, Any]


@dataclass(frozen=True)
class Limits:
    """What of the table's configuration the client side needs."""

    ttl_s: int
    bucket_s: int
    max_item_bytes: int
    samples_per_insert: float
    min_size: int
    error_buffer: float
    retention_basis: Literal["kafka", "event"] = "kafka"


@dataclass(frozen=True)
class Operations:
    """The operations of one table, by its name, limits and codec."""

    table: str
    limits: Limits
    coder: Coder
    epoch: str

    @property
    def prefix(self) -> str:
        """What every key of the table starts with."""
        return f"{{rb:{self.table}}}"

    @property
    def kind(self) -> str:
        """`train`, `val`, `test` or `golden`, whatever the line or shard."""
        return self.table.partition(":")[0].partition("-")[0]

    def insert(self, items: Sequence[Sample], source: Sequence[Offset] | None) -> Steps:
        """Store samples once; an `InsertReport`."""
        if source is not None and len(source) != len(items):
            raise ValueError(f"{len(items)} samples come with {len(source)} offsets; one each is needed")
        for sample in items:
            if self.kind in {"train", "val", "test"} and sample.split != self.kind:
                raise ValueError(f"sample {sample.sample_id} is of split {sample.split}, the table is {self.table}")
        report = InsertReport("", 0, 0, 0)
        for first, last in _calls(source, len(items)):
            part = yield from self._insert(items[first:last], source[first:last] if source is not None else None)
            report = InsertReport(report.letters + part.letters, report.evicted + part.evicted, part.size, part.bytes)
        return report

    def _insert(self, items: Sequence[Sample], source: Sequence[Offset] | None) -> Steps:
        groups: list[Sequence[object]] = []
        lanes = {lane: i + 1 for i, lane in enumerate(sorted({sample.lane for sample in items}))}
        rows, names, payloads = [], [], []
        for i, sample in enumerate(items):
            if source is None or i == 0 or source[i] != source[i - 1]:
                groups.append(source[i] if source is not None else ())
            row, name, payload = self._row(sample)
            rows.append((len(groups), lanes[sample.lane], *row))
            names.append(name)
            payloads.append(payload)
        letters, evicted, at = "", 0, 0
        for _ in range(INSERT_ROUNDS):
            columns = dict(zip(_COLUMNS, zip(*rows[at:], strict=True), strict=True))
            request = {"epoch": self.epoch, "lanes": list(lanes), "groups": groups, **columns}
            answer = yield Script("insert", [msgspec.msgpack.encode(request), b"".join(names[at:]), *payloads[at:]])
            done = answer[0].decode().rstrip("-")
            letters, evicted, at = letters + done, evicted + int(answer[1]), at + len(done)
            if at == len(rows):
                break
        return InsertReport(letters + "-" * (len(rows) - at), evicted, int(answer[2]), int(answer[3]))

    def _row(self, sample: Sample) -> tuple[tuple[Any, ...], bytes, bytes]:
        """What the script decides by, from the third of `_COLUMNS` on; both digests; the payload."""
        coder = self.coder
        payload = coder.encode(sample)
        numbers, claims = [sample.priority], list[int]()
        filed = {event_id: nth for nth, event_id in enumerate(dict.fromkeys(sample.event_ids), 1)}
        for turn in sample.turns:
            if not turn.is_target:
                continue
            nth = len(numbers) - 1
            numbers.append(turn.weight)
            if turn.event_id is not None and nth < 32:  # bits of the mask
                claims += filed.setdefault(turn.event_id, len(filed) + 1), nth
        targets = len(numbers) - 1
        reason = "" if targets and all(0 < x < math.inf for x in numbers) else "bad_weight"
        if len(payload) + 8 > self.limits.max_item_bytes:
            payload, reason = b"", "too_big"
        digest = coder.sample_digest(sample)
        kind = "/".join(sample.sample_id.rsplit("/", 2)[1:]) or "sft/0"
        row = (
            int(self.counts_from(sample)), *((1.0, 1.0) if reason else (min(numbers), max(numbers))), digest.hex(),
            [entry_key(coder.event_digest(event_id)) for event_id in filed],
            targets, kind, claims, sample.replaces or "", reason,
        )  # fmt: skip
        return row, digest + coder.customer_digest(sample.customer), payload

    def counts_from(self, sample: Sample) -> float:
        """The second from which a sample's ttl counts: Kafka's timestamp, or by setting the event's own."""
        if self.limits.retention_basis == "event" and sample.happened_at:
            return sample.happened_at
        return sample.received_at

    def draw(
        self, mix: Mix, k: int, *, seed: int, alpha: float, lease_s: float, purpose: str, payloads: bool = False
    ) -> Steps:
        """Draw by name: a `Draw` or a `Wait`; with `payloads` a `Draw` and its `Batch`."""
        if (self.kind in {"val", "test", "golden"}) != (purpose == "eval"):
            raise ReplayError(f"table {self.table} is not drawn with purpose={purpose!r}")
        if k < 1 or not math.isfinite(alpha):
            raise ValueError(f"k = {k}, alpha = {alpha}: want k >= 1 and a finite alpha")
        limits = self.limits
        limited = purpose == "train" and limits.samples_per_insert > 0
        request = {
            "seed": seed, "k": k, "tau": float(mix.tau), "alpha": float(alpha), "lease": lease_s,
            "parts": [part.wire() for part in mix.parts], "min_size": limits.min_size if purpose == "train" else 1,
            "error_buffer": limits.error_buffer, **({"spi": limits.samples_per_insert} if limited else {}),
            "payloads": payloads,
        }  # fmt: skip
        answer = yield Script("draw", [msgspec.msgpack.encode(request)])
        if answer[0] == b"wait":
            return Wait("empty" if answer[1] == b"empty" else "limiter", int(answer[2]))
        _, now, table_seq, eligible, least, rows, shares, drawn, values, notes = answer
        draw = Draw(
            seed, mix, alpha, float(now), int(table_seq), int(eligible), float(least),
            tuple(self._drawn(rows, leased=lease_s > 0)), tuple(map(float, shares)), tuple(map(int, drawn)),
        )  # fmt: skip
        if not payloads:
            return draw
        late = dict(zip(notes[::2], notes[1::2], strict=True))
        samples, poisoned = yield from self._decoded(
            [d.handle.digest for d in draw.records], values, [late.get(i) for i in range(len(values))] if late else None
        )
        return draw, _batch(draw, samples, poisoned)

    def _drawn(self, rows: bytes, *, leased: bool) -> Iterator[Drawn]:
        bucket_s = self.limits.bucket_s
        for digest, ts, seq, _, lane, _, flags, _, _, times, _, token, _, _, slot, part, p in ROW.iter_unpack(rows):
            bucket = NO_TTL if flags & _EXEMPT else ts // bucket_s
            lease = token % 255 + 1 if leased else 0
            yield Drawn(Handle(slot, seq, digest, lease), bucket, lane, times, part, p)

    def fetch(self, draw: Draw) -> Steps:
        """The `Batch` of a draw, in one round trip."""
        samples, poisoned = yield from self.read([(d.handle.digest, d.bucket) for d in draw.records])
        return _batch(draw, samples, poisoned)

    def update(self, handles: Sequence[Handle], priorities: Sequence[float], *, run: int, step: int) -> Steps:
        """Book a training step; an `UpdateReport`."""
        if len(handles) != len(priorities):
            raise ValueError(f"{len(handles)} handles come with {len(priorities)} priorities")
        bins = bytes(map(priority_bin, priorities))
        applied = stale = evicted = 0
        for first in range(0, len(handles), HANDLES_PER_CALL):
            part = slice(first, first + HANDLES_PER_CALL)
            slots, seqs, digests, leases = zip(*handles[part], strict=True)
            u32s = f">{len(slots)}I"
            columns = b"".join(digests), struct.pack(u32s, *slots), struct.pack(u32s, *seqs), bytes(leases), bins[part]
            # Named by its content, so that a repeated update finds its own lineage entry.
            name = blake2b(b"".join(columns), digest_size=6).hexdigest()
            answer = yield Script("update", [run, step, name, *columns])
            applied, stale, evicted = applied + answer[0], stale + answer[1], evicted + answer[2]
        return UpdateReport(applied, stale, evicted)

    def retire(self, digests: Sequence[bytes], reason: str) -> Steps:
        """Remove samples from every index; how many were there."""
        return (yield from self._remove("retire", reason, digests))

    def relane(self, digests: Sequence[bytes], lane: str) -> Steps:
        """Move samples to another lane while it has room; how many moved."""
        return (yield from self._remove("relane", lane, digests))

    def erase(self, customer: bytes) -> Steps:
        """One chunk of a customer's samples: packed rows of what left, and how many are still there."""
        rows, left = yield Script("remove", ["erase", customer, REMOVALS])
        return rows, int(left)

    def _remove(self, mode: str, argument: str, digests: Sequence[bytes]) -> Steps:
        done = 0
        for at in range(0, len(digests), REMOVALS):
            answer = yield Script("remove", [mode, argument, *digests[at : at + REMOVALS]])
            done += int(answer)
        return done

    def sweep(self, first: int, budget_ms: float) -> Steps:
        """Housekeeping from a page on; the next page and a `SweepReport`."""
        total, page = [0, 0, 0, 0], first
        (started,) = yield Reads([("TIME",)])
        while True:
            answer = yield Script("sweep", [page, REMOVALS])
            page, counts = int(answer[0]), answer[1:]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            if max(counts) < REMOVALS and page in {first, 0}:
                return page, SweepReport(*total)
            (now,) = yield Reads([("TIME",)])
            if (now[0] - started[0]) * 1_000 + (now[1] - started[1]) / 1_000 > budget_ms:
                return page, SweepReport(*total)

    def read(self, wanted: Sequence[tuple[bytes, int]]) -> Steps:
        """Samples by digest and bucket, None where one left or may not leave; how many were poisoned."""
        by_bucket: defaultdict[int, list[int]] = defaultdict(list)
        for i, (_, bucket) in enumerate(wanted):
            by_bucket[bucket].append(i)
        if not by_bucket:
            return [], 0
        commands: list[tuple[Any, ...]] = [("SMEMBERS", f"{self.prefix}:er"), ("TIME",)]
        for bucket, places in by_bucket.items():
            fields = [wanted[i][0] for i in places]
            name = "x" if bucket == NO_TTL else str(bucket)
            commands += [("HMGET", f"{self.prefix}:{what}:{name}", *fields) for what in "da"]
        erasing, now, *replies = yield Reads(commands)
        values: list[bytes | None] = [None] * len(wanted)
        notes = list(values)
        for n, places in enumerate(by_bucket.values()):
            for i, value, note in zip(places, replies[2 * n], replies[2 * n + 1], strict=True):
                values[i], notes[i] = value, note
        samples, poisoned = yield from self._decoded([digest for digest, _ in wanted], values, notes)
        for i, sample in enumerate(samples):
            if sample is not None and not self._may_leave(sample, wanted[i][1], erasing, int(now[0])):
                samples[i] = None
        return samples, poisoned

    def _decoded(
        self, digests: Sequence[bytes], values: Sequence[bytes | None], notes: Sequence[bytes | None] | None
    ) -> Steps:
        """Decode payloads; what cannot be read is None, and retired."""
        decode = self.coder.decode
        found: list[Sample | None] = [None] * len(values)
        poisoned: list[bytes] = []
        for i, value in enumerate(values):
            if value is None:
                continue
            try:
                found[i] = decode(value, notes[i] if notes else None)
            except PoisonedPayload:
                poisoned.append(digests[i])
        if poisoned:
            yield from self.retire(poisoned, "poisoned")
        return found, len(poisoned)

    def _may_leave(self, sample: Sample, bucket: int, erasing: set[bytes], now: int) -> bool:
        """False for what is past its ttl or belongs to a customer under erasure, deleted yet or not."""
        if bucket != NO_TTL and int(self.counts_from(sample)) + self.limits.ttl_s <= now:
            return False
        return not (erasing and self.coder.customer_digest(sample.customer) in erasing)


def _batch(draw: Draw, samples: Sequence[Sample | None], poisoned: int) -> Batch:
    handles, p_mix = tuple(d.handle for d in draw.records), tuple(d.p for d in draw.records)
    return Batch(tuple(samples), handles, p_mix, draw.least_p, poisoned)


def _calls(source: Sequence[Offset] | None, n: int) -> Iterator[tuple[int, int]]:
    """Slices of at most 64 samples that never cut an offset's group in two."""
    first = 0
    while first < n:
        last = min(first + GROUP_LIMIT, n)
        if source is not None and last < n:
            while last > first and source[last] == source[last - 1]:
                last -= 1
            if last == first:
                raise ValueError(f"offset {source[first].offset} carries more than {GROUP_LIMIT} samples")
        yield first, last
        first = last
