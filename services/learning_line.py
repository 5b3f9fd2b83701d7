"""One line of the learner's process: its account, buffer table, loop, worker and what it tells others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import redis

from learner.account import LineAccount
from learner.adapter import Base, tree_of
from learner.anchors import Anchors, Gauge
from learner.batch import Drawn, documents
from learner.checkpoint import Checkpoints
from learner.feed import Feed, Plan
from learner.gate import Decision
from learner.metrics import LearnerMetrics
from learner.publish import Identity, Judge, Judged, Versions
from learner.registry import Registry, RegistryError, base_identity, load_signer
from learner.review_feed import ReviewFeed, Seen
from learner.select import ReviewQueue
from learner.shape import base_folder
from learner.statements import decode_statements
from learner.supersede import FactChanges
from learner.train import BASE, Candidate, Learner, Notice, Stepper
from learner.uncertainty import Unsure, uncertainty
from learner.update import StepReport
from learner.worker import Worker
from services.learned_versions import LearnedVersions
from services.publishers import trusted
from services.remedies import remedy
from services.stored import Stored
from streams.erasures import Erasure
from streams.events import Sample
from streams.replay import Tables
from streams.scrub.identity import ledger_key

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from services.rollout_records import RolloutRecord
    from services.runtime import Runtime
    from services.settings import Settings

MOST_STEPS = 4
"""Steps that a line with a backlog takes before the next line's turn."""


@dataclass(frozen=True)
class Shared:
    """What all lines of a process have in common: one base in memory, one door to everything outside."""

    base: Base
    anchors: Anchors
    tables: Tables
    client: redis.Redis
    runtime: Runtime
    metrics: LearnerMetrics
    producer: Producer
    step_with: Stepper
    clock: Callable[[], float]
    wall: Callable[[], float]


class Line:
    """A line's own LoRA, moments, ring, table, account, checkpoint and letter; `settings.train.line` names it."""

    def __init__(self, settings: Settings, shared: Shared) -> None:
        """Become the line's owner and continue where it stood. Raises redis.RedisError."""
        self._settings = settings
        self._shared = shared
        self._generation = -1
        self._denied: frozenset[str] = frozenset()
        self._denied_counted = 0
        self._stable = BASE
        self._canary: str | None = None
        self._first_candidate: float | None = None
        self._refused: dict[str, float] = {}
        """What a tuner wanted and the settings' rules did not."""
        self._turned_at = 0.0
        self._account = LineAccount(shared.client, settings.train.line)
        self._epoch = self._account.claim()
        self._build()

    def _build(self) -> None:
        settings, config, shared = self._settings, self._settings.train, self._shared
        folder, directory = base_folder(config.base), Path(config.directory)
        base = shared.base
        self._table = shared.tables.of(config.line)
        registry = Registry(
            settings.registry.directory, trusted(settings.registry), shared.wall,
            signer=load_signer(settings.registry.key),
        )  # fmt: skip
        self._stored = Stored(shared.tables, config.line, ledger_key(settings.keys.keys()), self._is_outdated)
        self._versions = versions = Versions(
            base, base_identity(folder, folder.name), registry, trusted(settings.registry), directory / "versions"
        )
        self._told = LearnedVersions(
            settings, shared.runtime, shared.producer, versions, self._stored, epoch=self._epoch, wall=shared.wall
        )
        judge = Judge(
            base, versions, self._account, self._stored, Gauge(base, shared.anchors.gauge),
            identity=Identity(self._epoch, commit(), config.seed), config=settings.publish, limits=settings.gate,
            sets=settings.heldout, clock=shared.wall, directory=directory / "candidates",
        )  # fmt: skip
        self.learner = Learner(
            base, Feed(self._table, base.chat, shared.anchors.training, config, settings.augment), config,
            Checkpoints(directory / config.line, config.keep_checkpoints), versions,
            offer=self._offer, clock=shared.clock, observe=self._observe, outdated=self._outdated,
            step_with=shared.step_with,
        )  # fmt: skip
        queue = ReviewQueue(shared.client, settings.select)
        self._review = ReviewFeed(queue, self._table, settings.select, self._uncertain)
        self._worker = Worker(
            judge, self.learner.notices.put, done=self._judged, again=self._again, failed=self._failed
        )
        self.learner.judging = lambda: self._worker.judging
        self.learner.on_its_way = lambda: self.learner.parent not in (self._stable, self._canary)
        repeated = self.learner.resume()
        shared.runtime.log.info("resumed", step=self.learner.trajectory.step, count=repeated)
        newest = registry.newest(config.line)
        if newest is not None:
            manifest = registry.manifest(newest)
            # a process that died after the commit had neither sent it nor told the loop
            known = manifest.training
            self.learner.notices.put(Notice("published", newest, known.steps[1], int(known.run)))
            self._told.record(newest, manifest.eval.decision, manifest.eval.gated_against)

    @property
    def steps_due(self) -> int:
        """Steps that are the line's before another's turn: one, and one more for each batch that waits, up to four."""
        return min(1 + self.learner.feed.waiting // self._settings.train.fresh_batch, MOST_STEPS)

    def start(self) -> None:
        """Begin to judge candidates."""
        self._worker.start()

    def turn(self) -> bool:
        """Hear operators and tuners, then take one step if there is enough to train on. Raises redis.RedisError."""
        started = self._turned_at = self._shared.clock()
        self._count_denied()
        self._name_facts()
        self._tune()
        report = self.learner.turn()
        self._review.turn(started)
        return report is not None

    def idle(self, seconds: float) -> None:
        """Book a pause."""
        self._shared.metrics.waited(self.learner, seconds)

    def follow(self, wanted: RolloutRecord) -> None:
        """Hear what the controller wants; the loop and the worker each get their part."""
        if wanted.line != self._settings.train.line or wanted.generation <= self._generation:
            return
        self._generation = wanted.generation
        for version in sorted(set(wanted.deny) - self._denied):
            self.learner.notices.put(Notice("denied", version))
        if wanted.stable != self._stable:
            self.learner.notices.put(Notice("promoted", wanted.stable))
        self._denied, self._stable, self._canary = frozenset(wanted.deny), wanted.stable, wanted.canary
        self._worker.rollout(self._stable, self._canary, self._denied)

    def erase(self, erasure: Erasure) -> tuple[str | None, int]:
        """Forget a customer: the version from which the line was rebuilt, and how many versions were withdrawn."""
        withdrawn: list[str] = []
        if erasure.first_steps:
            first = erasure.first_steps.get(self._table.table, 0)
            erasure = msgspec.structs.replace(erasure, first_step=first)
        rebuilt = self.learner.erase(erasure, lambda step: self._ancestor(step, withdrawn))
        self._worker.erased()
        return rebuilt, len(withdrawn)

    def finish(self) -> None:
        """Offer what was learned since the last candidate."""
        try:
            self.learner.tell()
        except redis.RedisError as error:
            self._shared.runtime.caught("learn.redis", error)
        else:
            last = self.learner.last_candidate()
            if last is not None:
                self._worker.offer(last)

    def close(self, timeout_s: float) -> bool:
        """Wait for the last decision, write a checkpoint. Whether nothing of the line runs any more."""
        ended = self._worker.stop(timeout_s)
        try:
            self.learner.hear()
            self.learner.save()
        except (redis.RedisError, RegistryError, OSError) as error:  # the draw log holds every step since the last one
            self._shared.runtime.caught("learn.close", error)
        return ended

    def _count_denied(self) -> None:
        """Tell the gate's account of versions that came back: they give no alpha back any more."""
        if len(self._denied) != self._denied_counted:
            self._account.deny(len(self._denied), self._epoch)
            self._denied_counted = len(self._denied)

    def _ancestor(self, step: int, withdrawn: list[str]) -> str:
        """The newest version that had not seen the step; later ones are withdrawn."""
        registry = self._versions.registry
        for version in registry.history(self._settings.train.line):
            manifest = registry.manifest(version)
            if manifest.training.steps[1] < step and registry.gone(version) is None:
                return version
            if registry.gone(version) is None:
                registry.withdraw(version, "erasure")
                withdrawn.append(version)
                self._told.withdrawn(version, manifest.eval.gated_against)
        return BASE

    def _offer(self, candidate: Candidate) -> None:
        if self._first_candidate is None:
            self._first_candidate = self._shared.clock()
        self._worker.offer(candidate)

    def _observe(self, report: StepReport, plan: Plan) -> None:
        now = self._shared.clock()
        self._review.observe(report.losses, plan.fresh)
        replies = [reply for document in plan.documents for reply in document.replies]
        rated, edited = any(r.label != "unknown" for r in replies), any(r.draft for r in replies)
        self._shared.metrics.stepped(report, now - self._turned_at, rated=rated, edited=edited)

    def _uncertain(self, seen: Sequence[Seen]) -> dict[str, Unsure]:
        """How sure the trajectory is of samples that it trained lately."""
        base, config = self._shared.base, self._settings.train
        made = [
            document
            for one in seen
            for document in documents(base.chat, one.sample, Drawn("fresh", one.key), config)[-1:]
        ]
        return uncertainty(tree_of(base, self.learner.trajectory.lora), made)

    def _outdated(self, facts: FactChanges, retired: int) -> None:
        """A fact changed: what states the old one leaves the held-out tables too, or the gate refuses the truth."""
        log = self._shared.runtime.log
        self._shared.metrics.superseded.inc(retired)
        log.info("superseded", reason="training", count=retired)
        log.info("superseded", reason="held out", count=self._stored.retire(facts.outdated))

    def _is_outdated(self, sample: Sample) -> bool:
        return self.learner.facts.outdated(sample)

    def _tune(self) -> None:
        """Take over what `driftline tune --live --apply` found; an odd value is told once and left alone."""
        wanted = self._account.tuned()
        if wanted in (self.learner.tuned, self._refused):
            return
        try:
            self.learner.tune(wanted)
            self._shared.runtime.log.info("tuned", step=self.learner.trajectory.step)
        except ValueError as error:
            self._refused = wanted
            self._shared.runtime.caught("learn.tune", error)

    def _name_facts(self) -> None:
        """Hear which facts an operator says have changed."""
        for raw in self._account.named_facts(self.learner.facts.named):
            try:
                named = decode_statements(raw)
            except ValueError as error:
                self._shared.runtime.caught("learn.facts", error)
                named = []
            self.learner.name(named)

    def _judged(self, judged: Judged) -> None:
        decision, name, clock = judged.decision, judged.version or judged.candidate.name, self._shared.clock
        waited = clock() - (self._first_candidate or clock())
        self._told.judged(judged)
        self._shared.metrics.judged(judged, waited)
        self._shared.runtime.log.info("decided", version=name, state=decision.verdict, reason=decision.why)
        if judged.version is not None:
            self._first_candidate = None
            self._shared.metrics.last_publish.set(self._shared.wall())

    def _again(self, version: str, stable: str, decision: Decision) -> None:
        """A waiting version was gated against the new stable: its record says so now."""
        self._shared.metrics.decisions.labels(decision.verdict).inc()
        self._told.record(version, decision.verdict, stable)

    def _failed(self, error: BaseException) -> None:
        self._shared.metrics.publish_failed()
        self._shared.runtime.caught("learn.publish", error)
        why = remedy(error, self._settings, ()) if isinstance(error, Exception) else None
        self._shared.runtime.log.warning("not_judged", reason=why or type(error).__name__)


def of_line(settings: Settings, line: str) -> Settings:
    """The settings as one line of the process reads them."""
    return replace(settings, train=replace(settings.train, line=line, lines=()))


def commit() -> str:
    """The checkout's commit, or `unknown` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
