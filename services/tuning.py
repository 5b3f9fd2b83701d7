"""The part of `driftline tune` that loads models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from learner import search
from learner.adapter import load_base
from learner.config import TrainConfig
from learner.full import FullConfig, fine_tune
from learner.records import Records
from learner.search import Choice, EarlyStop, Params, Range, Space
from learner.tune import Budget, exhaust, halve
from services.chat_files import read_chats
from services.node.process import base_folder

if TYPE_CHECKING:
    from services.settings import Settings

HELD_SHARE = 10
"""Every tenth chat is kept back when a whole base is fine-tuned."""


def searched(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Run the search that was asked for and record it. Raises OSError, ValueError, ImportError (Optuna)."""
    torch.set_num_threads(settings.train.threads)
    chats = read_chats(args.data, args.format, scrubbed=True)[: args.limit]
    base = load_base(args.base_model or base_folder(settings.train.base))
    config, space = settings.train, space_of(args.space)
    budget = Budget(fresh=config.fresh_batch, window=args.window, schedule=args.schedule, seed=config.seed)
    found: dict[str, Any] = {
        "data": args.data.name, "chats": len(chats), "search": args.search, "schedule": args.schedule,
    }  # fmt: skip
    if args.search == "optuna":

        def objective(point: Params) -> float:
            stop = EarlyStop(args.patience) if args.patience else None
            return exhaust(base, config, point, chats, budget, stop=stop)

        found["best"] = search.optimise(objective, space, args.trials, config.seed)
    else:
        points = points_of(args, config, space)
        told = _progress(-(-len(chats) // budget.fresh), quiet=args.json)
        found |= halve(base, config, points, chats, budget, told=told).to_object()
    _recorded(args, found)
    return found


def fine_tuned(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Fine-tune a whole base on nine of ten chats, judged on the tenth. Raises OSError, ValueError."""
    torch.set_num_threads(settings.train.threads)
    chats = read_chats(args.data, args.format, scrubbed=True)[: args.limit]
    source = args.base_model or base_folder(settings.train.base)
    train = [chat for at, chat in enumerate(chats) if at % HELD_SHARE]
    config = replace(FullConfig(), learning_rate=settings.train.learning_rate / 10, patience=args.patience or 2)
    losses = fine_tune(source, args.full, train, chats[::HELD_SHARE], config)
    found = {
        "data": args.data.name, "chats": len(chats), "search": "full", "base": str(args.full), "held_out": losses,
    }  # fmt: skip
    _recorded(args, found)
    return found


def points_of(args: argparse.Namespace, config: TrainConfig, space: Space) -> list[Params]:
    """The members of the population. Raises ValueError for an empty space."""
    if args.search == "shadow":
        return search.neighbours({"learning_rate": config.learning_rate, "r": config.r, "alpha": config.alpha})
    if not space:
        raise ValueError("--space is empty: name at least one setting with its values")
    return search.grid(space) if args.search == "grid" else search.sample(space, args.trials, config.seed)


def space_of(given: Mapping[str, Any]) -> Space:
    """Lists are choices; an object with low, high and log is a range."""
    return {
        name: Range(**values) if isinstance(values, dict) else Choice(tuple(values)) for name, values in given.items()
    }


def _recorded(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    if args.record:
        Records(args.record).run(f"tune-{args.data.name.split('.')[0]}-{found['search']}", found)


def _progress(steps: int, *, quiet: bool) -> Any:  # a callback for halve
    def told(step: int, losses: Mapping[str, float]) -> None:
        if not quiet:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            sys.stderr.write(f"step {step + 1}/{steps}  {shown}\n")

    return told
