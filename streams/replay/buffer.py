"""One table of the replay buffer on a blocking client: every operation is one script, repeatable when it timed out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import redis

from streams.events import Sample
from streams.replay.carrier import Carrier
from streams.replay.codec import Coder
from streams.replay.mix import Mix
from streams.replay.offsets import Offset
from streams.replay.operations import Limits, Operations
from streams.replay.shapes import NO_TTL, Batch, Draw, Handle, InsertReport, SweepReport, UpdateReport, Wait

__all__ = ["Limits", "ReplayBuffer"]


class ReplayBuffer:
    """A table: insert, draw, fetch, update, retire. Made by `open_table`, which has checked server and settings."""

    def __init__(
        self, client: redis.Redis, table: str, limits: Limits, key: bytes, epoch: str, *, compress: bool = True
    ) -> None:
        self.client = client
        self.operations = Operations(table, limits, Coder(key, compress=compress), epoch)
        self.table, self.limits = table, limits
        self.prefix, self.kind = self.operations.prefix, self.operations.kind
        self._carrier = Carrier(client, self.prefix)
        self._run, self.usage = self._carrier.now, self._carrier.usage
        self._page = 0

    def insert(self, items: Sequence[Sample], source: Sequence[Offset] | None = None) -> InsertReport:
        """Store samples once; those of one offset enter or are refused together, with their ledger entries.

        `source[i]` is the Kafka place of sample i, samples of one offset side by side. Raises ValueError for a sample
        of another split or more than 64 samples on one offset, `ServerFull` when nothing has happened, redis.RedisError
        when a script may or may not have run: repeat it.
        """
        report: InsertReport = self._run(self.operations.insert(items, source))
        return report

    def draw(
        self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0, purpose: str = "train"
    ) -> Draw | Wait:
        """Draw `k` samples by name; the same seed on the same state draws the same.

        Raises ReplayError on a held-out table without `purpose="eval"`.
        """
        answer: Draw | Wait = self._run(
            self.operations.draw(mix, k, seed=seed, alpha=alpha, lease_s=lease_s, purpose=purpose)
        )
        return answer

    def fetch(self, draw: Draw) -> Batch:
        """The samples of a draw, in one round trip; None where one left in between."""
        return self.usage.took(self._run(self.operations.fetch(draw)))

    def sample(
        self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0, purpose: str = "train"
    ) -> tuple[Draw, Batch] | Wait:
        """`draw` and `fetch` in one round trip, of one moment: nothing can leave in between. Raises as `draw`."""
        answer: tuple[Draw, Batch] | Wait = self._run(
            self.operations.draw(mix, k, seed=seed, alpha=alpha, lease_s=lease_s, purpose=purpose, payloads=True)
        )
        if not isinstance(answer, Wait):
            self.usage.took(answer[1])
        return answer

    def update(self, handles: Sequence[Handle], priorities: Sequence[float], *, run: int, step: int) -> UpdateReport:
        """Book that (run, step) trained these handles, and set their priorities; repeating it changes nothing.

        A lease ends by its holder's update only. Raises ValueError unless every priority is finite and above 0.
        """
        report: UpdateReport = self._run(self.operations.update(handles, priorities, run=run, step=step))
        return report

    def retire(self, digests: Sequence[bytes], reason: str) -> int:
        """Remove superseded or poisoned samples from every index; returns how many were there."""
        return int(self._run(self.operations.retire(digests, reason)))

    def relane(self, digests: Sequence[bytes], lane: str) -> int:
        """Move samples to another lane (quarantine and back) while it has room; returns how many moved."""
        return int(self._run(self.operations.relane(digests, lane)))

    def erase_chunk(self, customer: bytes) -> tuple[bytes, int]:
        """Delete some of the customer's samples: packed rows of what left, and how many are still there."""
        chunk: tuple[bytes, int] = self._run(self.operations.erase(customer))
        return chunk

    def sweep(self, budget_ms: float = 5.0) -> SweepReport:
        """Housekeeping in bounded pieces until `budget_ms` of server time is used or a round has passed."""
        self._page, report = self._run(self.operations.sweep(self._page, budget_ms))
        done: SweepReport = report
        return done

    def customer_digest(self, customer: str) -> bytes:
        """The eight bytes under which this buffer files a customer's pseudonym."""
        return self.operations.coder.customer_digest(customer)

    def read(self, wanted: Sequence[tuple[bytes, int]]) -> list[Sample | None]:
        """Stored samples by digest and bucket, None where one left; what cannot be read is retired."""
        samples: list[Sample | None] = self._run(self.operations.read(wanted))[0]
        return samples

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
