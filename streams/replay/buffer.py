"""One table of the replay buffer: a handle on Redis, where every operation is one script."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import redis

from streams.events import Sample
from streams.ledger import event_digest
from streams.replay.codec import (
    PoisonedPayload,
    customer_digest,
    decode_payload,
    encode_payload,
    sample_digest,
    targets,
)
from streams.replay.config import ReplayError
from streams.replay.mix import Mix, priority_bin
from streams.replay.offsets import Offset
from streams.replay.scripts import Scripts, full_as_error
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
"""Handles of one update script, and items of one erase or retire script."""

INSERT_ROUNDS = 1_000
"""Times an insert is sent again because the script had evicted enough; 256 evictions each."""


_HANDLE = struct.Struct(">II8sB")


@dataclass(frozen=True)
class Limits:
    """What of the table's configuration the client side needs."""

    ttl_s: int
    bucket_s: int
    max_item_bytes: int
    samples_per_insert: float
    min_size: int
    error_buffer: float


class ReplayBuffer:
    """A table: insert, draw, fetch, update, retire. Made by `open_table`, which has checked server and settings."""

    def __init__(
        self, client: redis.Redis, table: str, limits: Limits, key: bytes, epoch: str, *, compress: bool = True
    ) -> None:
        self.client = client
        self.table = table
        self.kind = table.partition(":")[0].partition("-")[0]
        self.prefix = f"{{rb:{table}}}"
        self.limits = limits
        self._key = key
        self._epoch = epoch
        self._compress = compress
        self._scripts = Scripts(client)
        self._page = 0

    def insert(self, items: Sequence[Sample], source: Sequence[Offset] | None = None) -> InsertReport:
        """Store samples once; those of one offset enter or are refused together, with their ledger entries.

        `source[i]` is the Kafka place of sample i, samples of one offset side by side. Raises ValueError for a sample
        of another split or more than 64 samples on one offset, `ServerFull` when nothing has happened, redis.RedisError
        when a script may or may not have run: repeat it.
        """
        if source is not None and len(source) != len(items):
            raise ValueError(f"{len(items)} samples come with {len(source)} offsets; one each is needed")
        for sample in items:
            if self.kind in {"train", "val", "test"} and sample.split != self.kind:
                raise ValueError(f"sample {sample.sample_id} is of split {sample.split}, the table is {self.table}")
        report = InsertReport("", 0, 0, 0)
        for first, last in _calls(source, len(items)):
            part = self._insert(items[first:last], source[first:last] if source is not None else None)
            evicted = report.evicted + part.evicted
            report = InsertReport(report.letters + part.letters, evicted, part.size, part.bytes)
        return report

    def draw(
        self,
        mix: Mix,
        k: int,
        *,
        seed: int,
        alpha: float = 0.6,
        lease_s: float = 0,
        purpose: str = "train",
    ) -> Draw | Wait:
        """Draw `k` samples by name; the same seed on the same state draws the same.

        Raises ReplayError on a held-out table without `purpose="eval"`.
        """
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
        }  # fmt: skip
        answer = self._scripts.draw(keys=[self.prefix], args=[msgspec.msgpack.encode(request)])
        if answer[0] == b"wait":
            return Wait("empty" if answer[1] == b"empty" else "limiter", int(answer[2]))
        _, now, table_seq, eligible, least, rows, shares, drawn = answer
        records = tuple(
            Drawn(Handle(slot, seq, digest), bucket, lane, times, part, p)
            for digest, bucket, seq, slot, lane, times, part, p in ROW.iter_unpack(rows)
        )
        return Draw(
            seed, mix, alpha, float(now), int(table_seq), int(eligible), float(least), records,
            tuple(float(share) for share in shares), tuple(int(n) for n in drawn),
        )  # fmt: skip

    def fetch(self, draw: Draw) -> Batch:
        """The samples of a draw, in one round trip; None where one left in between."""
        samples, poisoned = self._read([(d.handle.digest, d.bucket) for d in draw.records])
        return Batch(
            tuple(samples),
            tuple(d.handle for d in draw.records),
            tuple(d.p for d in draw.records),
            draw.least_p,
            poisoned,
        )

    def update(self, handles: Sequence[Handle], priorities: Sequence[float], *, run: int, step: int) -> UpdateReport:
        """Book that (run, step) trained these handles, and set their priorities; repeating it changes nothing.

        Raises ValueError unless every priority is finite and above 0.
        """
        if len(handles) != len(priorities):
            raise ValueError(f"{len(handles)} handles come with {len(priorities)} priorities")
        rows = [_HANDLE.pack(*h, priority_bin(p)) for h, p in zip(handles, priorities, strict=True)]
        applied = stale = evicted = 0
        for part in range(0, len(rows), HANDLES_PER_CALL):
            chunk = b"".join(rows[part : part + HANDLES_PER_CALL])
            # Named by its content, so that a repeated update finds its own lineage entry.
            name = blake2b(chunk, digest_size=6).hexdigest()
            answer = self._scripts.update(keys=[self.prefix], args=[run, step, name, chunk])
            applied, stale, evicted = applied + answer[0], stale + answer[1], evicted + answer[2]
        return UpdateReport(applied, stale, evicted)

    def retire(self, digests: Sequence[bytes], reason: str) -> int:
        """Remove superseded or poisoned samples from every index; returns how many were there."""
        return sum(
            int(self._scripts.remove(keys=[self.prefix], args=["retire", reason, *chunk])) for chunk in _chunks(digests)
        )

    def relane(self, digests: Sequence[bytes], lane: str) -> int:
        """Move samples to another lane (quarantine and back) while it has room; returns how many moved."""
        return sum(
            int(self._scripts.remove(keys=[self.prefix], args=["relane", lane, *chunk])) for chunk in _chunks(digests)
        )

    def erase_chunk(self, customer: bytes, slots: Sequence[int]) -> tuple[bytes, int]:
        """Delete these slots if they are the customer's: packed rows of what left, and how many are still there."""
        answer = self._scripts.remove(keys=[self.prefix], args=["erase", customer, *slots])
        return answer[0], int(answer[1])

    def sweep(self, budget_ms: float = 5.0) -> SweepReport:
        """Housekeeping in bounded pieces until `budget_ms` of server time is used or a round has passed."""
        total = SweepReport()
        started = self._micros()
        first = self._page
        while True:
            page, *counts = self._scripts.sweep(keys=[self.prefix], args=[self._page])
            leases, expired, evicted, trimmed = counts
            total = SweepReport(
                total.leases + leases, total.expired + expired, total.evicted + evicted, total.trimmed + trimmed
            )
            busy = max(counts) >= HANDLES_PER_CALL
            self._page = int(page)
            if not busy and (self._page in {first, 0}):
                return total
            if self._micros() - started > budget_ms * 1_000:
                return total

    def customer_digest(self, customer: str) -> bytes:
        """The eight bytes under which this buffer files a customer's pseudonym."""
        return customer_digest(customer, self._key)

    def read(self, wanted: Sequence[tuple[bytes, int]]) -> list[Sample | None]:
        """Stored samples by digest and bucket, None where one left; what cannot be read is retired."""
        return self._read(wanted)[0]

    def samples(self, digests: Iterable[bytes]) -> list[Sample | None]:
        """Stored samples by digest, None where it is not resident: for review and evidence, not for training."""
        wanted = list(digests)
        buckets = [int(b) if b != b"x" else NO_TTL for b in self.client.hkeys(f"{self.prefix}:bk")]
        found: list[Sample | None] = [None] * len(wanted)
        for bucket in buckets:
            open_ = [i for i, sample in enumerate(found) if sample is None]
            for i, sample in zip(open_, self.read([(wanted[i], bucket) for i in open_]), strict=True):
                found[i] = sample
        return found

    def _insert(self, items: Sequence[Sample], source: Sequence[Offset] | None) -> InsertReport:
        rows, binaries = zip(*(self._row(sample) for sample in items), strict=True)
        places = list(source) if source is not None else []
        groups: list[Sequence[object]] = []
        for i, row in enumerate(rows):
            if source is None or i == 0 or places[i] != places[i - 1]:
                groups.append(list(places[i]) if source is not None else [])
            row["group"] = len(groups)
        letters, evicted, at = "", 0, 0
        for _ in range(INSERT_ROUNDS):
            request = _request(self._epoch, rows[at:], groups)
            args = [msgspec.msgpack.encode(request), *binaries[at:]]
            with full_as_error():
                answer = self._scripts.insert(keys=[self.prefix], args=args)
            got = answer[0].decode()
            done = got.rstrip("-")
            letters, evicted, at = letters + done, evicted + int(answer[1]), at + len(done)
            if at == len(rows):
                break
        return InsertReport(letters + "-" * (len(rows) - at), evicted, int(answer[2]), int(answer[3]))

    def _row(self, sample: Sample) -> tuple[dict[str, object], bytes]:
        payload = encode_payload(sample, compress=self._compress)
        numbered = targets(sample)
        numbers = [sample.priority, *(turn.weight for _, turn in numbered)]
        usable = bool(numbered) and all(math.isfinite(x) and x > 0 for x in numbers)
        too_big = len(payload) + 8 > self.limits.max_item_bytes
        kind = "/".join(sample.sample_id.rsplit("/", 2)[1:]) or "sft/0"
        claims = [
            [event_digest(turn.event_id, self._key), kind, nth]
            for nth, turn in numbered
            if turn.event_id is not None and nth < 32  # bits of the mask
        ]
        names = sample_digest(sample, self._key) + customer_digest(sample.customer, self._key)
        row: dict[str, object] = {
            "ts": int(sample.received_at),
            "lane": sample.lane,
            "numbers": numbers if usable else [1.0],
            "events": [event_digest(event, self._key) for event in sample.event_ids],
            "targets": len(numbered),
            "claims": claims,
            "replaces": sample.replaces or "",
            "reason": "too_big" if too_big else "" if usable else "bad_weight",
        }
        return row, names + (b"" if too_big else payload)

    def _read(self, wanted: Sequence[tuple[bytes, int]]) -> tuple[list[Sample | None], int]:
        by_bucket: defaultdict[int, list[int]] = defaultdict(list)
        for i, (_, bucket) in enumerate(wanted):
            by_bucket[bucket].append(i)
        pipe = self.client.pipeline(transaction=False)
        for bucket, places in by_bucket.items():
            fields = [wanted[i][0] for i in places]
            name = "x" if bucket == NO_TTL else str(bucket)
            pipe.hmget(f"{self.prefix}:d:{name}", fields)
            pipe.hmget(f"{self.prefix}:a:{name}", fields)
        pipe.smembers(f"{self.prefix}:er")
        pipe.time()
        answers: list[Any] = pipe.execute() if by_bucket else [set(), (0, 0)]
        *replies, erasing, now = answers
        found: list[Sample | None] = [None] * len(wanted)
        poisoned: list[bytes] = []
        for n, places in enumerate(by_bucket.values()):
            for i, value, notes in zip(places, replies[2 * n], replies[2 * n + 1], strict=True):
                sample = None if value is None else self._decode(wanted[i][0], value, notes, poisoned)
                if sample is not None and self._may_leave(sample, wanted[i][1], erasing, now[0]):
                    found[i] = sample
        if poisoned:
            self.retire(poisoned, "poisoned")
        return found, len(poisoned)

    def _decode(self, digest: bytes, value: bytes, notes: bytes | None, poisoned: list[bytes]) -> Sample | None:
        try:
            return decode_payload(value, notes, self._key)
        except PoisonedPayload:
            poisoned.append(digest)
            return None

    def _may_leave(self, sample: Sample, bucket: int, erasing: set[bytes], now: int) -> bool:
        """False for what is past its ttl or belongs to a customer under erasure, deleted yet or not."""
        if bucket != NO_TTL and int(sample.received_at) + self.limits.ttl_s <= now:
            return False
        return not (erasing and self.customer_digest(sample.customer) in erasing)

    def _micros(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1_000_000 + int(micros)


def _request(epoch: str, rows: Sequence[Mapping[str, object]], groups: list[Sequence[object]]) -> dict[str, object]:
    lanes = sorted({str(row["lane"]) for row in rows})
    numbers = {lane: i + 1 for i, lane in enumerate(lanes)}
    items = [{**row, "lane": numbers[str(row["lane"])]} for row in rows]
    return {"epoch": epoch, "lanes": lanes, "groups": groups, "items": items}


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


def _chunks(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(digests), HANDLES_PER_CALL):
        yield digests[at : at + HANDLES_PER_CALL]
