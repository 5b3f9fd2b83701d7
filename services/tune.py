"""`driftline tune`: search hyper-parameters on a file of chats or on live traffic, or fine-tune a base offline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.chat_files import check_chats
from services.options import natural, positive, positive_number, share
from services.preconditions import answering, given_base, writable
from services.remedies import of_file
from services.search_space import points_of, space_of

if TYPE_CHECKING:
    from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="chats in any format that ingest reads, oldest first")
    source.add_argument("--live", action="store_true", help="what enters the replay buffer from now on")
    parser.add_argument("--share", type=share, default=0.125, help="with --live: share of conversations (default: 1/8)")
    parser.add_argument(
        "--minutes", type=positive_number, help="with --live: end after so long though several are left"
    )
    parser.add_argument("--apply", action="store_true", help="with --live: the line goes on with the winner's settings")
    parser.add_argument("--format", help="format of the file where its name and first line do not tell")
    parser.add_argument("--base-model", type=Path, help="folder of the base (default: the configured or shipped one)")
    parser.add_argument(
        "--search", choices=("shadow", "grid", "random", "optuna"), default="shadow",
        help="shadow: neighbours of the running settings, successive halving (default)",
    )  # fmt: skip
    parser.add_argument("--space", type=json.loads, default={}, help='JSON: {"learning_rate": [1e-3, 1e-2], ...}')
    parser.add_argument("--trials", type=positive, default=8, help="members of a random search, trials of Optuna")
    parser.add_argument("--window", type=positive, default=10, help="steps between two eliminations")
    parser.add_argument("--schedule", choices=("constant", "linear", "cosine"), default="constant")
    parser.add_argument("--patience", type=natural, default=0, help="stop a trial after N steps without a better loss")
    parser.add_argument("--limit", type=positive, help="only the first N chats")
    parser.add_argument("--full", type=Path, metavar="OUT", help="fine-tune the whole base instead and write it to OUT")
    parser.add_argument("--record", type=Path, help="folder for the record of this run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Search and print the best settings. Returns 0, 1 when nothing could be learned from, 2 for bad input."""
    try:
        check(args, settings)
        from services.tuning import fine_tuned, followed, searched  # noqa: PLC0415 - loads torch, refusals must not

        work = followed if args.live else fine_tuned if args.full else searched
        found = work(args, settings)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"driftline tune: {of_file(error)}\n")
        return 2
    sys.stdout.write((json.dumps(found) if args.json else table(found)) + "\n")
    return 0 if found["chats"] else 1


def check(args: argparse.Namespace, settings: Settings) -> None:
    """Refuse what can be refused before models are loaded. Raises OSError, ValueError, RedisError, ReplayError."""
    given_base(args.base_model, settings)
    points_of(args, settings.train, space_of(args.space))
    if args.search == "optuna" and find_spec("optuna") is None:
        raise ModuleNotFoundError(name="optuna")
    if args.live:
        answering(settings)
    else:
        check_chats(args.data, args.format)
    if args.record:
        writable(args.record, "--record")
    if args.full:
        writable(args.full, "--full")


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
    if "applied" in found:
        lines.append(f"moved to line {found['line']}: {json.dumps(found['applied'])}")
    return "\n".join(lines)
