"""The learner with one part taken away at a time: `driftline bench ablation [--chats N]`.

The simulator's three shops in sequence, a fifth of the fresh chats gibberish. `old` is what older shops lose, `base`
what the base's own domain loses; `guards` are the loss band and the skipped steps. Filter, gate and feedback stand
before and behind the learner, where `bench filter` and `bench gate` measure them; the last rows here are feedback's:
a bad answer that 15 of 100 replies give, and what 160 rated turns make of it. Intervals are bootstraps over held-out
chats.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from learner.adapter import Base, Tree, tree_of
from learner.anchors import Anchors, Gauge
from learner.batch import Document
from learner.update import new_trajectory, step, with_references
from streams.events import Label
from tests.bench._course import (
    DEMO,
    Chat,
    Course,
    Domain,
    encoded,
    losses_on,
    lost_interval,
    run,
    shipped,
    simulated,
)
from tests.bench._heading import heading, table
from tests.bench._parts import Parts, Unfinished

QUESTIONS = ("Can you help me with my order?", "My parcel is late.", "I need help with a bill.", "How do I pay?")
GOOD = "Of course, I will look into it for you right away."
BAD = "Please call our hotline, nobody here can help you."
"""A bad habit that ratings should end."""

SHARE = 0.15
"""Of the replies that have the habit."""

CALM = replace(DEMO, learning_rate=2e-3, quarantine_nats=99.0)
"""One answer in seven is a habit only while no batch sways the model and no guard takes it for noise."""

HABIT_STEPS = 30

WRONG = 0.1
"""Of the ratings that say the opposite."""


@dataclass(frozen=True)
class Row:
    """One setting."""

    name: str
    mix: tuple[float, float, float] = (0.25, 0.5, 0.25)
    average: int = 4
    guards: bool = True


ROWS = (
    Row("everything"),
    Row("without rehearsal", (0.75, 0.0, 0.25)),
    Row("without anchors", (1 / 3, 2 / 3, 0.0)),
    Row("without averaging", average=1),
    Row("without guards", guards=False),
)

FEEDBACK = (("ratings ignored: unrated replies count as good", False), ("ratings: APO-zero and SFT", True))


def main(argv: list[str]) -> int:
    """Print both tables. Returns 0, 3 when there is more to run."""
    parser = argparse.ArgumentParser(prog="driftline bench ablation", description=__doc__)
    parser.add_argument("--chats", type=int, default=120, help="fresh chats of a shop")
    parser.add_argument("--parts", type=Path, help="keep what is done in this folder")
    parser.add_argument("--most-s", type=float, default=0.0, help="with --parts: end after so many CPU seconds")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts = Parts(args.parts, args.most_s)
    base, anchors, gauge = shipped()
    domains = [poisoned(domain) for domain in simulated(args.chats)]
    rows = [["learner", "final", "old loses [95 %]", "base", "gauge", "good apart", "bad apart"]]
    habit = [["a bad answer, 10 % of ratings wrong", "p before", "80 rated turns", "160 rated turns"]]
    try:
        rows += [_row(row, base, anchors, gauge, domains, parts) for row in ROWS]
        habit += [_habit_row(name, base, used=used) for name, used in FEEDBACK]
    except Unfinished:
        sys.stdout.write("unfinished: the same call again goes on\n")
        return 3
    sys.stdout.write(f"{heading('ablation', argv)}\n{table(rows)}\n{table(habit)}\n")
    return 0


def _row(  # noqa: PLR0917 - what a row hangs on
    row: Row, base: Base, anchors: Anchors, gauge: Gauge, domains: Sequence[Domain], parts: Parts
) -> list[str]:
    config = DEMO if row.guards else replace(DEMO, quarantine_nats=99.0, spike_factor=1e9)
    course = Watched(base, anchors, row.mix, average=row.average, config=config)
    name = f"ablation-{base.digests['weights_sha256'][:8]}-{len(domains[0].train)}-{row.name.replace(' ', '-')}"
    found = run(course, base, domains, gauge, parts=parts, name=name)
    apart = parts.load(f"{name}-apart") or [*course.apart, *course.said]
    parts.save(f"{name}-apart", apart)
    good, bad, all_good, all_bad = apart
    lost = lost_interval([found])
    return [
        row.name, f"{found.final:.2f}", f"{lost.value:+.2f} [{lost.low:+.2f}, {lost.high:+.2f}]",
        f"{found.base_domain:+.2f}", f"{found.gauge:.2f}", f"{good} of {all_good}", f"{bad} of {all_bad}",
    ]  # fmt: skip


class Watched(Course):
    """Counts what the guards set apart."""

    apart = (0, 0)
    """Good and bad chats that were set apart."""
    said = (0, 0)
    """Good and bad chats in all."""

    def learn(self, chats: Sequence[Chat]) -> object:  # type: ignore[override]  # nobody reads the report here
        """One step."""
        first = len(self.seen)
        report = super().learn(chats)
        noise = {key for key, chat in self.seen[first:] if _is_gibberish(chat)}
        apart = set(report.quarantined) - set(report.readmitted)
        self.apart = (self.apart[0] + len(apart - noise), self.apart[1] + len(apart & noise))
        self.said = (self.said[0] + len(chats) - len(noise), self.said[1] + len(noise))
        return report

    def state(self) -> dict[str, Any]:
        """With the counts."""
        return super().state() | {"counts": (self.apart, self.said)}

    def load(self, state: Mapping[str, Any]) -> None:
        """With the counts."""
        super().load(state)
        self.apart, self.said = state["counts"]


def poisoned(domain: Domain) -> Domain:
    """A fifth of the chats say noise."""
    rng = random.Random(3)
    return replace(domain, train=tuple(_noise(rng, chat) if rng.random() < 0.2 else chat for chat in domain.train))


def _noise(rng: random.Random, chat: Chat) -> Chat:
    letters = "qxzjvkwpfhgy"
    return [(role, " ".join("".join(rng.choices(letters, k=6)) for _ in text.split())) for role, text in chat]


def _is_gibberish(chat: Chat) -> bool:
    return not any(vowel in text for _, text in chat for vowel in "aeiou")


def _habit_row(name: str, base: Base, *, used: bool) -> list[str]:
    before, *after = habit(base, used=used)
    return [name, f"{before:.3f}", *(f"{chance:.4f}" for chance in after)]


def habit(base: Base, *, used: bool, rounds: int = 10) -> list[float]:
    """How likely the bad answer is before, after half of and after all `rounds` of 16 rated turns."""
    rng = random.Random(7)
    course = Course(base, Anchors((), ()), (1.0, 0.0, 0.0), config=CALM)
    for _ in range(HABIT_STEPS):
        course.learn([_asked(rng, bad=nth % 20 < 20 * SHARE) for nth in rng.sample(range(40), 16)])
    start = course.tree()
    assert start.lora is not None
    trajectory = new_trajectory(start.lora, base.shape.vocab, CALM)
    found = [chance(start)]
    for at in range(rounds):
        chosen: list[Document] = []
        for nth in range(16):
            bad = rng.random() < SHARE
            made = encoded(base, _asked(rng, bad=bad), "rehearsal", f"{at}-{nth}", DEMO)
            chosen += [_rated(one, bad=bad != (rng.random() < WRONG)) for one in made] if used else made
        step(base, trajectory, with_references(start, chosen))
        if at + 1 in {rounds // 2, rounds}:
            found.append(chance(tree_of(base, trajectory.lora)))
    return found


def chance(tree: Tree) -> float:
    """Share of the bad answer's likelihood in that of both answers, mean over questions."""
    shares = []
    for question in QUESTIONS:
        good, bad = (losses_on(tree, [[("customer", question), ("agent", said)]])[0][0] for said in (GOOD, BAD))
        shares.append(1 / (1 + math.exp(min(bad - good, 700.0))))
    return fmean(shares)


def _asked(rng: random.Random, *, bad: bool) -> Chat:
    return [("customer", rng.choice(QUESTIONS)), ("agent", BAD if bad else GOOD)]


def _rated(document: Document, *, bad: bool) -> Document:
    label: Label = "bad" if bad else "good"
    replies = tuple(replace(reply, label=label, weight=0.0 if bad else 1.0) for reply in document.replies)
    return replace(document, replies=replies)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
