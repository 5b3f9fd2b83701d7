"""What `driftline tune` tries, from its command line; torch-free, so that an odd space is refused at once."""

from __future__ import annotations

import argparse

from learner import search
from learner.config import TrainConfig
from learner.search import Choice, Params, Range, Space


def points_of(args: argparse.Namespace, config: TrainConfig, space: Space) -> list[Params]:
    """The members of the population. Raises ValueError for an empty space."""
    if args.search == "shadow":
        return search.neighbours({"learning_rate": config.learning_rate, "r": config.r, "alpha": config.alpha})
    if not space:
        raise ValueError("--space is empty: name at least one setting with its values")
    return search.grid(space) if args.search == "grid" else search.sample(space, args.trials, config.seed)


def space_of(given: object) -> Space:
    """Lists are choices; an object with low, high and log is a range. Raises ValueError for anything else."""
    if isinstance(given, dict):
        return {name: _values(name, values) for name, values in given.items()}
    raise ValueError(f"--space is {given!r}: wants an object of settings with their values")


def _values(name: str, given: object) -> Choice | Range:
    if isinstance(given, list) and given and all(map(_is_number, given)):
        return Choice(tuple(given))
    ends = isinstance(given, dict) and {"low", "high"} <= set(given) <= {"low", "high", "log"}
    if isinstance(given, dict) and ends and _is_number(given["low"]) and _is_number(given["high"]):
        return Range(given["low"], given["high"], bool(given.get("log")))
    raise ValueError(f"--space {name!r} has value {given!r}: wants a list of numbers, or an object with low, high, log")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
