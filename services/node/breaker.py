"""Gives up on a version that keeps failing, without Kafka and without the controller."""

from __future__ import annotations

import threading
from collections import deque


class Breaker:
    """Remembers the last `window` answers of each version; `limit` bad ones among them open it."""

    def __init__(self, window: int, limit: int) -> None:
        self._window = window
        self._limit = limit
        self._lock = threading.Lock()
        self._answers: dict[str, deque[bool]] = {}

    def note(self, version: str, *, good: bool) -> bool:
        """Take in one answer; True when it opens the breaker."""
        with self._lock:
            answers = self._answers.setdefault(version, deque(maxlen=self._window))
            answers.append(good)
            return answers.count(False) >= self._limit

    def forget(self, version: str) -> None:
        """The version is gone, or starts afresh."""
        with self._lock:
            self._answers.pop(version, None)
