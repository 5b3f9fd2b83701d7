"""Search over hyper-parameters: grid, random, and successive halving of a population. Torch-free.

Optuna is an optional extra behind `optimise`; nothing else here needs it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from statistics import fmean
from typing import Any, Literal

Params = dict[str, Any]
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two others, uniform or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"Range low={self.low}, high={self.high}: low must be below high, above 0 if log")


Space = Mapping[str, Choice | Range]


def grid(space: Space) -> list[Params]:
    """Every combination. Raises ValueError for a range, which has no grid."""
    columns = [values.values for values in space.values() if isinstance(values, Choice)]
    if len(columns) != len(space):
        raise ValueError(f"grid: {', '.join(space)}: a range has no grid; give its values")
    return [dict(zip(space, row, strict=True)) for row in product(*columns)]


def sample(space: Space, count: int, seed: int) -> list[Params]:
    """`count` distinct points, fewer when the space is smaller; the same for the same seed."""
    draw = random.Random(seed)
    found: list[Params] = []
    for _ in range(100 * count):
        point = {name: _draw(values, draw) for name, values in space.items()}
        if point not in found:
            found.append(point)
        if len(found) == count:
            break
    return found


def neighbours(current: Params, ranks: Sequence[int] = (8, 16, 32, 64)) -> list[Params]:
    """The running point first, then half and double its learning rate, and the next larger rank."""
    rate, rank = current["learning_rate"], current["r"]
    larger = [one for one in ranks if one > rank][:1]
    return [
        current,
        {**current, "learning_rate": rate / 2},
        {**current, "learning_rate": rate * 2},
        *({**current, "r": one, "alpha": 2 * one} for one in larger),
    ]


@dataclass
class Halving:
    """Successive halving (Jamieson, Talwalkar 2016): after each window the worse part of the population leaves.

    Losses compare only within a window, since all members see the same examples there.
    """

    names: Sequence[str]
    keep: float = 0.5
    alive: list[str] = field(init=False)
    history: list[dict[str, float]] = field(default_factory=list)
    """Mean loss of each living member, by window."""
    _window: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError(f"Halving 'keep' has value {self.keep!r}: must lie between 0 and 1")
        if len(set(self.names)) != len(self.names) or not self.names:
            raise ValueError(f"Halving 'names' has {len(self.names)} entries: at least one, all different")
        self.alive = list(self.names)
        self._window = {name: [] for name in self.alive}

    def record(self, name: str, loss: float) -> None:
        """One prequential loss of a living member; a loss that is no number counts as infinite."""
        self._window[name].append(loss if math.isfinite(loss) else math.inf)

    def close(self) -> list[str]:
        """End the window: the best part stays, in order of loss, at least one. Returns those that leave."""
        means = {name: fmean(losses) if losses else math.inf for name, losses in self._window.items()}
        self.history.append(means)
        ranked = sorted(self.alive, key=lambda name: means[name])
        stay = max(math.ceil(len(ranked) * self.keep), 1)
        self.alive, gone = ranked[:stay], ranked[stay:]
        self._window = {name: [] for name in self.alive}
        return gone

    @property
    def best(self) -> str:
        """The member that leads."""
        return self.alive[0]


@dataclass
class EarlyStop:
    """Says stop when a loss has not improved by `least` for `patience` readings."""

    patience: int = 5
    least: float = 0.002
    best: float = math.inf
    waited: int = 0

    def observe(self, loss: float) -> bool:
        """Take in a reading; whether to stop now."""
        if loss < self.best - self.least:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def rate_factor(schedule: Schedule, done: float) -> float:
    """Factor on the learning rate at `done` (0..1) of a finite run; endless streams stay constant."""
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1.0


def optimise(objective: Callable[[Params], float], space: Space, trials: int, seed: int) -> Params:
    """The best point that Optuna's TPE finds. Raises ImportError without the extra `tune`."""
    optuna = import_module("optuna")

    def run(trial: Any) -> float:
        return objective({name: _suggest(trial, name, values) for name, values in space.items()})

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(run, n_trials=trials)
    best: Params = study.best_params
    return best


def _suggest(trial: Any, name: str, values: Choice | Range) -> Any:
    if isinstance(values, Choice):
        return trial.suggest_categorical(name, list(values.values))
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def _draw(values: Choice | Range, draw: random.Random) -> Any:
    if isinstance(values, Choice):
        return draw.choice(values.values)
    if values.log:
        return math.exp(draw.uniform(math.log(values.low), math.log(values.high)))
    return draw.uniform(values.low, values.high)
