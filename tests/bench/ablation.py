"""The learner with one part taken away at a time: `driftline bench ablation [--chats N]`.

The simulator's three shops in sequence, a fifth of the fresh chats gibberish. `old` is what older shops lose, `base`
what the base's own domain loses; `guards` are the loss band and the skipped steps. Filter, gate and feedback stand
before and behind the learner, where `bench filter` and `bench gate` measure them; the last rows here are feedback's.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from learner.adapter import Base, Tree, tree_of
from learner.anchors import Anchors, Gauge
from learner.batch import Document
from learner.update import new_trajectory, step, with_references
from streams.events import Label
from tests.bench._course import DEMO, Chat, Course, Domain, encoded, loss_on, run, shipped, simulated
from tests.bench._heading import heading, table

HABIT = "Please note that this call may be recorded."
"""A bad habit that ratings should end."""


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


def main(argv: list[str]) -> int:
    """Print both tables. Returns 0."""
    parser = argparse.ArgumentParser(prog="driftline bench ablation", description=__doc__)
    parser.add_argument("--chats", type=int, default=120, help="fresh chats of a shop")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    base, anchors, gauge = shipped()
    domains = [_poisoned(domain) for domain in simulated(args.chats)]
    sys.stdout.write(heading("ablation", argv) + "\n")
    rows = [["learner", "final", "old", "base", "gauge", "good apart", "bad apart"]]
    rows += [_row(row, base, anchors, gauge, domains) for row in ROWS]
    sys.stdout.write(table(rows) + "\n")
    sys.stdout.write(table([["a habit in half of the replies", "p a token before", "after"], *_habit(base)]) + "\n")
    return 0


def _row(row: Row, base: Base, anchors: Anchors, gauge: Gauge, domains: Sequence[Domain]) -> list[str]:
    config = DEMO if row.guards else replace(DEMO, quarantine_nats=99.0, spike_factor=1e9)
    course = Watched(base, anchors, row.mix, average=row.average, config=config)
    found = run(course, base, domains, gauge)
    good, bad = course.apart
    return [
        row.name, f"{found.final:.2f}", f"{found.loses:+.2f}", f"{found.base_domain:+.2f}", f"{found.gauge:.2f}",
        f"{good}", f"{bad}",
    ]  # fmt: skip


class Watched(Course):
    """Counts what the guards set apart."""

    apart = (0, 0)

    def learn(self, chats: Sequence[Chat]) -> object:  # type: ignore[override]  # nobody reads the report here
        """One step."""
        first = len(self.seen)
        report = super().learn(chats)
        bad = sum(_is_gibberish(self.seen[first + int(key, 16) - first][1]) for key in report.quarantined)
        self.apart = (self.apart[0] + len(report.quarantined) - bad, self.apart[1] + bad)
        return report


def _poisoned(domain: Domain) -> Domain:
    """A fifth of the chats say noise."""
    rng = random.Random(3)
    return replace(domain, train=tuple(_noise(rng, chat) if rng.random() < 0.2 else chat for chat in domain.train))


def _noise(rng: random.Random, chat: Chat) -> Chat:
    letters = "qxzjvkwpfhgy"
    return [(role, " ".join("".join(rng.choices(letters, k=6)) for _ in text.split())) for role, text in chat]


def _is_gibberish(chat: Chat) -> bool:
    return not any(vowel in text for _, text in chat for vowel in "aeiou")


def _habit(base: Base) -> list[list[str]]:
    """How likely a bad habit is after 160 rated turns, with ratings used and without."""
    chats = [chat for domain in simulated(200) for chat in domain.train]
    learned = Course(base, Anchors((), ()), (1.0, 0.0, 0.0), average=1)
    for at in range(0, 160, 8):
        learned.learn([_with_habit(chat) if nth % 2 else chat for nth, chat in enumerate(chats[at : at + 8])])
    start = learned.tree()
    rows = []
    for name, used in (("ratings ignored: unrated replies count as good", False), ("ratings: APO-zero and SFT", True)):
        rows.append([name, f"{_chance(start):.3f}", f"{_chance(_rated(base, start, chats[160:320], used=used)):.3f}"])
    return rows


def _rated(base: Base, start: Tree, chats: Sequence[Chat], *, used: bool) -> Tree:
    assert start.lora is not None
    trajectory = new_trajectory(start.lora, base.shape.vocab, DEMO)
    for at in range(0, len(chats), 16):
        chosen: list[Document] = []
        for nth, chat in enumerate(chats[at : at + 16]):
            bad = nth % 2 == 1
            for document in encoded(base, _with_habit(chat) if bad else chat, "rehearsal", f"{at + nth:04x}", DEMO):
                label: Label = "bad" if bad else "good"
                replies = tuple(replace(r, label=label, weight=0.0 if bad else 1.0) for r in document.replies)
                chosen.append(replace(document, replies=replies) if used else document)
        step(base, trajectory, with_references(start, chosen))
    return tree_of(base, trajectory.lora)


def _with_habit(chat: Chat) -> Chat:
    return [(role, f"{text} {HABIT}" if role == "agent" else text) for role, text in chat]


def _chance(tree: Tree) -> float:
    """Mean probability of the habit's tokens behind a good reply."""
    return math.exp(-loss_on(tree, [[("customer", "hello"), ("agent", HABIT)]]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
