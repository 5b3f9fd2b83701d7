"""Which samples a mini-batch is made of, how likely each was, and the weights that undo it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

DrawPolicy = Literal["fresh", "prio", "uniform", "recent"]

LOWEST_BIN, HIGHEST_BIN = 1, 62
_EDGES = tuple(2.0 ** ((number - 40.5) / 4) for number in range(LOWEST_BIN + 1, HIGHEST_BIN + 1))
"""Least priority of each bin above the lowest."""


@dataclass(frozen=True)
class Part:
    """One component of a mix: how, from which lanes, and what share of the batch."""

    policy: DrawPolicy
    """fresh: never trained, each once. prio: by priority. uniform: all alike. recent: the lanes' newest."""
    lanes: str | tuple[str, ...]
    """A lane, several, or `*` for all but `anchor` and `quarantine`."""
    share: float

    def wire(self) -> list[object]:
        """As the script reads it."""
        lanes = self.lanes if self.lanes == "*" or isinstance(self.lanes, tuple) else (self.lanes,)
        return [self.policy, float(self.share), lanes]


@dataclass(frozen=True)
class Mix:
    """Components whose shares sum to 1; `tau` spreads `*` over lanes by size^tau (1 proportional, 0 equal)."""

    parts: tuple[Part, ...]
    tau: float = 1.0

    def __post_init__(self) -> None:
        total = sum(part.share for part in self.parts)
        if any(part.share < 0 for part in self.parts) or not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of a mix sum to {total}; they must be >= 0 and sum to 1")


UNIFORM = Mix((Part("uniform", "*", 1.0),))
"""Everything in the table alike."""

DEFAULT = Mix((Part("fresh", "*", 0.25), Part("uniform", "*", 0.5), Part("uniform", "anchor", 0.25)))
"""Fresh, rehearsal and anchors, the shares that learner.md measured."""


def draw_seed(run: int, step: int, learner: str) -> int:
    """The seed of a draw, 31 bits: the same for the same run, step and learner in every process."""
    return int.from_bytes(blake2b(f"{run}|{step}|{learner}".encode(), digest_size=4).digest(), "big") & 0x7FFF_FFFF


def priority_bin(priority: float) -> int:
    """The bin of a priority, 1 to 62, a factor 2^(1/4) each; 1.0 is bin 40. Raises ValueError unless finite and > 0."""
    if not 0 < priority < math.inf:
        raise ValueError(f"priority {priority}: must be finite and above 0")
    return LOWEST_BIN + bisect_right(_EDGES, priority)


def bin_weight(number: float) -> float:
    """The priority in the middle of a bin; half a bin further is its upper edge."""
    return float(2.0 ** ((number - 40) / 4))


def importance(p_mix: Sequence[float], least_p: float, beta: float) -> list[float]:
    """Weights (1 / (N p))^beta over the largest possible one, (1 / (N least_p))^beta: at most 1, N cancels."""
    return [(least_p / p) ** beta for p in p_mix]


def effective_size(weights: Sequence[float]) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2; 0 for no samples."""
    squares = sum(w * w for w in weights)
    return sum(weights) ** 2 / squares if squares else 0.0
