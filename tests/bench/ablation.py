"""The learner with one part taken away at a time: `driftline bench ablation [--chats N]`.

The simulator's three shops in sequence, a fifth of the fresh chats gibberish. `old` is what older shops lose, `base`
what the base's own domain loses; the filter is the stream's, `guards` are the learner's own: spelling, loss band and
skipped steps; `apart` counts what either kept from training. The second table takes the gate away: one shop, and five
steps at twenty times the learning rate. The third takes feedback away: a bad answer that 15 of 100 replies give, and
what 160 rated turns make of it. Intervals are bootstraps over held-out chats.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import torch

from learner import conditions
from learner.adapter import Base, Tree, tree_of
from learner.adapter.chat import conditioned
from learner.anchors import Anchors, Gauge
from learner.batch import Document
from learner.update import StepReport, new_trajectory, step, with_references
from streams.events import Label
from streams.quality import QualityConfig, judge_turn
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
from tests.bench._served import served

QUESTIONS = ("Can you help me with my order?", "My parcel is late.", "I need help with a bill.", "How do I pay?")
GOOD = "Of course, I will look into it for you right away."
BAD = "Please call our hotline, nobody here can help you."
"""A bad habit that ratings should end."""

SHARE = 0.15
"""Of the replies that have the habit."""

UNGUARDED = replace(DEMO, quarantine_nats=99.0, quarantine_density=0.0, quarantine_order=0.0, spike_factor=1e9)

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
    filter: bool = True


ROWS = (
    Row("everything"),
    Row("without filter", filter=False),
    Row("without rehearsal", (0.75, 0.0, 0.25)),
    Row("without anchors", (1 / 3, 2 / 3, 0.0)),
    Row("without averaging", average=1),
    Row("without guards", guards=False),
    Row("without filter and guards", guards=False, filter=False),
)

Feedback = Literal["ignored", "rated", "conditioned"]

FEEDBACK: dict[Feedback, str] = {
    "ignored": "without feedback: unrated replies count as good",
    "rated": "ratings: APO-zero and SFT",
    "conditioned": "ratings: response conditioning instead",
}


def main(argv: list[str]) -> int:
    """Print the tables. Returns 0, 3 when there is more to run."""
    parser = argparse.ArgumentParser(prog="driftline bench ablation", description=__doc__)
    parser.add_argument("--chats", type=int, default=120, help="fresh chats of a shop")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    Parts.arguments(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts = Parts(args.parts, args.most_s)
    base, anchors, gauge = shipped()
    domains = [poisoned(domain) for domain in simulated(args.chats)]
    rows = [["learner", "final", "old loses [95 %]", "base", "gauge", "good apart", "bad apart"]]
    live = [["versions", "in all", "worse than the last", "served, mean", "largest rise", "last"]]
    habit = [["a bad answer, 10 % of ratings wrong", "p before", "80 rated turns", "160 rated turns"]]
    try:
        rows += [_row(row, base, anchors, gauge, domains, parts) for row in ROWS if args.only in row.name]
        live += _served(base, anchors, parts)
        habit += [_habit_row(name, base, feedback) for feedback, name in FEEDBACK.items()]
    except Unfinished:
        sys.stdout.write("unfinished: the same call again goes on\n")
        return 3
    sys.stdout.write(f"{heading('ablation', argv)}\n{table(rows)}\n{table(live)}\n{table(habit)}\n")
    return 0


def _row(  # noqa: PLR0917 - what a row hangs on
    row: Row, base: Base, anchors: Anchors, gauge: Gauge, domains: Sequence[Domain], parts: Parts
) -> list[str]:
    config = DEMO if row.guards else UNGUARDED
    course = Watched(base, anchors, row.mix, average=row.average, config=config, filtered=row.filter)
    name = f"ablation-{base.digests['weights_sha256'][:8]}-{len(domains[0].train)}-{row.name.replace(' ', '-')}"
    found = run(course, base, domains, gauge, parts=parts, name=name)
    apart = parts.load(f"{name}-apart") or [*course.kept_apart, *course.said]
    parts.save(f"{name}-apart", apart)
    good, bad, all_good, all_bad = apart
    lost = lost_interval([found])
    return [
        row.name, f"{found.final:.2f}", f"{lost.value:+.2f} [{lost.low:+.2f}, {lost.high:+.2f}]",
        f"{found.base_domain:+.2f}", f"{found.gauge:.2f}", f"{good} of {all_good}", f"{bad} of {all_bad}",
    ]  # fmt: skip


def _served(base: Base, anchors: Anchors, parts: Parts) -> list[list[str]]:
    name = f"ablation-{base.digests['weights_sha256'][:8]}-served"
    found: list[list[str]] = parts.load(name) or served(base, anchors)
    parts.save(name, found)
    return found


class Watched(Course):
    """Counts what filter and guards keep from training."""

    def __init__(self, *args: Any, filtered: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quality = QualityConfig() if filtered else None
        self._refused = (0, 0)
        self.said = (0, 0)
        """Good and bad chats in all."""

    @property
    def kept_apart(self) -> tuple[int, int]:
        """Good and bad chats that were refused by the filter or wait because of a guard."""
        return _counted(self._refused, list(self.apart.values()))

    def learn(self, chats: Sequence[Chat]) -> StepReport:
        """One step."""
        kept = [chat for chat in chats if self._passes(chat)]
        self._refused = _counted(self._refused, [chat for chat in chats if not self._passes(chat)])
        self.said = _counted(self.said, chats)
        return super().learn(kept)

    def _passes(self, chat: Chat) -> bool:
        """Whether the stream's filter keeps any reply."""
        config = self._quality
        return config is None or any(judge_turn(text, "agent", config).keep for role, text in chat if role == "agent")

    def state(self) -> dict[str, Any]:
        """With the counts."""
        return super().state() | {"counts": (self._refused, self.said)}

    def load(self, state: Mapping[str, Any]) -> None:
        """With the counts."""
        super().load(state)
        self._refused, self.said = state["counts"]


def poisoned(domain: Domain) -> Domain:
    """A fifth of the chats say noise."""
    rng = random.Random(3)
    return replace(domain, train=tuple(_noise(rng, chat) if rng.random() < 0.2 else chat for chat in domain.train))


def _noise(rng: random.Random, chat: Chat) -> Chat:
    letters = "qxzjvkwpfhgy"
    return [(role, " ".join("".join(rng.choices(letters, k=6)) for _ in text.split())) for role, text in chat]


def _counted(counts: tuple[int, int], chats: Sequence[Chat]) -> tuple[int, int]:
    noise = sum(map(_is_gibberish, chats))
    return counts[0] + len(chats) - noise, counts[1] + noise


def _is_gibberish(chat: Chat) -> bool:
    return not any(vowel in text for _, text in chat for vowel in "aeiou")


def _habit_row(name: str, base: Base, feedback: Feedback) -> list[str]:
    before, *after = habit(base, feedback)
    return [name, f"{before:.3f}", *(f"{chance:.4f}" for chance in after)]


def habit(base: Base, feedback: Feedback, rounds: int = 10) -> list[float]:
    """How likely the bad answer is before, after half of and after all `rounds` of 16 rated turns."""
    rng = random.Random(7)
    if feedback == "conditioned":
        base = replace(base, chat=conditioned(base.chat, conditions.GOOD, conditions.BAD))
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
            label: Label = "bad" if bad != (rng.random() < WRONG) else "good"
            said: Label = "unknown" if feedback == "ignored" else label
            chosen += encoded(base, _asked(rng, bad=bad), "rehearsal", f"{at}-{nth}", DEMO, said)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
