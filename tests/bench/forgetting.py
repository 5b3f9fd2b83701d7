"""What old domains lose while new ones are learned: `driftline bench forgetting [--data DIR] [--domains N]`.

Each row trains the same domains one after the other from the demo's base and differs in its mix or in averaging;
`of joint` is the share of the gain that training on the shuffled union reaches with the same tokens. Canned replies
exaggerate: this is no claim about a 7B model.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from learner.adapter import Tree
from tests.bench._course import Chat, Course, Domain, Outcome, loss_on, run, shipped, simulated, star
from tests.bench._heading import heading, table


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    mix: tuple[float, float, float]
    average: int = 4


METHODS = (
    Method("naive", (1.0, 0.0, 0.0), 1),
    Method("naive, mean of 4", (1.0, 0.0, 0.0)),
    Method("anchors only 75/0/25", (0.75, 0.0, 0.25)),
    Method("rehearsal only 25/75/0", (0.25, 0.75, 0.0)),
    Method("25/50/25, last snapshot", (0.25, 0.5, 0.25), 1),
    Method("default: 25/50/25, mean of 4", (0.25, 0.5, 0.25)),
)


def main(argv: list[str]) -> int:
    """Print the table. Returns 0."""
    parser = argparse.ArgumentParser(prog="driftline bench forgetting", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with conv_star.jsonl.gz; without it the simulator's shops")
    parser.add_argument("--domains", type=int, default=3)
    parser.add_argument("--chats", type=int, default=160, help="fresh chats of a domain")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    base, anchors, gauge = shipped()
    domains = star(args.data, args.domains, args.chats) if args.data else simulated(args.chats)
    sys.stdout.write(heading("forgetting", argv) + "\n")
    sys.stdout.write(f"domains: {', '.join(domain.name for domain in domains)}; {args.chats} chats each\n")
    start = fmean(loss_on(Tree(base), domain.test) for domain in domains)
    joint = fmean(_joint(domains, seed) for seed in range(args.seeds))
    rows = [["method", "newest", "final", "loses", "worst", "base domain", "gauge", "of joint", "tokens"]]
    for method in METHODS:
        if args.only not in method.name:
            continue
        found = [
            run(Course(base, anchors, method.mix, average=method.average, seed=seed), base, domains, gauge)
            for seed in range(args.seeds)
        ]
        rows.append([method.name, *_cells(found, start, joint)])
    sys.stdout.write(table(rows) + f"\nbase {start:.2f}, joint {joint:.2f} nats a reply token\n")
    return 0


def _cells(found: list[Outcome], start: float, joint: float) -> list[str]:
    final = fmean(one.final for one in found)
    return [
        f"{fmean(one.newest for one in found):.2f}", f"{final:.2f}", f"{fmean(one.loses for one in found):+.2f}",
        f"{max(one.worst for one in found):+.2f}", f"{fmean(one.base_domain for one in found):+.2f}",
        f"{fmean(one.gauge for one in found):.2f}", f"{(start - final) / (start - joint):.0%}",
        f"{fmean(one.tokens for one in found) / 1000:.0f}k",
    ]  # fmt: skip


def _joint(domains: list[Domain], seed: int) -> float:
    """Final loss of training on the shuffled union with the default mix, so with the same tokens."""
    base, anchors, _ = shipped()
    union: list[Chat] = [chat for domain in domains for chat in domain.train]
    random.Random(seed).shuffle(union)
    course = Course(base, anchors, (0.25, 0.5, 0.25), seed=seed)
    for at in range(0, len(union) - 7, 8):
        course.learn(union[at : at + 8])
    return fmean(loss_on(course.tree(), domain.test) for domain in domains)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
