"""The table of `buffer.py` for a process that runs on asyncio: the same operations, scripts and codec, awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streams.events import Sample
from streams.replay.mix import Mix
from streams.replay.offsets import Offset
from streams.replay.operations import Reads, Script, Steps
from streams.replay.scripts import SCRIPTS, full_as_error, text
from streams.replay.shapes import Batch, Draw, Handle, InsertReport, SweepReport, UpdateReport, Wait

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from streams.replay.buffer import ReplayBuffer


class AsyncReplayBuffer:
    """The twin of an opened table: `AsyncReplayBuffer(open_table(...), client)`; each method is its namesake's."""

    def __init__(self, opened: ReplayBuffer, client: Redis) -> None:
        self.client = client
        self.operations = opened.operations
        self._scripts = {name: client.register_script(text(name)) for name in SCRIPTS}
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
        batch: Batch = await self._run(self.operations.fetch(draw))
        return batch

    async def sample(
        self, mix: Mix, k: int, *, seed: int, alpha: float = 0.6, lease_s: float = 0, purpose: str = "train"
    ) -> tuple[Draw, Batch] | Wait:
        """`draw` and `fetch` in one round trip."""
        steps = self.operations.draw(mix, k, seed=seed, alpha=alpha, lease_s=lease_s, purpose=purpose, payloads=True)
        answer: tuple[Draw, Batch] | Wait = await self._run(steps)
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

    async def _run(self, steps: Steps) -> Any:
        answer = None
        while True:
            try:
                call = steps.send(answer)
            except StopIteration as done:
                return done.value
            answer = await self._execute(call)

    async def _execute(self, call: Script | Reads) -> Any:
        if isinstance(call, Script):
            with full_as_error():
                return await self._scripts[call.name](keys=[self.operations.prefix], args=call.args)
        pipe = self.client.pipeline(transaction=False)
        for command in call.commands:
            pipe.execute_command(*command)
        return await pipe.execute()
