"""Shadow adapters: a population on one base that sees the same chats, judged before it trains on them.

The prequential loss (on a fresh example, before training on it) costs no held-out data and is unbiased, so it ranks
the members of each window; the worse half leaves. The winner's hyper-parameters move to the line, never its weights,
and nothing here can publish.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch

from learner.adapter import Base, new_lora
from learner.batch import Document, Drawn, documents
from learner.config import TrainConfig
from learner.heldout import HeldChat
from learner.search import EarlyStop, Halving, Params, Schedule, rate_factor
from learner.update import Trajectory, new_trajectory, step
from streams.events import Sample

SEEN = 1_000
"""Documents that a member rehearses from: live traffic has no end."""

TUNED = ("learning_rate", "r", "alpha", "clip_norm", "warmup_steps", "beta2", "rehearsal_share")
"""Settings that a search may change."""


@dataclass(frozen=True)
class Budget:
    """How long a population runs."""

    fresh: int = 8
    """Fresh chats of a step."""
    window: int = 10
    """Steps between two eliminations."""
    keep: float = 0.5
    """Share of the population that stays after each."""
    schedule: Schedule = "constant"
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """What a search found: the best point, and the windows' losses by member."""

    best: Params
    name: str
    history: tuple[Mapping[str, float], ...]
    members: Mapping[str, Params]
    steps: int

    def to_object(self) -> dict[str, Any]:
        """Plain JSON values for the record of the run."""
        return asdict(self)


class Shadow:
    """One member: its own adapter and memory of what it has seen."""

    def __init__(self, base: Base, config: TrainConfig, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._base = base
        self.config = config
        self.trajectory: Trajectory = new_trajectory(
            new_lora(base.shape, config.r, config.alpha, generator, base.device), base.shape.vocab, config
        )
        self._seen: deque[Document] = deque(maxlen=SEEN)
        self._draw = random.Random(seed)

    def advance(self, fresh: Sequence[Document], factor: float = 1.0) -> float | None:
        """Judge fresh documents, then train on them and a share of older ones. Gives their mean loss, nats a token."""
        self.trajectory.rate_factor = factor
        share = self.config.rehearsal_share / max(self.config.fresh_share, 1e-9)
        older = self._draw.sample(self._seen, min(round(share * len(fresh)), len(self._seen)))
        report = step(self._base, self.trajectory, [*fresh, *older])
        self._seen += [replace(one, drawn=replace(one.drawn, component="rehearsal")) for one in fresh]
        return report.fresh_loss

    def keep(self, keys: Collection[str]) -> None:
        """Forget documents of all other samples: they have left the buffer, erased ones among them."""
        self._seen = deque((one for one in self._seen if one.drawn.key in keys), maxlen=SEEN)


def configured(base: TrainConfig, params: Params) -> TrainConfig:
    """The settings of one point. Raises ValueError for a setting that no search may change."""
    unknown = sorted(set(params) - set(TUNED))
    if unknown:
        raise ValueError(f"tune: {unknown[0]!r} is not one of {', '.join(TUNED)}")
    changed = dict(params)
    if "rehearsal_share" in changed:
        rest = 1 - changed["rehearsal_share"]
        whole = base.fresh_share + base.anchor_share
        changed |= {"fresh_share": rest * base.fresh_share / whole, "anchor_share": rest * base.anchor_share / whole}
    return replace(base, **changed)


def as_documents(base: Base, chats: Iterable[HeldChat], config: TrainConfig) -> list[list[Document]]:
    """The documents of each chat, as the learner builds them."""
    return [documents(base.chat, sample_of(chat), Drawn("fresh", chat.conversation), config) for chat in chats]


def sample_of(chat: HeldChat) -> Sample:
    """A chat of a file as a training sample."""
    return Sample(
        sample_id=f"{chat.conversation}/sft/0", conversation=chat.conversation, customer=chat.conversation,
        lane=chat.topic, split="train", turns=chat.turns, received_at=0.0, completed_at=0.0, topic=chat.topic,
    )  # fmt: skip


class Population:
    """Members that live on the same stream; a window's end removes the worse ones."""

    def __init__(self, base: Base, config: TrainConfig, points: Sequence[Params], budget: Budget) -> None:
        self.members = {f"trial{at}": point for at, point in enumerate(points)}
        self._budget = budget
        self.halving = Halving(list(self.members), budget.keep)
        self._shadows = {
            name: Shadow(base, configured(config, point), budget.seed) for name, point in self.members.items()
        }
        self.steps = 0

    def advance(self, fresh: Sequence[Document], done: float = 0.0) -> dict[str, float]:
        """One step of every living member on the same documents; `done` is the progress of a finite run."""
        losses = {}
        factor = rate_factor(self._budget.schedule, done)
        for name in list(self.halving.alive):
            loss = self._shadows[name].advance(fresh, factor)
            if loss is not None:
                losses[name] = loss
                self.halving.record(name, loss)
        self.steps += 1
        if self.steps % self._budget.window == 0:
            for name in self.halving.close():
                del self._shadows[name]
        return losses

    def keep(self, keys: Collection[str]) -> None:
        """Forget documents of all samples but these."""
        for name in self.halving.alive:
            self._shadows[name].keep(keys)

    @property
    def decided(self) -> bool:
        """Whether one member is left."""
        return len(self.halving.alive) == 1

    def result(self) -> Result:
        """The leader's hyper-parameters, without any weights."""
        best = self.halving.best
        return Result(dict(self.members[best]), best, tuple(self.halving.history), dict(self.members), self.steps)


def halve(
    base: Base, config: TrainConfig, points: Sequence[Params], chats: Sequence[HeldChat], budget: Budget, *,
    told: Callable[[int, Mapping[str, float]], None] = lambda _step, _losses: None,
) -> Result:  # fmt: skip
    """Run a population once over the chats, in their order, until one is left or the chats end."""
    population = Population(base, config, points, budget)
    made = as_documents(base, chats, config)
    for at in range(0, len(made), budget.fresh):
        fresh = [document for chat in made[at : at + budget.fresh] for document in chat]
        if not fresh:
            continue
        told(population.steps, population.advance(fresh, at / len(made)))
        if population.decided and len(points) > 1:
            break
    else:
        population.halving.close()
    return population.result()


def exhaust(
    base: Base, config: TrainConfig, point: Params, chats: Sequence[HeldChat], budget: Budget, *,
    stop: EarlyStop | None = None,
) -> float:  # fmt: skip
    """Mean prequential loss of one point over all chats, or until `stop` says so: the objective of other searches."""
    shadow = Shadow(base, configured(config, point), budget.seed)
    made = as_documents(base, chats, config)
    losses: list[float] = []
    for at in range(0, len(made), budget.fresh):
        fresh = [document for chat in made[at : at + budget.fresh] for document in chat]
        loss = shadow.advance(fresh, rate_factor(budget.schedule, at / len(made))) if fresh else None
        if loss is not None:
            losses.append(loss)
            recent = fmean(losses[-budget.window :])
            if stop is not None and len(losses) >= budget.window and stop.observe(recent):
                break
    return fmean(losses) if losses else float("inf")
