"""What old domains lose while new ones are learned: `driftline bench forgetting [--data DIR] [--domains N]`.

Each row trains the same domains one after the other from the demo's base and differs in its mix or in averaging;
`of joint` is the share of the gain that training on the shuffled union reaches with the same tokens, each domain
counting alike. Intervals are bootstraps over held-out chats of all seeds. Canned replies exaggerate: this is no claim
about a 7B model.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from learner.adapter import Tree
from learner.config import TrainConfig
from learner.measures import ratio_interval
from services.local.profile import up_profile
from tests.bench._course import (
    DEMO,
    Course,
    Domain,
    Held,
    Outcome,
    losses_on,
    lost_interval,
    real,
    run,
    shipped,
    simulated,
)
from tests.bench._heading import heading, table
from tests.bench._parts import Parts, Unfinished


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    mix: tuple[float, float, float]
    average: int = 4


METHODS = (
    Method("naive", (1.0, 0.0, 0.0), 1),
    Method("naive, averaged", (1.0, 0.0, 0.0)),
    Method("anchors only 75/0/25", (0.75, 0.0, 0.25)),
    Method("rehearsal only 25/75/0", (0.25, 0.75, 0.0)),
    Method("25/50/25, last snapshot", (0.25, 0.5, 0.25), 1),
    Method("default: 25/50/25, averaged", (0.25, 0.5, 0.25)),
)


def main(argv: list[str]) -> int:
    """Print the table. Returns 0, 3 when there is more to run."""
    parser = argparse.ArgumentParser(prog="driftline bench forgetting", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with conv_star.jsonl.gz; without it the simulator's shops")
    parser.add_argument("--corpora", default="star", help="files conv_<this>.jsonl.gz of the folder; * for all")
    parser.add_argument("--domains", type=int, default=3)
    parser.add_argument("--chats", type=int, default=160, help="fresh chats of a domain")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--up", action="store_true", help="the settings of `driftline up`, not one rank and rate")
    parser.add_argument("--rank", type=int, default=DEMO.r)
    parser.add_argument("--rate", type=float, default=DEMO.learning_rate, help="learning rate")
    parser.add_argument("--every", type=int, default=DEMO.snapshot_every, help="steps between snapshots")
    parser.add_argument("--fresh", type=int, help="fresh chats of a step, if not as the settings have it")
    parser.add_argument("--document", type=int, help="tokens of the longest document, if not as the settings have it")
    Parts.arguments(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        sys.stdout.write(_report(args, argv) + "\n")
    except Unfinished:
        sys.stdout.write("unfinished: the same call again goes on\n")
        return 3
    return 0


def _report(args: argparse.Namespace, argv: list[str]) -> str:
    parts = Parts(args.parts, args.most_s)
    base, anchors, gauge = shipped()
    config = replace(DEMO, r=args.rank, alpha=2 * args.rank, learning_rate=args.rate, snapshot_every=args.every)
    if args.up:
        config = TrainConfig(**up_profile(1.0)["train"])  # type: ignore[arg-type]  # as the settings read them
    config = replace(
        config,
        fresh_batch=args.fresh or config.fresh_batch,
        document_tokens=args.document or config.document_tokens,
    )
    domains = real(args.data, args.domains, args.chats, args.corpora) if args.data else simulated(args.chats)
    setting = f"{base.digests['weights_sha256'][:8]}-{args.corpora.replace('*', 'all')}-{len(domains)}x{args.chats}"
    setting += f"-r{config.r}-a{config.alpha}-{config.learning_rate:g}-{config.snapshot_every}-{config.fresh_batch}"
    setting += f"-{config.document_tokens}"
    start = [losses_on(Tree(base), domain.test) for domain in domains]

    def courses(method: Method, kind: str, learned: Sequence[Domain]) -> list[Outcome]:
        found = []
        for seed in range(args.seeds):
            average = min(method.average, config.average)
            course = Course(base, anchors, method.mix, average=average, config=config, seed=seed)
            name = f"{setting}-{kind}-{seed}"
            found.append(run(course, base, learned, gauge, batch=config.fresh_batch, parts=parts, name=name))
        return found

    joint = courses(METHODS[-1], "joint", _shuffled(domains, config.fresh_batch))
    rows = [["method", "newest", "final", "loses [95 %]", "worst", "base domain", "gauge", "of joint [95 %]", "tokens"]]
    for at, method in enumerate(METHODS):
        if args.only in method.name:
            rows.append([method.name, *_cells(courses(method, str(at), domains), start, joint)])
    return (
        f"{heading('forgetting', argv)}\ndomains: {', '.join(domain.name for domain in domains)}; "
        f"{args.chats} chats each, {args.seeds} seeds, rank {config.r}, rate {config.learning_rate:g}, "
        f"{config.fresh_batch} fresh chats a step, documents of {config.document_tokens} tokens, "
        f"mean of {config.average} snapshots {config.snapshot_every} steps apart\n"
        f"{table(rows)}\n"
        f"base {fmean(map(_mean, start)):.2f}, joint {fmean(one.final for one in joint):.2f} nats a reply token"
    )


def _cells(found: list[Outcome], start: Sequence[Sequence[Held]], joint: list[Outcome]) -> list[str]:
    lost = lost_interval(found)
    share = ratio_interval(_gains(found, start), _gains(joint, start))
    return [
        f"{fmean(one.newest for one in found):.2f}", f"{fmean(one.final for one in found):.2f}",
        f"{lost.value:+.2f} [{lost.low:+.2f}, {lost.high:+.2f}]",
        f"{max(one.worst for one in found):+.2f}", f"{fmean(one.base_domain for one in found):+.2f}",
        f"{fmean(one.gauge for one in found):.2f}",
        f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]",
        f"{fmean(one.tokens for one in found) / 1000:.0f}k",
    ]  # fmt: skip


def _gains(found: Sequence[Outcome], start: Sequence[Sequence[Held]]) -> list[float]:
    """What each held-out chat gained, as a part of its domain's mean."""
    return [
        (was - now) / sum(tokens for _, tokens in before)
        for one in found
        for before, end in zip(start, one.end, strict=True)
        for (was, _), (now, _) in zip(before, end, strict=True)
    ]


def _mean(losses: Sequence[Held]) -> float:
    return sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses)


def _shuffled(domains: Sequence[Domain], batch: int) -> list[Domain]:
    """The same chats in random order, cut where a step ends, so the same tokens; what is held out stays."""
    union = [chat for domain in domains for chat in domain.train]
    random.Random(0).shuffle(union)
    size = -(-len(union) // (len(domains) * batch)) * batch
    return [
        Domain(domain.name, tuple(union[at * size : (at + 1) * size]), domain.test) for at, domain in enumerate(domains)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
