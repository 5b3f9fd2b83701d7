"""Noise among fresh chats against the learner's own guard while a line learns: `driftline bench guard [--data DIR]`.

A fifth of the chats say noise: random letters, the words of each turn shuffled, or random words of the same chats and
of other ones. The stream's filter is off. `apart` is what waits at the end; `looking` is the share of the processor's
time that goes into spelling and order of fresh text.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from learner.adapter import Base
from learner.anchors import Anchors
from learner.batch import Document
from learner.guard import Guard
from tests.bench._course import Chat, Course, chats_of, shipped, simulated
from tests.bench._heading import heading, table
from tests.bench._parts import Parts, Unfinished

SHARE = 0.2
"""Of the chats that say noise."""

BATCH = 8

KINDS = ("letters", "shuffled", "own words", "foreign words")


def main(argv: list[str]) -> int:
    """Print the table. Returns 0, 3 when there is more to run."""
    parser = argparse.ArgumentParser(prog="driftline bench guard", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with conv_*.jsonl.gz; without it the simulator's shops")
    parser.add_argument("--corpora", default="star,taskmaster4", help="files conv_<this>.jsonl.gz, by commas")
    parser.add_argument("--steps", type=int, default=18)
    Parts.arguments(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts = Parts(args.parts, args.most_s)
    base, anchors, _ = shipped()
    made = [chat for domain in simulated(args.steps * BATCH // 3 + 1) for chat in domain.train]
    corpora = {"simulated": made}
    if args.data:
        corpora |= {name: chats_of(args.data / f"conv_{name}.jsonl.gz") for name in args.corpora.split(",")}
    rows = [["chats", "good apart", *(f"{kind} apart" for kind in KINDS), "looking"]]
    try:
        for name, chats in corpora.items():
            done = f"guard-{base.digests['weights_sha256'][:8]}-{name}-{args.steps}"
            row = parts.load(done) or [name, *_row(base, anchors, chats[: args.steps * BATCH], made)]
            rows.append(row)
            parts.save(done, row)
    except Unfinished:
        sys.stdout.write("unfinished: the same call again goes on\n")
        return 3
    sys.stdout.write(f"{heading('guard', argv)}\n{table(rows)}\n")
    return 0


def _row(base: Base, anchors: Anchors, chats: Sequence[Chat], foreign: Sequence[Chat]) -> list[str]:
    rng, kinds = random.Random(1), dict[str, str]()
    words = {"own words": _words(chats), "foreign words": _words(foreign)}
    course = Course(base, anchors, (0.25, 0.5, 0.25))
    looking = Looking(course.trajectory.guard)
    started = time.process_time()
    for at in range(0, len(chats) - BATCH + 1, BATCH):
        batch = []
        for number, chat in enumerate(chats[at : at + BATCH], at):
            kind = kinds[f"{number:06x}"] = rng.choice(KINDS) if rng.random() < SHARE else "good"
            batch.append(chat if kind == "good" else [(role, noise(rng, kind, text, words)) for role, text in chat])
        course.learn(batch)
    every, found = Counter(kinds.values()), Counter(kinds[key] for key in course.apart)
    counted = [f"{found[kind]} of {every[kind]}" for kind in ("good", *KINDS)]
    return [*counted, f"{looking.seconds / (time.process_time() - started):.1%}"]


class Looking:
    """Takes the time of a guard's look at the text of a step's fresh samples."""

    def __init__(self, guard: Guard) -> None:
        self.seconds = 0.0
        self._look = guard.look
        guard.look = self.look  # type: ignore[method-assign]  # where the step finds it

    def look(self, chosen: Sequence[Document]) -> None:
        """As `Guard.look`."""
        started = time.process_time()
        self._look(chosen)
        self.seconds += time.process_time() - started


def noise(rng: random.Random, kind: str, text: str, words: Mapping[str, Sequence[str]]) -> str:
    """As many words of noise as a turn has."""
    said = text.split()
    if kind == "letters":
        return " ".join("".join(rng.choices("qxzjvkwpfhgy", k=6)) for _ in said)
    if kind == "shuffled":
        return " ".join(rng.sample(said, len(said)))
    return " ".join(rng.choices(words[kind], k=len(said)))


def _words(chats: Sequence[Any]) -> list[str]:
    return [word for chat in chats for _, text in chat for word in text.split()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
