"""The table of `buffer.py` for a process that runs on asyncio: the same operations, scripts and codec, awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streams.events import Sample
from streams.replay.carrier import Carrier
from streams.replay.mix import Mix
from streams.replay.offsets import Offset
from streams.replay.shapes import Batch, Draw, Handle, InsertReport, SweepReport, UpdateReport, Wait

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from streams.replay.buffer import ReplayBuffer


class AsyncReplayBuffer:
    """The twin of an opened table: `AsyncReplayBuffer(open_table(...), client)`; each method is its namesake's."""

    def __init__(self, opened: ReplayBuffer, client: Redis) -> None:
        self.client = client
        self.operations = opened.operations
        self._carrier = Carrier(client, self.operations.prefix)
        self._run, self.usage = self._carrier.run, self._carrier.usage
        self._page = 0

    async def insert(self, items: Sequence[Sample], source: Sequence[Offset] | None = None) -> InsertReport:
        """Store samples once, with their ledger entries."""
        report: InsertReport = await self._run(self.operations.insert(items, source))
        return report

    async def draw(
        self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0, purpose: str = "train"
    ) -> Draw | Wait:
        """Draw `k` samples by name."""
        steps = self.operations.draw(mix, k, seed=seed, alpha=alpha, lease_s=lease_s, purpose=purpose)
        answer: Draw | Wait = await self._run(steps)
        return answer

    async def fetch(self, draw: Draw) -> Batch:
        """The samples of a draw."""
        return self.usage.took(await self._run(self.operations.fetch(draw)))

    async def sample(
        self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0, purpose: str = "train"
    ) -> tuple[Draw, Batch] | Wait:
        """`draw` and `fetch` in one round trip."""
        steps = self.operations.draw(mix, k, seed=seed, alpha=alpha, lease_s=lease_s, purpose=purpose, payloads=True)
        answer: tuple[Draw, Batch] | Wait = await self._run(steps)
        if not isinstance(answer, Wait):
            self.usage.took(answer[1])
        return answer

    async def update(
        self, handles: Sequence[Handle], priorities: Sequence[float], *, run: int, step: int
    ) -> UpdateReport:
        """Book that (run, step) trained these handles, and set their priorities."""
        report: UpdateReport = await self._run(self.operations.update(handles, priorities, run=run, step=step))
        return report

    async def retire(self, digests: Sequence[bytes], reason: str) -> int:
        """Remove superseded or poisoned samples from every index; returns how many were there."""
        return int(await self._run(self.operations.retire(digests, reason)))

    async def sweep(self, budget_ms: float = 5.0) -> SweepReport:
        """Housekeeping in bounded pieces."""
        self._page, report = await self._run(self.operations.sweep(self._page, budget_ms))
        done: SweepReport = report
        return done
