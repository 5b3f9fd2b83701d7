"""Loss cannot count itself: acknowledged offsets are compared with those whose effect Redis knows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping

LOOK_EVERY_S = 60.0
"""Between two looks, seconds."""

LOOKS = 10
"""Looks after which an acknowledged offset without an effect is unaccounted: ten minutes."""

Place = tuple[str, int]
"""Topic and partition."""


class Unaccounted:
    """Remembers how far a worker was ten minutes ago, and asks how far the effects reach."""

    def __init__(self, effects_to: Callable[[str, int], int]) -> None:
        self._effects_to = effects_to
        self._past: deque[Mapping[Place, int]] = deque(maxlen=LOOKS)
        self._deleted: Counter[str] = Counter()

    def deleted(self, topic: str, records: int) -> None:
        """Records that the broker deleted before they were read are never accounted for."""
        self._deleted[topic] += records

    def look(self, done: Mapping[Place, int]) -> dict[str, int]:
        """Unaccounted events by topic, at most; `done` is what is acknowledged of the partitions owned now."""
        then = self._past[0] if len(self._past) == LOOKS else {}
        self._past.append(dict(done))
        found = Counter(dict.fromkeys((topic for topic, _ in done), 0))
        for place, acknowledged in then.items():
            if place in done:
                found[place[0]] += max(0, acknowledged - self._effects_to(*place))
        for topic, records in self._deleted.items():
            found[topic] += records
        return dict(found)
