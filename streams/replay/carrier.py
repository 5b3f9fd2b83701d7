"""Carries an operation through: what it yields goes to Redis, the answers go back to it, and what it took is counted.

One loop serves both drivers: a blocking client answers at once, an asyncio client with something to wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from inspect import isawaitable
from time import perf_counter
from typing import Any

from redis.exceptions import NoScriptError

from streams.replay.operations import Reads, Script, Steps
from streams.replay.scripts import digest, full_as_error, text
from streams.replay.shapes import Batch


class Usage:
    """What one process has asked of a table, counted on its side: Redis does not know it."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, int] = defaultdict(int)
        """Round trips by script; `read` for plain commands."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """What they took, the way there and back included."""
        self.fetched = 0
        """Samples of fetched batches, missing ones too."""
        self.missing = 0
        """Those that had left or could not be read."""
        self.effective = 0.0
        """Effective sample size of the batches at beta = 1, summed: over `fetched` the share that weights leave."""

    def took(self, batch: Batch) -> Batch:
        """Count a batch that was fetched."""
        self.fetched += len(batch.samples)
        self.missing += batch.missing
        self.effective += batch.ess(1.0)
        return batch


class Carrier:
    """A client with a table's scripts; `client` is redis-py's blocking or its asyncio one."""

    def __init__(self, client: Any, prefix: str, clock: Callable[[], float] = perf_counter) -> None:
        self.usage = Usage()
        self._client, self._prefix, self._clock = client, prefix, clock

    async def run(self, steps: Steps) -> Any:
        """What the operation returns. Raises `ServerFull`, redis.RedisError, and what the operation raises."""
        answer = None
        while True:
            try:
                call = steps.send(answer)
            except StopIteration as done:
                return done.value
            name = call.name if isinstance(call, Script) else "read"
            started = self._clock()
            with full_as_error():
                answer = await self._ask(call)
            self.usage.calls[name] += 1
            self.usage.seconds[name] += self._clock() - started

    def now(self, steps: Steps) -> Any:
        """As `run`, on a blocking client: nothing is waited for, so the first step is the last."""
        return finished(self.run(steps))

    async def _ask(self, call: Script | Reads) -> Any:
        if isinstance(call, Script):
            try:
                return await _awaited(self._client.evalsha(digest(call.name), 1, self._prefix, *call.args))
            except NoScriptError:  # sent whole: loaded first, it might be flushed again before it is called
                return await _awaited(self._client.eval(text(call.name), 1, self._prefix, *call.args))
        pipe = self._client.pipeline(transaction=False)
        for command in call.commands:
            pipe.execute_command(*command)
        return await _awaited(pipe.execute())


async def _awaited(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that waits for nothing returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("an operation waited on a blocking client")
