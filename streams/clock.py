"""The clock of chats.raw: the newest timestamp of a partition, and the wall clock only while it is read to its end.

Each worker publishes the clocks of the partitions that it reads, because the conversations of one partition of
chats.raw are spread over all partitions of chats.clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import redis

SETTLE_S = 0.25
"""How long an end must stand before it is believed: a record may be under way."""


class StreamClock:
    """Clocks of all partitions of chats.raw, shared under `asm:clock`."""

    def __init__(self, client: redis.Redis, epoch: str, wall: Callable[[], float]) -> None:
        self._client = client
        self._name = f"asm:clock:{epoch}"
        self._wall = wall
        self._since: dict[tuple[str, int], float] = {}

    def publish(self, at_end: Mapping[int, bool], newest: Mapping[int, float]) -> dict[int, float]:
        """Publish the clocks of our partitions (read to their end or not, newest timestamp); returns all of them."""
        now = self._wall()
        ours = {}
        for partition, end in at_end.items():
            if self._stands("raw", partition, end=end):
                ours[partition] = now - SETTLE_S
            elif partition in newest:
                ours[partition] = newest[partition]
        pipe = self._client.pipeline(transaction=False)
        if ours:
            pipe.hset(self._name, mapping={str(partition): at for partition, at in ours.items()})
            pipe.expire(self._name, 7 * 86_400)
        pipe.hgetall(self._name)
        found = pipe.execute()[-1]
        return {int(partition): float(at) for partition, at in found.items()}

    def settled(self, partition: int, *, end: bool) -> bool:
        """Whether a partition of chats.clean has stood at its end for a moment."""
        return self._stands("clean", partition, end=end)

    def _stands(self, topic: str, partition: int, *, end: bool) -> bool:
        if not end:
            self._since.pop((topic, partition), None)
            return False
        return self._wall() - self._since.setdefault((topic, partition), self._wall()) >= SETTLE_S
