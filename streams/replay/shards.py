"""One table over several servers: all of a partition's events on one, draws from all, erasures on each.

Every server is a whole of its own: it holds offset bitmaps and ledger of its partitions, so `resume_offset` asks one
server and a script's writes stay together. A server that is away is left out of draws and named by erasures.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import redis

from streams.events import Sample
from streams.replay.buffer import ReplayBuffer
from streams.replay.erasure import erase, rewrite_aof
from streams.replay.figures import stats
from streams.replay.mix import Mix
from streams.replay.offsets import Offset
from streams.replay.shapes import Batch, Draw, ErasureReceipt, Handle, InsertReport, UpdateReport, Wait


@dataclass(frozen=True)
class ShardDraw:
    """Draws of several shards as one batch: (shard, draw, weight); the weight is the shard's expected share."""

    parts: tuple[tuple[int, Draw, float], ...]
    down: tuple[int, ...] = ()
    """Shards that did not answer."""

    @property
    def least_p(self) -> float:
        """Smallest probability of any item of the shards drawn from."""
        return min(draw.least_p * weight for _, draw, weight in self.parts)


class Shards:
    """The shards of one table, `<table>:0` to `<table>:S-1`, each opened on its own server."""

    def __init__(self, shards: Sequence[ReplayBuffer]) -> None:
        self.shards = tuple(shards)

    def of(self, partition: int) -> ReplayBuffer:
        """The shard that holds everything of a partition."""
        return self.shards[partition % len(self.shards)]

    def insert(self, items: Sequence[Sample], source: Sequence[Offset]) -> list[InsertReport]:
        """Store samples on the shards of their partitions; one report a shard that had any."""
        reports = []
        for shard in self.shards:
            places = [i for i, place in enumerate(source) if self.of(place.partition) is shard]
            if places:
                reports.append(shard.insert([items[i] for i in places], [source[i] for i in places]))
        return reports

    def draw(self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0) -> ShardDraw | Wait:
        """Draw k samples, spread over the shards that answer by the drawable samples in them."""
        sizes, down = self._sizes()
        total = sum(sizes.values())
        if not total:
            return Wait("empty", 0)
        rng, given, expected, parts = random.Random(seed), 0, 0.0, []
        start = rng.random()
        for number, size in sizes.items():
            expected += k * size / total
            upto = min(math.floor(expected + start + 1e-9), k) if number != max(sizes) else k
            count, given = upto - given, upto
            if count < 1:
                continue
            drawn = self.shards[number].draw(mix, count, seed=rng.randrange(2**31), alpha=alpha, lease_s=lease_s)
            if isinstance(drawn, Draw):
                parts.append((number, drawn, size / total))
        return ShardDraw(tuple(parts), down) if parts else Wait("limiter", total)

    def fetch(self, drawn: ShardDraw) -> tuple[list[tuple[int, Handle]], Batch]:
        """The samples of all parts as one batch, with the shard of each handle."""
        names: list[tuple[int, Handle]] = []
        samples: list[Sample | None] = []
        p_mix: list[float] = []
        poisoned = 0
        for number, draw, weight in drawn.parts:
            batch = self.shards[number].fetch(draw)
            names += [(number, handle) for handle in batch.handles]
            samples += batch.samples
            p_mix += [p * weight for p in batch.p_mix]
            poisoned += batch.poisoned
        return names, Batch(tuple(samples), tuple(handle for _, handle in names), tuple(p_mix), drawn.least_p, poisoned)

    def update(
        self, handles: Sequence[tuple[int, Handle]], priorities: Sequence[float], *, run: int, step: int
    ) -> UpdateReport:
        """Book a training step on every shard that the batch came from."""
        total = UpdateReport(0, 0, 0)
        for number, shard in enumerate(self.shards):
            mine = [i for i, (of, _) in enumerate(handles) if of == number]
            if mine:
                part = shard.update([handles[i][1] for i in mine], [priorities[i] for i in mine], run=run, step=step)
                total = replace(
                    total, applied=total.applied + part.applied, stale=total.stale + part.stale,
                    evicted=total.evicted + part.evicted,
                )  # fmt: skip
        return total

    def erase(self, customer: bytes) -> ErasureReceipt:
        """Erase a customer on every shard; `unreachable` names those that did not answer: repeat it then."""
        return erase(self.shards, [customer])

    def rewrite_aof(self, receipt: ErasureReceipt, stop: threading.Event) -> ErasureReceipt:
        """The receipt with the time at which the last shard's file was clean; unchanged while a shard is away."""
        done = receipt
        for shard in self.shards if not receipt.unreachable else ():
            done = rewrite_aof(shard.client, receipt, stop)
            if done.aof_rewritten_at is None:
                break
        return done

    def _sizes(self) -> tuple[dict[int, int], tuple[int, ...]]:
        """Samples that nobody holds, by shard that answers; and the shards that do not."""
        sizes, down = {}, []
        for number, shard in enumerate(self.shards):
            try:
                found = stats(shard)
            except redis.RedisError:
                down.append(number)
                continue
            free = sum(lane.fresh + lane.scored for lane in found.lanes)
            if free:
                sizes[number] = free
        return sizes, tuple(down)
