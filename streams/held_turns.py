"""Turns that scrub holds for the next one: in memory only, unacknowledged, so that a crash reads them again.

A turn that may be a piece of a value is judged with the turn behind it, or alone when none comes in time. The records
behind it in its partition go on; their offsets wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streams.lanes import Incoming
from streams.outbox import Hold


@dataclass(frozen=True)
class Kept:
    """One held turn."""

    turn: Any
    """As the scrubber holds it in a conversation's state."""
    record: Incoming
    hold: Hold
    since: float


class HeldTurns:
    """By conversation, at most one; written by the stage's thread, revoked from any."""

    def __init__(self, hold_s: float, clock: Callable[[], float]) -> None:
        self._hold_s = hold_s
        self._clock = clock
        self._revoked: deque[int] = deque()
        self._gone: list[Hold] = []
        self.kept: dict[str, Kept] = {}

    @property
    def waiting(self) -> int:
        """Turns that are held, and holds that nobody has freed yet."""
        return len(self.kept) + len(self._gone)

    def keep(self, turn: Any, record: Incoming) -> Kept:
        """A turn that is held from now on; the caller files it under its conversation."""
        return Kept(turn, record, Hold(), self._clock())

    def due(self, *, everything: bool) -> list[str]:
        """Conversations whose turn has waited long enough, or all."""
        now = self._clock()
        return [name for name, kept in self.kept.items() if everything or now - kept.since >= self._hold_s]

    def revoke(self, partition: int) -> None:
        """Another worker reads this partition now, and with it its held turns."""
        self._revoked.append(partition)

    def gone(self) -> tuple[Hold, ...]:
        """What the records of revoked partitions are held by, until `told` says that it was passed on."""
        while self._revoked:
            partition = self._revoked.popleft()
            names = [name for name, kept in self.kept.items() if kept.record.partition == partition]
            self._gone += [self.kept.pop(name).hold for name in names]
        return tuple(self._gone)

    def told(self) -> None:
        """They were freed."""
        self._gone.clear()
