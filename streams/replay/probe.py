"""Checks a table while others write to it: piece by piece, each piece as Redis holds it at one moment.

What no single moment shows is left to `audit` on a table at rest: that a queue misses no sample (I6), that no free slot
is listed twice (I5), and sums over all records (I3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from streams.replay.audit import PAGE, Violation
from streams.replay.buffer import ReplayBuffer
from streams.replay.carrier import Carrier
from streams.replay.operations import Script, Steps

PIECE = 128
"""Records, cells or free slots that one script looks at: about a millisecond."""

LANES = 16
"""Lanes whose counts one script compares, as in the script."""

Piece = tuple[str | int, ...]


class Probe:
    """An endless walk over one table; `walks` counts how often it came round."""

    def __init__(self, table: ReplayBuffer) -> None:
        self.table = table
        self.walks = 0
        self._run = Carrier(table.client, table.prefix).now
        self._excess: dict[str, int] = {}
        self._pieces = self._walk()

    def step(self) -> list[Violation]:
        """What the next piece shows broken; nothing at the end of a walk. Raises redis.RedisError."""
        try:
            piece = next(self._pieces, None)
        except redis.RedisError:
            self._pieces = self._walk()
            raise
        if piece is not None:
            return [Violation(*pair) for pair in self._ask(*piece)]
        self.walks += 1
        self._pieces = self._walk()
        return self._limits()

    def _limits(self) -> list[Violation]:
        """What is above its limit while nothing has come down since the last walk: sweeps go lane by lane (I6, I7)."""
        before, self._excess = self._excess, {what: int(amount) for what, amount in self._ask("limits")}
        broken = []
        for name, queues in (("I6", True), ("I7", False)):
            above, was = (
                {what: amount for what, amount in excess.items() if what.startswith("queue") is queues}
                for excess in (self._excess, before)
            )
            if was and sum(above.values()) >= sum(was.values()):
                broken += [Violation(name, f"{what}: {amount} above the limit") for what, amount in above.items()]
        return broken

    def _ask(self, *piece: str | int) -> list[tuple[str, str]]:
        names = [raw.decode() for raw in self._run(_asked(piece))]
        return list(zip(names[::2], names[1::2], strict=True))

    def _walk(self) -> Iterator[Piece]:
        """Every piece of the table, as big as it is when the walk comes there."""
        client, prefix = self.table.client, self.table.prefix
        yield ("sums",)
        lanes = client.hlen(f"{prefix}:lanes")
        for first in range(0, lanes, LANES):
            yield "lanes", first
        for page in range(-(-self._counter("hi") // PAGE)):
            for first in range(0, PAGE, PIECE):
                yield "records", page * PAGE + first, min(PIECE, PAGE - first)
        for lane in range(lanes):
            counts: Any = client.get(f"{prefix}:bc:{lane}") or b""
            for number in range(len(counts) // 4):
                for first in range(0, int.from_bytes(counts[number * 4 : number * 4 + 4]), PIECE):
                    yield "cells", lane, number, first, PIECE
        for first in range(0, client.llen(f"{prefix}:free"), PIECE):
            yield "free", first, PIECE

    def _counter(self, name: str) -> int:
        return int(self.table.client.hget(f"{self.table.prefix}:n", name) or 0)


def _asked(piece: Piece) -> Steps:
    return (yield Script("probe", piece))
