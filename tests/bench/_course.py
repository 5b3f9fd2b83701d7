"""A line trained on domains one after the other, in memory: the learner's own step without Redis, gate and registry."""

from __future__ import annotations

import gzip
import json
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from learner.adapter import Base, Said, Tree, load_base, new_lora, score, tree_of
from learner.anchors import Anchors, Gauge, load_anchors
from learner.batch import Component, Document, Drawn, documents
from learner.config import TrainConfig
from learner.measures import Interval, ratio_interval
from learner.ranks import restored, snapshot
from learner.update import StepReport, new_trajectory, step
from services.simulation.dialogue import base_conversations, conversations
from streams.events import Label, Sample, Turn
from tests.bench._parts import Parts

Chat = Sequence[tuple[str, str]]
"""(role, text) turns."""

Held = tuple[float, int]
"""A held-out chat's summed loss in nats, and its reply tokens."""

DEMO = TrainConfig(learning_rate=1e-2, warmup_steps=5)
"""The demo's optimiser."""

WHOLE = Parts()
"""In one call."""

SHIPPED = Path(__file__).resolve().parents[2] / "learner/demo_base"


@dataclass(frozen=True)
class Domain:
    """One topic: what is learned and what is asked about it afterwards."""

    name: str
    train: tuple[Chat, ...]
    test: tuple[Chat, ...]


def simulated(count: int, held_out: int = 16, seed: int = 5) -> list[Domain]:
    """The simulator's three shops as domains."""
    found = []
    for shop in ("harbour", "tessera", "lumen"):
        chats = [chat.turns for chat in conversations(seed, count + held_out, shops=(shop,), personal=0.0)]
        found.append(Domain(shop, tuple(chats[:count]), tuple(chats[count:])))
    return found


def real(folder: Path, most: int, count: int, corpora: str = "star", held_out: int = 30) -> list[Domain]:
    """The largest single domains of `conv_<corpora>.jsonl.gz` (`*`: all files), in alphabetical order."""
    by_domain: dict[str, list[Chat]] = {}
    for path in sorted(folder.glob(f"conv_{corpora}.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                labelled = row["labels"]["domain"]
                domains = [name for name in ([labelled] if isinstance(labelled, str) else labelled or []) if name]
                turns = [(turn["role"], turn["text"]) for turn in row["turns"]]
                if row["labels"].get("multi_task") or not domains or all(role != "agent" for role, _ in turns):
                    continue
                by_domain.setdefault(", ".join(domains), []).append(turns)
    large = {name: chats for name, chats in by_domain.items() if len(chats) >= count // 2 + held_out}
    names = sorted(sorted(large, key=lambda name: -len(large[name]))[:most])
    return [
        Domain(name, tuple(large[name][held_out : held_out + count]), tuple(large[name][:held_out])) for name in names
    ]


def chats_of(path: Path, seed: int = 4) -> list[Chat]:
    """All chats of a file in which an agent says something, in random order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        chats = [[(turn["role"], turn["text"]) for turn in json.loads(line)["turns"]] for line in lines]
    found: list[Chat] = [chat for chat in chats if any(role == "agent" for role, _ in chat)]
    random.Random(seed).shuffle(found)
    return found


def encoded(  # noqa: PLR0917 - what a document hangs on
    base: Base, chat: Chat, component: Component, key: str, config: TrainConfig, label: Label = "unknown"
) -> list[Document]:
    """Documents of one chat with loss on the agent's replies, all of them rated alike."""
    turns = tuple(
        Turn(role=role, text=text, is_target=role == "agent", label=label if role == "agent" else "unknown")  # type: ignore[arg-type]
        for role, text in chat
    )
    sample = Sample(
        sample_id=f"{key}/sft/0", conversation=key, customer=key, lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0,
    )  # fmt: skip
    return documents(base.chat, sample, Drawn(component, key, lane="chat", customer=key), config)


def losses_on(tree: Tree, chats: Sequence[Chat]) -> list[Held]:
    """Loss and tokens of each chat's replies."""
    scores = score(tree, [[Said(role, text, role == "agent") for role, text in chat] for chat in chats])
    return [(found.loss * found.tokens, found.tokens) for found in scores]


def loss_on(tree: Tree, chats: Sequence[Chat]) -> float:
    """Mean over reply tokens, nats."""
    return _mean(losses_on(tree, chats))


def _mean(losses: Sequence[Held]) -> float:
    return sum(loss for loss, _ in losses) / max(sum(tokens for _, tokens in losses), 1)


class Course:
    """Steps of fresh chats with rehearsal and anchors by their shares of tokens."""

    def __init__(
        self, base: Base, anchors: Anchors, mix: tuple[float, float, float], *, average: int = 4,
        config: TrainConfig = DEMO, seed: int = 0,
    ) -> None:  # fmt: skip
        self._base = base
        self._anchors = anchors
        self._mix = mix
        self._config = replace(config, seed=seed)
        self._rng = random.Random(seed)
        lora = new_lora(base.shape, config.r, config.alpha, torch.Generator().manual_seed(seed))
        self.trajectory = new_trajectory(lora, base.shape.vocab, self._config)
        self._ring: deque[torch.Tensor] = deque(maxlen=average)
        self.seen: list[tuple[str, Chat]] = []
        self.apart: dict[str, Chat] = {}
        """What the guard holds back; readmitted chats are fresh again, as in the product."""
        self._back: list[tuple[str, Chat]] = []
        self.told = 0
        """Chats that came; the next one's number."""
        self.tokens = 0

    def learn(self, chats: Sequence[Chat]) -> StepReport:
        """One step on fresh chats and those that the guard gave back."""
        numbered = [*self._back, *((f"{self.told + at:06x}", chat) for at, chat in enumerate(chats))]
        self.told += len(chats)
        chosen = [d for key, chat in numbered for d in encoded(self._base, chat, "fresh", key, self._config)]
        tokens = sum(len(document.ids) for document in chosen)
        fresh, rehearsal, anchors = self._mix
        chosen += self._rehearse(tokens * rehearsal / fresh)
        room = tokens * anchors / fresh
        while room > 0 and self._anchors.training:
            anchor = self._rng.choice(self._anchors.training)
            room -= len(anchor.ids)
            chosen.append(anchor)
        self.tokens += sum(len(document.ids) for document in chosen)
        report = step(self._base, self.trajectory, chosen)
        self.apart |= {key: chat for key, chat in numbered if key in report.quarantined}
        self._back = [(key, self.apart.pop(key)) for key in report.readmitted if key in self.apart]
        self.seen += [(key, chat) for key, chat in numbered if key not in report.quarantined]
        if self.trajectory.step % self._config.snapshot_every == 0:
            self._ring.append(self.trajectory.lora.flat.detach().clone())
        return report

    def forget(self, keys: set[str]) -> None:
        """Superseded chats leave rehearsal."""
        self.seen = [(key, chat) for key, chat in self.seen if key not in keys]

    def tree(self) -> Tree:
        """What would be published: the mean of the newest snapshots."""
        if not self._ring:
            return tree_of(self._base, self.trajectory.lora)
        return tree_of(self._base, self.trajectory.lora.with_flat(torch.stack(list(self._ring)).mean(0)))

    def state(self) -> dict[str, Any]:
        """Everything that the next step hangs on."""
        return {
            "trajectory": snapshot(self.trajectory), "ring": list(self._ring), "seen": self.seen,
            "tokens": self.tokens, "told": self.told, "rng": self._rng.getstate(),
            "apart": self.apart, "back": self._back,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.trajectory = restored(self.trajectory, state["trajectory"])
        self._ring.extend(state["ring"])
        self.seen, self.tokens, self.told = list(state["seen"]), state["tokens"], state["told"]
        self.apart, self._back = dict(state["apart"]), list(state["back"])
        self._rng.setstate(state["rng"])

    def _rehearse(self, room: float) -> list[Document]:
        found: list[Document] = []
        pool = self._rng.sample(self.seen, len(self.seen)) if room > 0 else []
        for key, chat in pool:
            if room <= 0:
                break
            made = encoded(self._base, chat, "rehearsal", key, self._config)
            room -= sum(len(document.ids) for document in made)
            found += made
        return found


@dataclass(frozen=True)
class Outcome:
    """Losses after domains in sequence, nats."""

    newest: float
    """Mean over domains of the loss right after its own steps."""
    final: float
    """Mean over domains at the end."""
    loses: float
    """Mean over older domains of what was lost since their own steps."""
    worst: float
    base_domain: float
    """What the base's own domain has lost."""
    gauge: float
    tokens: int
    then: tuple[tuple[Held, ...], ...] = ()
    """Of each domain's held-out chats, loss and tokens right after its own steps."""
    end: tuple[tuple[Held, ...], ...] = ()
    """The same at the end."""


def run(
    course: Course, base: Base, domains: Sequence[Domain], gauge: Gauge, *, batch: int = 8,
    parts: Parts = WHOLE, name: str = "",
) -> Outcome:  # fmt: skip
    """Train the domains one after the other; with `parts`, from where an earlier call ended under this name."""
    known = parts.load(f"{name}-outcome")
    if known is not None:
        return Outcome(**known)
    own = [chat.turns for chat in base_conversations(999, 30)]
    before = loss_on(Tree(base), own)
    then: list[list[Held]] = []
    begun = parts.load(f"{name}-course")
    if begun is not None:
        course.load(begun["course"])
        then = begun["then"]
    for domain in domains[len(then) :]:
        for at in range(0, len(domain.train) - batch + 1, batch):
            course.learn(domain.train[at : at + batch])
        then.append(losses_on(course.tree(), domain.test))
        parts.save(f"{name}-course", {"course": course.state(), "then": then})
    tree = course.tree()
    end = [losses_on(tree, domain.test) for domain in domains]
    newest, final = [_mean(one) for one in then], [_mean(one) for one in end]
    lost = [late - early for late, early in zip(final[:-1], newest[:-1], strict=True)]
    found = Outcome(
        fmean(newest), fmean(final), fmean(lost) if lost else 0.0, max(lost, default=0.0),
        loss_on(tree, own) - before, gauge.of(tree), course.tokens,
        tuple(tuple(one) for one in then), tuple(tuple(one) for one in end),
    )  # fmt: skip
    parts.save(f"{name}-outcome", vars(found))
    return found


def lost_interval(found: Sequence[Outcome]) -> Interval:
    """What older domains lost, over runs, each domain counting alike: bootstrap over held-out chats."""
    totals, counts = list[float](), list[float]()
    for one in found:
        for then, end in zip(one.then[:-1], one.end[:-1], strict=True):
            whole = sum(tokens for _, tokens in end)
            totals += [(late - early) / whole for (early, _), (late, _) in zip(then, end, strict=True)]
            counts += [tokens / whole for _, tokens in end]
    return ratio_interval(totals, counts)


def shipped(
    anchors: int = 64, tokens: int = 128, cache: Path = Path(".driftline/bench")
) -> tuple[Base, Anchors, Gauge]:
    """The demo's base with anchors that it wrote itself."""
    base = load_base(SHIPPED)
    made = load_anchors(base, anchors, tokens, cache)
    return base, made, Gauge(base, made.gauge)
