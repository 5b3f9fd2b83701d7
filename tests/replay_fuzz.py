"""Random operations on one replay table, judged by its audit and by a small model of what was sent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

from streams.events import Annotation, Sample, Split, Turn
from streams.replay import (
    Draw,
    InsertReport,
    Mix,
    Offset,
    Offsets,
    Part,
    Quota,
    ReplayBuffer,
    ReplayConfig,
    TableConfig,
    TopicPartition,
    open_table,
)
from streams.replay.audit import audit
from streams.replay.codec import sample_digest
from streams.replay.erasure import erase
from streams.replay.probe import Probe
from streams.replay.shapes import Handle
from streams.replay.tables import Tables, text

KEY = b"k" * 32
BUCKET_S = 10
TTL_S = 40
QUOTAS = {
    "*": Quota(25, "fifo"),
    "res": Quota(12, "reservoir", fresh_items=9),
    "low": Quota(15, "lowest"),
    "anchor": Quota(10, "fifo", exempt=True),
}
SENT = TopicPartition("examples", 0)
LANES = ("plain", "res", "low", "anchor", "other")
SMALL = TableConfig(
    capacity=45, max_bytes=9_000, max_item_bytes=900, ttl_s=TTL_S, bucket_s=BUCKET_S, source_retention_s=1_000,
    quotas=QUOTAS, max_sampled=3, recent=8, lineage_steps=2_000,
)  # fmt: skip


def sample(
    i: int,
    *,
    received_at: float,
    n: int = 0,
    lane: str = "plain",
    customer: str = "k1:c",
    split: Split = "train",
    reply: str = "answer",
    weight: float = 1.0,
) -> Sample:
    """A sample of one exchange; events `q<i>` (question) and `e<i>` (reply)."""
    turns = (
        Turn(role="customer", text=f"question {i}"),
        Turn(role="agent", text=f"{reply} {i}", is_target=True, event_id=f"e{i}", weight=weight),
    )
    return Sample(
        sample_id=f"e{i}/sft/{n}", conversation=f"fixed:{i}", customer=customer, lane=lane, split=split,
        turns=turns, received_at=received_at, completed_at=received_at, event_ids=(f"q{i}", f"e{i}"),
    )  # fmt: skip


@dataclass
class Fuzzer:
    """One table under random operations; everything follows from the seed."""

    client: redis.Redis
    seed: int
    config: TableConfig = SMALL
    now: float = 1_700_000_000.0
    sent: list[tuple[Offset, tuple[Sample, ...]]] = field(default_factory=list)
    handles: list[Handle] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    step: int = 0
    operations: int = 0
    consumed: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        # Far in the future, so that the server's own clock expires nothing that the test clock still keeps.
        self.now = self.client.time()[0] + 1_000_000.0
        self.table = self.open()
        self.probe = Probe(self.table)

    def open(self) -> ReplayBuffer:
        """The table by the fuzzer's settings."""
        return open_table(self.client, "train", self.config, KEY, "ep", configure=True, test_clock=self.now)

    def run(self, operations: int, *, audit_every: int = 5) -> None:
        """Do that many operations, auditing in between."""
        moves = [
            (self.insert, 30), (self.redeliver, 10), (self.draw, 14), (self.update, 14), (self.tick, 8),
            (self.sweep, 8), (self.replace, 5),
            (self.erase, 2), (self.annotate, 4), (self.retire, 2), (self.relane, 2), (self.expire, 2),
            (self.resize, 1), (self.flush_scripts, 1),
        ]  # fmt: skip
        for done in range(operations):
            move = self.rng.choices([m for m, _ in moves], [w for _, w in moves])[0]
            move()
            self.operations += 1
            if done % audit_every == 0:
                self.check()
        self.check()

    def check(self) -> None:
        """Audit and probe are clean, every sample sent is counted once, and every offset sent has its bit."""
        broken = audit(self.table, full=True)
        assert not broken, (self.seed, self.operations, broken)
        found = [violation for _ in range(5) for violation in self.probe.step()]
        assert not found, (self.seed, self.operations, found)
        counted: list[Any] = self.client.hmget("{rb:train}:n", "ins", "dup", "tomb", "late", "rej")
        assert sum(int(count or 0) for count in counted) == self.consumed, (self.seed, self.operations)
        assert Offsets(self.client, "ep", 1_000).resume_offset(SENT) == len(self.sent), (self.seed, self.operations)

    def store(self, items: Sequence[Sample], source: Offset) -> InsertReport:
        """Insert, and count what was taken."""
        report = self.table.insert(items, [source] * len(items))
        assert not report.deferred
        self.consumed += len(items)
        return report

    def insert(self) -> None:
        """A group of one to four new samples on one offset, some of them unusable."""
        i = len(self.sent) * 10
        items = [self.one(i + n) for n in range(self.rng.choice([1, 1, 1, 2, 4]))]
        source = Offset("examples", 0, len(self.sent))
        self.sent.append((source, tuple(items)))
        report = self.store(items, source)
        for item, letter in zip(items, report.letters, strict=True):
            if letter == "i":
                assert item.customer not in self.erased, "an erased customer came back"
                self.stored.add(item.sample_id)

    def one(self, i: int) -> Sample:
        """A sample that may be late, too big, without a usable weight, or of an erased customer."""
        return sample(
            i, received_at=self.now - self.rng.choice([0, 0, 5, 20, 45]), lane=self.rng.choice(LANES),
            customer=f"k1:{self.rng.randrange(60)}", reply="x" * self.rng.choice([10, 60, 300, 2_000]),
            weight=self.rng.choice([1.0, 1.0, 1.0, float("nan")]),
        )  # fmt: skip

    def redeliver(self) -> None:
        """Some of what was sent, again: on its old offset nothing enters, on a new one nothing that ever was stored."""
        if not self.sent:
            return
        source, items = self.rng.choice(self.sent)
        again = self.rng.random() < 0.5
        if again:
            source = Offset("examples", 1, self.operations)
        report = self.store(items, source)
        for item, letter in zip(items, report.letters, strict=True):
            assert letter != "i" or (again and item.sample_id not in self.stored), (self.seed, report)
            if letter == "i":
                self.stored.add(item.sample_id)

    def draw(self) -> None:
        """A batch of a random mix, often under a lease; never of an erased customer or past its ttl."""
        shares = [self.rng.random() for _ in range(4)]
        policies = ("fresh", "prio", "uniform", "recent")
        lanes = ["*", ("anchor",), ("res", "low"), "plain"]
        parts = [Part(p, self.rng.choice(lanes), s / sum(shares)) for p, s in zip(policies, shares, strict=True)]  # type: ignore[arg-type]
        mix = Mix(tuple(parts), tau=self.rng.choice([0.0, 0.5, 1.0]))
        lease = self.rng.choice([0, 0, 5])
        k = self.rng.choice([1, 4, 16])
        drawn = self.table.draw(
            mix, k, seed=self.rng.randrange(2**31), alpha=self.rng.choice([0, 0.6, 1]), lease_s=lease
        )
        if not isinstance(drawn, Draw):
            return
        batch = self.table.fetch(drawn)
        assert all(0 < r.p <= 1 + 1e-9 and r.p >= drawn.least_p * (1 - 1e-9) for r in drawn.records)
        for found in batch.samples:
            if found is not None:
                assert found.customer not in self.erased
        self.handles += list(batch.handles)

    def update(self) -> None:
        """Train some drawn handles, fresh ones and stale ones; sometimes the same step twice."""
        if not self.handles:
            return
        chosen = self.rng.sample(self.handles, min(len(self.handles), 8))
        self.step += self.rng.choice([0, 1])
        priorities = [2 ** self.rng.uniform(-12, 7) for _ in chosen]
        for _ in range(self.rng.choice([1, 1, 2])):
            report = self.table.update(chosen, priorities, run=1, step=self.step)
            assert report.applied + report.stale == len(chosen)
        self.handles = self.handles[-60:]

    def tick(self) -> None:
        """Time passes."""
        self.now += self.rng.choice([1, 3, 8])
        self.client.hset("{rb:train}:cfg", "clock", self.now)

    def sweep(self) -> None:
        """Housekeeping until nothing is left to do."""
        for _ in range(20):
            self.table.sweep(50)

    def erase(self) -> None:
        """A customer is forgotten."""
        customer = f"k1:{self.rng.randrange(60)}"
        receipt = erase([self.table], [self.table.customer_digest(customer)])
        assert all(t.left == 0 for t in receipt.tables)
        self.erased.add(customer)

    def annotate(self) -> None:
        """A late rating of some reply."""
        if not self.sent:
            return
        _, items = self.rng.choice(self.sent)
        i = self.rng.randrange(10_000)
        note = Annotation(
            feedback_id=f"f{i}",
            conversation="x",
            targets=(items[0].event_ids[1],),
            label="bad",
            weight=0.5,
            received_at=1,
        )
        self.tables().annotate(note)

    def tables(self) -> Tables:
        """The table four times over, for operations of all tables."""
        config = ReplayConfig()
        return Tables(self.client, KEY, "ep", config, self.table, self.table, self.table, self.table)

    def replace(self) -> None:
        """Personal data was found late in a sample: made again, it takes the place of the stored one, or of none."""
        if not self.sent:
            return
        _, items = self.rng.choice(self.sent)
        old = self.rng.choice(items)
        name, kind, number = old.sample_id.rsplit("/", 2)
        digest = sample_digest(old, KEY)
        again = msgspec.structs.replace(old, sample_id=f"{name}/{kind}/{int(number) + 1}", replaces=digest.hex())
        source = Offset("examples", 0, len(self.sent))
        self.sent.append((source, (again,)))
        (stored,) = self.table.samples([digest])
        if self.store([again], source).letters == "i":
            assert stored is not None, (self.seed, again)
            assert self.table.samples([digest]) == [None], (self.seed, again)
            self.stored.add(again.sample_id)

    def retire(self) -> None:
        """A superseded sample leaves."""
        if self.sent:
            _, items = self.rng.choice(self.sent)
            self.table.retire([sample_digest(items[0], KEY)], "superseded")

    def relane(self) -> None:
        """A sample moves to the quarantine lane."""
        if self.sent:
            _, items = self.rng.choice(self.sent)
            self.table.relane([sample_digest(items[0], KEY)], "quarantine")

    def expire(self) -> None:
        """Redis expires overdue buckets by itself, index or no index."""
        for raw in self.client.hkeys("{rb:train}:bk"):
            bucket = text(raw)
            if bucket != "x" and (int(bucket) + 1) * BUCKET_S + TTL_S <= self.now:
                self.client.delete("{rb:train}:d:" + bucket)

    def resize(self) -> None:
        """An operator lowers or restores a quota; sweeps step it down."""
        fifo = Quota(self.rng.choice([10, 25]), "fifo")
        quotas = {**QUOTAS, "*": fifo, "res": Quota(self.rng.choice([5, 12]), "reservoir", fresh_items=9)}
        self.config = TableConfig(**{**{f: getattr(SMALL, f) for f in SMALL.__dataclass_fields__}, "quotas": quotas})
        self.table = self.open()
        self.sweep()

    def flush_scripts(self) -> None:
        """Somebody runs SCRIPT FLUSH."""
        self.client.script_flush()
