"""The endless loop of one line: draw, step, snapshot, offer a candidate; it waits neither for gate nor publish.

What others learn comes in as a `Notice` between two steps: a candidate was judged, stable changed, a version was
denied, a customer was erased. What goes out is a `Candidate`: the mean of the newest snapshots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.adapter import Base, Lora, Tree, new_lora, tree_of
from learner.batch import Document
from learner.candidate import BASE, Candidate, Kind, Notice, Window
from learner.checkpoint import Checkpoint, Checkpoints
from learner.config import TrainConfig, tuned
from learner.draw_log import log_entry
from learner.feed import Feed, Plan
from learner.looks import Looks
from learner.paraphrases import Paraphrases
from learner.references import References
from learner.statements import Statement
from learner.supersede import FactChanges
from learner.trajectory_state import put_back, state_of, tensors_of
from learner.update import StepReport, Trajectory, new_trajectory, step
from streams.erasures import Erasure

__all__ = ["BASE", "Candidate", "Kind", "Learner", "Notice"]

YOUNG = 3
"""Refusals for harm in a row that restart a line whose stable is still the base: a first version is clumsy at first,
and starting again from nothing would make it so for ever."""

ANCHOR_STEP = 0.05
"""By how much the share of anchors moves with the gauge."""
MOST_ANCHORS = 0.5

OF_A_RUN = frozenset({"published", "unproven", "postponed", "failed", "harmful", "spiked"})
"""Notices about a trajectory; of one that has ended they say nothing."""

RECOVERED = 3
"""Promotions after which a halved learning rate is restored."""


class Store(Protocol):
    """Where published weights come from."""

    def lora(self, version: str) -> Lora:
        """The verified weights of a version, fp32."""


Observer = Callable[[StepReport, Plan], None]

Stepper = Callable[[Base, Trajectory, Sequence[Document]], StepReport]
"""How a step is taken: in this process (`update.step`) or over all ranks (`Ranks.take`)."""


class Learner:
    """One line's trajectory and its loop."""

    def __init__(
        self, base: Base, feed: Feed, config: TrainConfig, checkpoints: Checkpoints, store: Store, *,
        offer: Callable[[Candidate], None], clock: Callable[[], float],
        observe: Observer = lambda _report, _plan: None,
        outdated: Callable[[FactChanges, int], None] = lambda _facts, _retired: None,
        step_with: Stepper = step,
    ) -> None:  # fmt: skip
        self.base = base
        self.feed = feed
        self.config = config
        self._checkpoints = checkpoints
        self._store = store
        self._offer = offer
        self._clock = clock
        self._observe = observe
        self._outdated = outdated
        self._step_with = step_with
        self.facts = FactChanges()
        feed.outdated = self.facts.outdated
        feed.copies.say = Paraphrases(base)
        self.notices: SimpleQueue[Notice] = SimpleQueue()
        self.judging: Callable[[], bool] = lambda: False
        """Whether the gate is at work: what a rush held back is made up for when it is not."""
        self.on_its_way: Callable[[], bool] = lambda: False
        """Whether the newest version has not reached a customer yet: the next one cannot reach them before."""
        self.run = 1
        self.parent = BASE
        self.stable = BASE
        self.descent: list[str] = []
        """Versions that this trajectory has been through; the denial of any other one is not about it."""
        self.window = Window(first=1)
        self.ring: deque[Tensor] = deque(maxlen=config.average)
        self.promotions = 0
        self._harmful = 0
        self._offered = self._snapped = 0
        """Step of the newest candidate, of the newest snapshot."""
        self._flushed = False
        self._looks = Looks(config)
        self.tuned: dict[str, float] = {}
        """Hyper-parameters that a tuner has moved here."""
        self.erasures: list[str] = []
        """Ids of erasures that were carried out."""
        self.missing = 0
        """Logged samples that were gone at resume: above 0 the weights are not those of an uninterrupted run."""
        self.rollbacks: dict[str, int] = {"canary": 0, "gate": 0, "spikes": 0}
        self.trajectory = self._cold()
        self._references = References(Tree(base))
        self._untold: tuple[Plan, StepReport, list[str]] | None = None
        self._heard: Notice | None = None  # the one that is acted on: it is not lost where its effect fails
        self._planned: Plan | None = None  # drawn, but not logged yet

    def turn(self) -> StepReport | None:
        """Hear the notices, then take one step if there is enough to train on.

        Raises redis.RedisError, OSError, or RegistryError without the version to go back to; the next turn goes on.
        """
        self.tell()
        self.hear()
        if self._checkpoints.torn:
            self.save()
        plan = self._planned = self._planned or self._plan()
        if plan is None:
            return None
        self._checkpoints.append(log_entry(self.run, plan, self.feed) | {"tuned": self.tuned})
        self._planned = None
        return self._take(plan)

    def _plan(self) -> Plan | None:
        now, at_once = self._clock(), self._offer_in_time()
        plan = self.feed.gather(self.run, self.trajectory.step + 1, now, make_up=not self.judging(), at_once=at_once)
        return plan and replace(plan, documents=self._references.of(plan.documents))

    def _offer_in_time(self) -> bool:
        """Offer what was learned when it is time to; before, once, what waits is learned at once: whether it is."""
        backlog = self.feed.waiting >= self.config.fresh_batch
        due = not self.judging() and self._looks.overdue(self._clock(), backlog=backlog, held_up=self.on_its_way())
        self._flushed = due and not backlog and self.feed.waiting > 0 and not self._flushed
        last = self.last_candidate() if due and not self._flushed else None
        if last is not None:
            self.save()
            self._offer(last)
        return self._flushed

    def hear(self) -> None:
        """Act on every notice that has come."""
        while True:
            try:
                self._heard = self._heard or self.notices.get_nowait()
            except Empty:
                return
            self._hear(self._heard)
            self._heard = None

    def tune(self, params: Mapping[str, float]) -> None:
        """Go on with hyper-parameters that a tuner found, weights and moments kept. Raises ValueError."""
        if params and params != self.tuned:
            self.config = self.trajectory.config = tuned(self.config, params)
            self.tuned = dict(params)

    def last_candidate(self) -> Candidate | None:
        """At rest or at an orderly end: what was trained since the last offer; None if nothing was."""
        if self._offered == self.trajectory.step or not self.ring:
            return None
        self._snapshot()
        self._offered = self.trajectory.step
        self._looks.offered()
        return self.candidate()

    def resume(self) -> int:
        """Continue from the newest checkpoint and its draw log; gives the steps that were repeated.

        Repeated steps offer no candidate: theirs may have been published before the process died.
        """
        found = self._checkpoints.load()
        if found is not None:
            self._restore(found)
        entries = self._checkpoints.entries(self.trajectory.step, self.run)
        told = self.feed.told(self.run) if entries else 0
        for entry in entries:
            plan = self.feed.logged(entry)
            self.missing += plan.missing
            self._references.learn(plan.documents)
            self.tune(entry.get("tuned", {}))
            self._take(plan, again=True, told=entry["step"] <= told)
        return len(entries)

    def _take(self, plan: Plan, *, again: bool = False, told: bool = False) -> StepReport:
        report = self._step_with(self.base, self.trajectory, plan.documents)
        self.window.add(plan)
        kept = [(key, sample) for key, sample in plan.fresh.items() if key not in report.quarantined]
        outdated = self.facts.observe(kept)
        self.feed.superseded.update(outdated)
        self._untold = None if told else (plan, report, outdated)
        self._observe(report, plan)
        config, at = self.config, self.trajectory.step
        if report.lost:
            self.notices.put(Notice("spiked", self.parent, at, self.run))
            return report
        if at % config.snapshot_every == 0:
            self._snapshot()
        self._looks.observe(report.fresh_loss, self._clock())
        offered = self._looks.due(at) and bool(self.ring)
        self.tell()
        if offered or at % config.checkpoint_every == 0:
            self.save()
        if offered:
            self._offered = at
            self._looks.offered()
            if not again:
                self._offer(self.candidate())
        return report

    def _snapshot(self) -> None:
        if self._snapped != self.trajectory.step:
            self._snapped = self.trajectory.step
            self.ring.append(self.trajectory.lora.flat.detach().to("cpu", torch.float32, copy=True))

    def tell(self) -> None:
        """Report the last step to the buffer, before the next one and before a version that holds it is judged."""
        if self._untold is None:
            return
        plan, report, outdated = self._untold
        self.feed.trained(plan, report.losses, self.run, report.quarantined)
        if report.quarantined:
            self.feed.quarantine(report.quarantined)
        if report.readmitted:
            self.feed.readmit(report.readmitted)
        if outdated:
            self._outdated(self.facts, self.feed.retire(outdated))
        self._untold = None

    def candidate(self) -> Candidate:
        """The mean of the newest snapshots, A and B apart, with what it learned from since its parent."""
        flat = torch.stack(list(self.ring)).mean(0)
        window, lora = self.window, self.trajectory.lora
        return Candidate(
            lora.with_flat(flat), self.config.line, self.run, (window.first, self.trajectory.step), self.parent,
            window.fresh_from, window.fresh_to, dict(window.offsets), len(window.keys), self.trajectory.heads.heads(),
        )  # fmt: skip

    def _hear(self, notice: Notice) -> None:
        if notice.kind in OF_A_RUN and notice.run != self.run:
            return
        if notice.kind == "published":
            self._published(notice)
        elif notice.kind in {"postponed", "failed"}:  # offered again: soon, or after ever longer pauses
            self._offered = min(self._offered, notice.step - 1)
            (self._looks.postponed if notice.kind == "postponed" else self._looks.unproven)(self._clock())
        elif notice.kind in {"unproven", "harmful"}:
            self._unproven(harmful=notice.kind == "harmful")
        elif notice.kind == "promoted":
            self.stable, self.promotions = notice.version, self.promotions + 1
            if self.promotions >= RECOVERED:
                self.trajectory.rate_factor = 1.0
        elif notice.kind in {"drifted", "settled"}:
            moved = self.feed.anchor_share + (ANCHOR_STEP if notice.kind == "drifted" else -ANCHOR_STEP)
            self.feed.anchor_share = min(max(moved, self.config.anchor_share), MOST_ANCHORS)
        elif notice.kind == "spiked":
            self._back(self.parent, "spikes")
        elif notice.kind == "denied" and notice.version in self.descent:
            self._back(self.stable, "canary")

    def _unproven(self, *, harmful: bool) -> None:
        back = harmful and (self.stable != BASE or self._harmful + 1 >= YOUNG)
        if back:
            self._back(self.stable, "gate")
        self._harmful += harmful and not back
        self._looks.unproven(self._clock())
        if back:
            self._looks.clear()  # a new trajectory holds nothing that waits

    def name(self, statements: Sequence[Statement]) -> None:
        """An operator says that these values hold no more: what states them leaves training and the held-out sets."""
        outdated = self.facts.name(statements)
        self.feed.superseded.update(outdated)
        self._outdated(self.facts, self.feed.retire(outdated))

    def erase(self, erasure: Erasure, ancestor: Callable[[int], str]) -> str | None:
        """Forget a customer: held samples at once, and, if a step saw one, everything since `ancestor(step)`.

        Gives the version from which the line was rebuilt, None if nothing had been learned of them. Idempotent.
        """
        if erasure.erasure_id in self.erasures:
            return None
        names, gone = {*erasure.customers, *erasure.conversations}, set(erasure.digests)
        self._planned = None
        self.feed.forget(names, gone)
        self.facts.forget(erasure.digests)
        self.trajectory.guard.forget(erasure.digests)
        self._references.forget(gone)
        seen = [at for at, key in self.window.keys if key in gone]
        seen += [erasure.first_step] if erasure.first_step else []
        self.erasures.append(erasure.erasure_id)
        if not seen:
            return None
        version = ancestor(min(seen))
        self._untold = None
        self._checkpoints.forget()
        self._restart(version, self._weights(version))
        return version

    def _published(self, notice: Notice) -> None:
        weights = self._store.lora(notice.version)
        self._harmful = 0
        self._looks.published()
        self.parent = notice.version
        self.descent.append(notice.version)
        old = self.window
        self.window = Window(first=notice.step + 1, fresh_from=old.fresh_to, fresh_to=old.fresh_to)
        self.window.keys = [(at, key) for at, key in old.keys if at > notice.step]
        self._references.tree = tree_of(self.base, weights)

    def _back(self, version: str, cause: str) -> None:
        """Restart from a version; what was learned since its successor waits for review instead of coming back."""
        weights = self._weights(version)
        self.feed.quarantine([key for _, key in self.window.keys])
        self.rollbacks[cause] += 1
        self.promotions = 0
        self._restart(version, weights, self.trajectory.rate_factor / 2)

    def _weights(self, version: str) -> Lora | None:
        return None if version == BASE else self._store.lora(version)

    def _restart(self, version: str, weights: Lora | None, rate_factor: float = 1.0) -> None:
        self.run += 1
        self._planned = None  # what it drew comes back when its leases end
        self.descent = []
        self._harmful = 0
        self.parent = self.stable = version
        at, guard = self.trajectory.step, self.trajectory.guard
        self.trajectory = self._cold() if weights is None else self._from(weights)
        self.trajectory.step, self.trajectory.guard, self.trajectory.rate_factor = at, guard, rate_factor
        self.ring.clear()
        self._looks.clear()
        self._offered = at
        self.window = Window(first=at + 1)
        self._references.restart(Tree(self.base) if weights is None else tree_of(self.base, self.trajectory.lora))
        self.save()

    def _cold(self) -> Trajectory:
        config = self.config
        generator = torch.Generator().manual_seed(config.seed + self.run)
        return self._from(new_lora(self.base.shape, config.r, config.alpha, generator, self.base.device))

    def _from(self, lora: Lora) -> Trajectory:
        moved = lora.with_flat(lora.flat.to(self.base.device))
        return new_trajectory(moved, self.base.shape.vocab, self.config)

    def save(self) -> None:
        """Write a checkpoint, unless the buffer has not heard of the last step: a resumed line tells of logged ones."""
        if self._untold is not None:
            return
        snapshots = {f"ring.{index}": flat for index, flat in enumerate(self.ring)}
        tensors = tensors_of(self.trajectory) | snapshots
        self._checkpoints.save(Checkpoint(self.trajectory.step, tensors, self._state()))

    def _state(self) -> dict[str, Any]:
        window = self.window
        return {
            "run": self.run, "parent": self.parent, "stable": self.stable, "descent": self.descent,
            "promotions": self.promotions, "erasures": self.erasures, "tuned": self.tuned,
            "window": [window.first, window.fresh_from, window.fresh_to, window.keys, window.offsets],
            "looks": self._looks.state(), "feed": self.feed.state(), "facts": self.facts.state(),
            "references": self._references.state(), "base": self.base.digests["weights_sha256"],
            **state_of(self.trajectory),
        }  # fmt: skip

    def _restore(self, found: Checkpoint) -> None:
        state = found.state
        if state["base"] != self.base.digests["weights_sha256"]:
            raise ValueError(
                "checkpoint 'base' has another digest than the base model: train with that base, or delete it"
            )
        self.run, self.parent, self.stable = state["run"], state["parent"], state["stable"]
        self.promotions, self.erasures = state["promotions"], list(state["erasures"])
        self.descent = list(state["descent"])
        self.tune(state.get("tuned", {}))
        lora = self.trajectory.lora.with_flat(found.tensors["flat"].clone())
        self.trajectory = self._from(lora)
        put_back(self.trajectory, found.step, found.tensors, state)
        self.ring.extend(found.tensors[key].clone() for key in sorted(found.tensors) if key.startswith("ring."))
        first, low, high, keys, offsets = state["window"]
        spans = {partition: (a, b) for partition, (a, b) in offsets.items()}
        self.window = Window(first, low, high, [(at, key) for at, key in keys], spans)
        self.feed.load(state["feed"])
        self.facts.load(state["facts"])
        if "looks" in state:
            self._looks.load(state["looks"])
        if keys:
            self._looks.stepped(self._clock())
        tree = Tree(self.base) if self.parent == BASE else tree_of(self.base, self._store.lora(self.parent))
        self._references.restart(tree)
        self._references.load(state["references"])
