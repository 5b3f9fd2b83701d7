"""Simulated support traffic: `driftline simulate` and what the demo, the base model's script and the tests draw from.

- `conversations(seed, count)`: chats of the live shops, with ground truth
- `base_conversations(seed, count)`: what the base model learns from: other shops, random policies
- `traffic(seed, count, rate)`: the same chats as records of chats.raw, with everything that goes wrong
- `facts()`: policies that change: how to ask for them, what an answer states
- `reaction(question, answer, truth, rng)`: what a customer thinks of an answer
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

from services.simulation.dialogue import Conversation, Planted, base_conversations, conversations
from services.simulation.grammar import BASE, LIVE
from services.simulation.policy import Fact, facts
from services.simulation.reaction import Reaction, Truth, reaction, suits
from services.simulation.traffic import Mix, Record, traffic

if TYPE_CHECKING:
    from services.settings import Settings

__all__ = [
    "BASE", "LIVE", "Conversation", "Fact", "Mix", "Planted", "Reaction", "Record", "Truth", "base_conversations",
    "conversations", "facts", "reaction", "suits", "traffic",
]  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `driftline simulate`."""
    parser.add_argument("--out", type=Path, help="traffic JSONL; .gz compresses it (default: standard output)")
    parser.add_argument("--truth", type=Path, help="what is true of the records, as JSONL")
    parser.add_argument("--count", type=int, default=1000, help="number of chats (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same traffic")
    parser.add_argument("--rate", type=float, default=20.0, help="mean records a second in the stream's own time")
    parser.add_argument("--shop", action="append", choices=BASE + LIVE, help="only these shops; may be repeated")
    parser.add_argument(
        "--change-at", type=float, metavar="SHARE", help="policies change after this share of the chats"
    )


def run(args: argparse.Namespace, _settings: Settings) -> int:
    """Write traffic and truth; the number of records goes to standard error."""
    if args.count < 1 or args.rate <= 0:
        sys.stderr.write("simulate: --count must be at least 1 and --rate above 0\n")
        return 2
    changed = facts() if args.change_at is not None else None
    records = traffic(args.seed, args.count, args.rate, facts=changed, shops=args.shop, changes_at=args.change_at or 0)
    written = 0
    with ExitStack() as stack:
        out = stack.enter_context(_open(args.out)) if args.out else sys.stdout
        truth = stack.enter_context(_open(args.truth)) if args.truth else None
        for record in records:
            out.write(record.line() + "\n")
            written += 1
            if truth:
                truth.writelines(json.dumps(fact, ensure_ascii=False) + "\n" for fact in record.truth)
    sys.stderr.write(f"{written} records of {args.count} chats\n")
    return 0


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8")
