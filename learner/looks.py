"""When the gate is asked: seldom, since each look spends error budget, and only when fresh chats suggest a gain.

The prequential loss (on fresh chats, before training on them) is free and unbiased. A gain is suggested when its
newest window lies more than a standard error below any window since the last look: below the last one when the line
still learns, below the peak when a new topic came and is being learned. On a stationary stream the gate is left alone
until `decide_latest`, since small gains add up unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, variance
from typing import Any

from learner.config import TrainConfig


class Looks:
    """One line's windows of `decide_every` steps."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._open: list[float] = []
        self._windows: list[list[float]] = []
        """Since the last look, the window before it first."""
        self._since = 0

    def observe(self, loss: float | None) -> None:
        """Take in the prequential loss of a step, None where it had no fresh chat."""
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

    def clear(self) -> None:
        """The trajectory starts again: its next window is looked at."""
        self._open, self._windows, self._since = [], [], 0

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
