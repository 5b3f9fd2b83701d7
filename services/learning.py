"""The learner's process: Redis, registry, topics and the worker around `learner.train`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import torch
import torch.distributed as dist

from learner.account import LineAccount, Superseded
from learner.adapter import load_base, new_lora, tree_of
from learner.anchors import Gauge, load_anchors
from learner.batch import Drawn, documents
from learner.checkpoint import Checkpoints
from learner.feed import Feed, Plan
from learner.gate import Decision
from learner.metrics import LearnerMetrics
from learner.publish import Identity, Judge, Judged, Versions
from learner.ranks import Ranks
from learner.registry import Registry, base_identity, load_signer
from learner.review_feed import ReviewFeed, Seen
from learner.select import ReviewQueue
from learner.statements import decode_statements
from learner.supersede import FactChanges
from learner.train import BASE, Candidate, Learner, Notice
from learner.uncertainty import Unsure, uncertainty
from learner.update import StepReport, new_trajectory, step
from learner.worker import Worker
from services.learned_versions import LearnedVersions
from services.local import redis_server
from services.node.process import base_folder
from services.publishers import trusted
from services.rollout_records import decode_rollout
from services.runtime import Runtime
from services.stored import Stored
from services.topic_feed import TopicFeed, make_producer, send
from streams.erasures import Erasure, Receipt, decode_erasure
from streams.erasures import encode as encode_receipt
from streams.events import Sample
from streams.replay import ReplayError, Tables, open_tables
from streams.scrub.identity import ledger_key
from streams.topics import ERASURES, RECEIPTS, ROLLOUT

if TYPE_CHECKING:
    from services.settings import Settings

RETRY_S = 1.0
"""Pause after an error of Redis, seconds."""

DECIDE_S = 9.0
"""How long an orderly end waits for the last decision: orchestrators kill what takes much longer, seconds."""

IDLE_S = 0.1
"""Pause while there is nothing to train on, seconds."""


def serve(settings: Settings) -> int:
    """Train until a signal. Returns 0."""
    torch.set_num_threads(settings.train.threads)
    ranks = join()
    if ranks is not None and ranks.rank > 0:
        return help_out(settings, ranks)
    runtime = Runtime("learn", settings.admin)
    process = Process(settings, runtime, ranks)
    runtime.ready("buffer", lambda: process.waiting)
    try:
        if process.open():
            process.train()
    finally:
        process.close()
    return 0


def join() -> Ranks | None:
    """The process group when torchrun started us, None when we are alone."""
    if not dist.is_torchelastic_launched():
        return None
    # a quiet stream may keep ranks waiting for days
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=365))
    return Ranks()


def help_out(settings: Settings, ranks: Ranks) -> int:
    """Take part in the steps of rank 0, which alone talks to buffer, gate and registry. Returns 0."""
    config = settings.train
    base = load_base(base_folder(config.base), device=device_of(config.device))
    lora = new_lora(base.shape, config.r, config.alpha, torch.Generator(), base.device)
    ranks.follow(base, new_trajectory(lora, base.shape.vocab, config))
    return 0


class Process:
    """Everything that the learner's process holds."""

    def __init__(self, settings: Settings, runtime: Runtime, ranks: Ranks | None = None) -> None:
        self._settings = settings
        self._ranks = ranks
        self._runtime = runtime
        self._clock = time.monotonic
        self._wall: Callable[[], float] = time.time  # noqa: TID251 - the composition root hands the clock on
        self._metrics = LearnerMetrics(runtime.registry)
        self._producer = make_producer(settings.kafka.client("learn"))
        self._feed = TopicFeed(
            settings.kafka.client("learn"), [ROLLOUT, ERASURES], self._clock, prefix=settings.kafka.prefix
        )
        self._redis = redis_server.client(settings.redis.url, settings.redis.timeout_s)
        self._account = LineAccount(self._redis, settings.train.line)
        self._epoch = 0
        self._built = False
        self._generation = -1
        self._denied: frozenset[str] = frozenset()
        self._denied_counted = 0
        self._stable = BASE
        self._first_candidate: float | None = None
        self._refused: dict[str, float] = {}
        """What a tuner wanted and the settings' rules did not."""
        self._turned_at = 0.0
        self.waiting: str | None = "starting"
        """Why no step can be taken; None while they can."""

    def open(self) -> bool:
        """Wait for the buffer's tables, then load base and line. False when stopped before."""
        while not self._runtime.stop.is_set():
            self._runtime.tick()
            try:
                settings = self._settings
                key = ledger_key(settings.keys.keys())
                tables = open_tables(self._redis, settings.replay, key, settings.kafka.epoch)
                self._epoch = self._account.claim()
                self._build(tables)
            except (ReplayError, redis.RedisError) as error:
                self._runtime.caught("learn.open", error)
                self.waiting = "the replay buffer is not there yet"
                self._runtime.stop.wait(RETRY_S)
            else:
                self.waiting = None
                self._built = True
                return True
        return False

    def train(self) -> None:
        """Step until stopped; an error of Redis pauses."""
        stop = self._runtime.stop
        self._worker.start()
        while not stop.is_set():
            self._runtime.tick()
            self._follow()
            started = self._turned_at = self._clock()
            try:
                self._count_denied()
                self._name_facts()
                self._tune()
                report = self._learner.turn()
                self._review.turn(started)
                self.waiting = None
            except redis.RedisError as error:
                self._runtime.caught("learn.redis", error)
                self.waiting = "Redis does not answer"
                stop.wait(RETRY_S)
                continue
            except Superseded as error:
                self._runtime.caught("learn.superseded", error)
                stop.set()
                continue
            self._metrics.counted(self._learner)
            if report is None:
                stop.wait(IDLE_S)
                self._metrics.waited(self._learner, self._clock() - started)

    def close(self) -> None:
        """Offer what was learned since the last candidate, wait for the decision, write a checkpoint, leave."""
        if self._built:
            try:
                self._learner.tell()
            except redis.RedisError as error:
                self._runtime.caught("learn.redis", error)
            else:
                last = self._learner.last_candidate()
                if last is not None:
                    self._worker.offer(last)
            self._worker.stop(DECIDE_S)
            self._learner.hear()
            self._learner.save()
        if self._ranks is not None:
            self._ranks.stop()
        self._feed.close()
        self._producer.flush(5)
        self._runtime.close()

    def _build(self, tables: Tables) -> None:

        settings, config = self._settings, self._settings.train
        folder, directory = base_folder(config.base), Path(config.directory)
        base = load_base(folder, device=device_of(config.device))
        if base.foreign is not None:
            self._runtime.log.warning("unproven_architecture", reason="transformers computes the forward pass")
        anchors = load_anchors(base, config.anchors, config.anchor_tokens, directory)
        registry = Registry(
            settings.registry.directory, trusted(settings.registry), self._wall,
            signer=load_signer(settings.registry.key),
        )  # fmt: skip
        self._stored = Stored(tables, config.line, ledger_key(settings.keys.keys()), self._is_outdated)
        self._versions = versions = Versions(
            base, base_identity(folder, folder.name), registry, trusted(settings.registry), directory / "versions"
        )
        self._told = LearnedVersions(
            settings, self._runtime, self._producer, versions, self._stored, epoch=self._epoch, wall=self._wall
        )
        judge = Judge(
            base, versions, self._account, self._stored, Gauge(base, anchors.gauge),
            identity=Identity(self._epoch, commit(), config.seed), config=settings.publish, limits=settings.gate,
            sets=settings.heldout, clock=self._wall, directory=directory / "candidates",
        )  # fmt: skip
        self._learner = Learner(
            base, Feed(tables.train, base.chat, anchors.training, config, settings.augment), config,
            Checkpoints(directory / config.line, config.keep_checkpoints), versions,
            offer=self._offer, clock=self._clock, observe=self._observe, outdated=self._outdated,
            step_with=step if self._ranks is None else self._ranks.take,
        )  # fmt: skip
        queue = ReviewQueue(self._redis, settings.select)
        self._review = ReviewFeed(queue, tables.train, settings.select, self._uncertain)
        self._worker = Worker(
            judge, self._learner.notices.put, done=self._judged, again=self._again, failed=self._failed
        )
        repeated = self._learner.resume()
        self._runtime.log.info("resumed", step=self._learner.trajectory.step, count=repeated)
        newest = registry.newest(config.line)
        if newest is not None:
            manifest = registry.manifest(newest)
            # a process that died after the commit had neither sent it nor told the loop
            known = manifest.training
            self._learner.notices.put(Notice("published", newest, known.steps[1], int(known.run)))
            self._told.record(newest, manifest.eval.decision, manifest.eval.gated_against)

    def _follow(self) -> None:
        """Hear what the controller wants; the loop and the worker each get their part."""
        for record in self._feed.poll(0.0):
            if record.value is None:
                continue
            if record.topic == ERASURES:
                self._erase(decode_erasure(record.value))
                continue
            wanted = decode_rollout(record.value)
            if wanted.line != self._settings.train.line or wanted.generation <= self._generation:
                continue
            self._generation = wanted.generation
            for version in sorted(set(wanted.deny) - self._denied):
                self._learner.notices.put(Notice("denied", version))
            if wanted.stable != self._stable:
                self._learner.notices.put(Notice("promoted", wanted.stable))
            self._denied, self._stable = frozenset(wanted.deny), wanted.stable
            self._worker.rollout(self._stable, self._denied)

    def _count_denied(self) -> None:
        """Tell the gate's account of versions that came back: they give no alpha back any more."""
        if len(self._denied) != self._denied_counted:
            self._account.deny(len(self._denied), self._epoch)
            self._denied_counted = len(self._denied)

    def _erase(self, erasure: Erasure) -> None:
        """Forget a customer, withdraw every version that learned from them, and answer."""
        withdrawn: list[str] = []
        rebuilt = self._learner.erase(erasure, lambda step: self._ancestor(step, withdrawn))
        self._worker.erased()
        detail: dict[str, int | str] = {"rebuilt_from": rebuilt or "", "withdrawn": len(withdrawn)}
        receipt = Receipt(erasure_id=erasure.erasure_id, process="learn", complete=True, detail=detail)
        send(self._producer, self._settings.kafka.prefix + RECEIPTS, erasure.erasure_id, encode_receipt(receipt))
        self._runtime.log.info("erased", count=len(withdrawn), version=rebuilt or "")

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
            self._first_candidate = self._clock()
        self._worker.offer(candidate)

    def _observe(self, report: StepReport, plan: Plan) -> None:
        now = self._clock()
        self._review.observe(report.losses, plan.fresh)
        replies = [reply for document in plan.documents for reply in document.replies]
        rated = any(reply.label != "unknown" for reply in replies)
        self._metrics.stepped(report, now - self._turned_at, rated=rated, edited=any(r.draft for r in replies))

    def _uncertain(self, seen: Sequence[Seen]) -> dict[str, Unsure]:
        """How sure the trajectory is of samples that it trained lately."""
        base, config = self._learner.base, self._settings.train
        made = [
            document
            for one in seen
            for document in documents(base.chat, one.sample, Drawn("fresh", one.key), config)[-1:]
        ]
        return uncertainty(tree_of(base, self._learner.trajectory.lora), made)

    def _outdated(self, facts: FactChanges, retired: int) -> None:
        """A fact changed: what states the old one leaves the held-out tables too, or the gate refuses the truth."""
        self._metrics.superseded.inc(retired)
        self._runtime.log.info("superseded", reason="training", count=retired)
        self._runtime.log.info("superseded", reason="held out", count=self._stored.retire(facts.outdated))

    def _is_outdated(self, sample: Sample) -> bool:
        return self._learner.facts.outdated(sample)

    def _tune(self) -> None:
        """Take over what `driftline tune --live --apply` found; an odd value is told once and left alone."""
        wanted = self._account.tuned()
        if wanted in (self._learner.tuned, self._refused):
            return
        try:
            self._learner.tune(wanted)
            self._runtime.log.info("tuned", step=self._learner.trajectory.step)
        except ValueError as error:
            self._refused = wanted
            self._runtime.caught("learn.tune", error)

    def _name_facts(self) -> None:
        """Hear which facts an operator says have changed."""
        for raw in self._account.named_facts(self._learner.facts.named):
            try:
                named = decode_statements(raw)
            except ValueError as error:
                self._runtime.caught("learn.facts", error)
                named = []
            self._learner.name(named)

    def _judged(self, judged: Judged) -> None:
        decision, name = judged.decision, judged.version or judged.candidate.name
        waited = self._clock() - (self._first_candidate or self._clock())
        self._metrics.judged(judged, waited)
        self._runtime.log.info("decided", version=name, state=decision.verdict, reason=decision.why)
        if judged.version is not None:
            self._first_candidate = None
            self._metrics.last_publish.set(self._wall())
        self._told.judged(judged)

    def _again(self, version: str, stable: str, decision: Decision) -> None:
        """A waiting version was gated against the new stable: its record says so now."""
        self._metrics.decisions.labels(decision.verdict).inc()
        self._told.record(version, decision.verdict, stable)

    def _failed(self, error: BaseException) -> None:
        self._metrics.publish_failed()
        self._runtime.caught("learn.publish", error)


def device_of(configured: str) -> str:
    """`cuda` where there is one and `auto` or `cuda` is asked for, else `cpu`."""
    return "cuda" if configured != "cpu" and torch.cuda.is_available() else "cpu"


def commit() -> str:
    """The checkout's commit, or `unknown` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
