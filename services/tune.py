"""`driftline tune`: search hyper-parameters on a file of chats, or fine-tune a whole base offline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learner.config import TrainConfig
    from learner.search import Params, Space
    from learner.tune import Budget
    from services.settings import Settings

HELD_SHARE = 10
"""Every tenth chat is kept back when a whole base is fine-tuned."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--data", type=Path, required=True, help="chats in any format that ingest reads, oldest first")
    parser.add_argument("--format", help="format of the file where its name and first line do not tell")
    parser.add_argument("--base-model", type=Path, help="folder of the base (default: the configured or shipped one)")
    parser.add_argument(
        "--search", choices=("shadow", "grid", "random", "optuna"), default="shadow",
        help="shadow: neighbours of the running settings, successive halving (default)",
    )  # fmt: skip
    parser.add_argument("--space", type=json.loads, default={}, help='JSON: {"learning_rate": [1e-3, 1e-2], ...}')
    parser.add_argument("--trials", type=int, default=8, help="members of a random search, trials of Optuna")
    parser.add_argument("--window", type=int, default=10, help="steps between two eliminations")
    parser.add_argument("--schedule", choices=("constant", "linear", "cosine"), default="constant")
    parser.add_argument("--patience", type=int, default=0, help="stop a trial after N steps without a better loss")
    parser.add_argument("--limit", type=int, help="only the first N chats")
    parser.add_argument("--full", type=Path, metavar="OUT", help="fine-tune the whole base instead and write it to OUT")
    parser.add_argument("--record", type=Path, help="folder for the record of this run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Search and print the best settings. Returns 0, 1 when nothing could be learned from, 2 for bad input."""
    from services.chat_files import read_chats  # noqa: PLC0415 - keeps --help light

    try:
        chats = read_chats(args.data, args.format, scrubbed=True)[: args.limit]
        found = _full(args, settings, chats) if args.full else _search(args, settings, chats)
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"driftline tune: {error}\n")
        return 2
    if args.record:
        from learner.records import Records  # noqa: PLC0415 - beside its only use

        Records(args.record).run(f"tune-{args.data.name.split('.')[0]}-{args.search}", found)
    sys.stdout.write((json.dumps(found) if args.json else table(found)) + "\n")
    return 0 if chats else 1


def _search(args: argparse.Namespace, settings: Settings, chats: list[Any]) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - only now is a model needed

    from learner import search  # noqa: PLC0415 - keeps --help light
    from learner.adapter import load_base  # noqa: PLC0415 - loads torch
    from learner.tune import Budget, exhaust, halve  # noqa: PLC0415 - loads torch
    from services.node.process import base_folder  # noqa: PLC0415 - the same rule as the nodes'

    torch.set_num_threads(settings.train.threads)
    base = load_base(args.base_model or base_folder(settings.train.base))
    config, space = settings.train, _space(args.space)
    budget = Budget(fresh=config.fresh_batch, window=args.window, schedule=args.schedule, seed=config.seed)
    about = {"data": args.data.name, "chats": len(chats), "search": args.search, "schedule": args.schedule}
    if args.search == "optuna":

        def objective(point: Params) -> float:
            stop = search.EarlyStop(args.patience) if args.patience else None
            return exhaust(base, config, point, chats, budget, stop=stop)

        return about | {"best": search.optimise(objective, space, args.trials, config.seed)}
    points = {
        "shadow": lambda: search.neighbours(_running(config)),
        "grid": lambda: search.grid(space),
        "random": lambda: search.sample(space, args.trials, config.seed),
    }[args.search]()
    _check(points)
    told = _progress(args, budget, len(chats))
    return about | halve(base, config, points, chats, budget, told=told).to_object()


def _full(args: argparse.Namespace, settings: Settings, chats: list[Any]) -> dict[str, Any]:
    from learner.full import FullConfig, fine_tune  # noqa: PLC0415 - loads torch
    from services.node.process import base_folder  # noqa: PLC0415 - the same rule as the nodes'

    source = args.base_model or base_folder(settings.train.base)
    held = chats[::HELD_SHARE]
    train = [chat for at, chat in enumerate(chats) if at % HELD_SHARE]
    config = replace(FullConfig(), learning_rate=settings.train.learning_rate / 10, patience=args.patience or 2)
    losses = fine_tune(source, args.full, train, held, config)
    return {"data": args.data.name, "chats": len(chats), "base": str(args.full), "held_out": losses}


def _running(config: TrainConfig) -> Params:
    return {"learning_rate": config.learning_rate, "r": config.r, "alpha": config.alpha}


def _space(given: Mapping[str, Any]) -> Space:
    """Lists are choices; {"low", "high", "log"} is a range."""
    from learner.search import Choice, Range  # noqa: PLC0415 - keeps --help light

    return {
        name: Range(**values) if isinstance(values, dict) else Choice(tuple(values)) for name, values in given.items()
    }


def _check(points: list[Params]) -> None:
    if not points or not points[0]:
        raise ValueError("--space is empty: name at least one setting with its values")


def _progress(args: argparse.Namespace, budget: Budget, chats: int) -> Any:  # a callback for halve
    steps = -(-chats // budget.fresh)

    def told(step: int, losses: Mapping[str, float]) -> None:
        if not args.json:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            sys.stderr.write(f"step {step + 1}/{steps}  {shown}\n")

    return told


def table(found: Mapping[str, Any]) -> str:
    """The result for people."""
    if "held_out" in found:
        losses = " -> ".join(f"{loss:.3f}" for loss in found["held_out"])
        return f"{found['base']}: held-out nats a token {losses}\nA new base: adapters of the old one do not fit it."
    lines = [f"best of {found['search']} on {found['chats']} chats: {json.dumps(found['best'])}"]
    for window, losses in enumerate(found.get("history", ()), start=1):
        ranked = sorted(losses.items(), key=lambda item: item[1])
        lines.append(f"  window {window}: " + "  ".join(f"{name} {loss:.3f}" for name, loss in ranked))
    for name, point in found.get("members", {}).items():
        lines.append(f"  {name}: {json.dumps(point)}")
    return "\n".join(lines)
