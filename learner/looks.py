"""When the gate is asked: seldom, since each look spends error budget, and only when fresh chats suggest a gain.

The prequential loss (on fresh chats, before training on them) is free and unbiased. A gain is suggested when its
newest window lies more than a standard error below any window since the last look: below the last one when the line
still learns, below the peak when a new topic came and is being learned. On a stationary stream the gate is left alone
until `decide_latest`, since small gains add up unseen.

A line whose customers shall have what was learned in time asks by the clock as well (`offer_within_s`): half of that
time after the oldest step that no candidate holds, once nothing more waits to be learned, and then at the latest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, variance
from typing import Any

from learner.config import TrainConfig

AGAIN_S = 2.0
"""Pause before the gate is asked again that had too few examples to look, seconds."""

HELD_UP = 4
"""Multiples of `offer_within_s` after which a version that has reached nobody holds the next one up no longer."""


class Looks:
    """One line's windows of `decide_every` steps."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._open: list[float] = []
        self._windows: list[list[float]] = []
        """Since the last look, the window before it first."""
        self._since = 0
        self._oldest: float | None = None
        """When the oldest step was taken that no candidate holds."""
        self._not_before = 0.0
        self._unproven = 0
        """Candidates in a row that did not become a version."""

    def observe(self, loss: float | None, now: float) -> None:
        """Take in the prequential loss of a step, None where it had no fresh chat."""
        self.stepped(now)
        self._since += 1
        if loss is not None:
            self._open.append(loss)

    def due(self, step: int) -> bool:
        """Whether to look after this step; a look begins anew."""
        if step % self._config.decide_every:
            return False
        newest, self._open = self._open, []
        late = self._since >= self._config.decide_latest
        look = late or not self._windows or any(_fell(window, newest) for window in self._windows)
        self._windows = [newest] if look else [*self._windows, newest]
        self._since = 0 if look else self._since
        return look

    def stepped(self, now: float) -> None:
        """There is something that no candidate holds."""
        self._oldest = now if self._oldest is None else self._oldest

    def offered(self) -> None:
        """A candidate holds everything."""
        self._oldest = None

    def published(self) -> None:
        """The newest candidate became a version."""
        self._unproven = 0

    def unproven(self, now: float) -> None:
        """It did not, so what it holds still waits: the pause before the next look doubles each time."""
        self._unproven += 1
        self._oldest = now - HELD_UP * self._config.offer_within_s
        self._not_before = now + self._config.offer_within_s / 8 * 2**self._unproven

    def postponed(self, now: float) -> None:
        """The gate could not look at it: it is asked again soon."""
        self._oldest, self._not_before = now - HELD_UP * self._config.offer_within_s, now + AGAIN_S

    def overdue(self, now: float, *, backlog: bool, held_up: bool) -> bool:
        """Whether to look by the clock; `held_up`: the version before has not reached a customer yet."""
        within = self._config.offer_within_s
        if not within or self._oldest is None or now < self._not_before:
            return False
        age = now - self._oldest
        return age >= (HELD_UP * within if held_up else within if backlog else within / 2)

    def clear(self) -> None:
        """The trajectory starts again: its next window is looked at."""
        self._open, self._windows, self._since, self._oldest = [], [], 0, None

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        return {"open": self._open, "windows": self._windows, "since": self._since}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._open, self._since = list(state["open"]), state["since"]
        self._windows = [list(window) for window in state["windows"]]


def _fell(before: list[float], after: list[float]) -> bool:
    """Whether the mean fell by more than the standard error of the difference; windows of one reading say yes."""
    if min(len(before), len(after)) <= 1:
        return True
    error = math.sqrt(variance(before) / len(before) + variance(after) / len(after))
    return fmean(before) - fmean(after) > error
