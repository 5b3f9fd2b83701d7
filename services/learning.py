"""The learner's process: Redis, topics and one or more lines on one base around `learner.train`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import torch
import torch.distributed as dist

from learner.account import Superseded
from learner.adapter import load_base, new_lora
from learner.allocator import keep_freed_memory
from learner.anchors import load_anchors
from learner.metrics import LearnerMetrics
from learner.ranks import Ranks
from learner.shape import base_folder
from learner.update import new_trajectory, step
from services.learning_line import Line, Shared, of_line
from services.local import redis_server
from services.remedies import remedy
from services.replay_figures import UsageCollector
from services.rollout_records import decode_rollout
from services.runtime import Runtime
from services.settings import SettingsError
from services.topic_feed import TopicFeed, make_producer, send
from streams.erasures import Erasure, Receipt, decode_erasure
from streams.erasures import encode as encode_receipt
from streams.replay import ReplayError, Tables, open_tables
from streams.scrub.identity import ledger_key
from streams.topics import ERASURES, RECEIPTS, ROLLOUT

if TYPE_CHECKING:
    from services.settings import Settings

DECIDE_S = 9.0
"""How long an orderly end waits for the last decisions: orchestrators kill what takes much longer, seconds."""

RETRY_S = 1.0
"""Pause after an error of Redis, seconds."""

SWITCH_S = 0.0005
"""How long the loop may keep the interpreter from the judge: its many short operations wait that long each, seconds."""

IDLE_S = 0.1
"""Pause while there is nothing to train on, seconds."""


def serve(settings: Settings) -> int:
    """Train until a signal. Returns 0."""
    device_of(settings.train.device)  # refused before anything is waited for
    torch.set_num_threads(settings.train.threads)
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
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
        ended = process.close()
    if not ended:
        os._exit(0)  # all is saved, but a judge inside torch cannot be ended, and would abort the interpreter's end
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
    """Everything that the learner's process holds: the doors to the outside, the base, and its lines."""

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
        self.lines: list[Line] = []
        self.waiting: str | None = "starting"
        """Why no step can be taken; None while they can."""

    def open(self) -> bool:
        """Wait for the buffer's tables, then load base and lines. False when stopped before."""
        settings = self._settings
        while not self._runtime.stop.is_set():
            self._runtime.tick()
            try:
                key = ledger_key(settings.keys.keys())
                shared = self._shared(open_tables(self._redis, settings.replay, key, settings.kafka.epoch))
                self.lines = [
                    Line(of_line(settings, name), shared) for name in (settings.train.line, *settings.train.lines)
                ]
            except (ReplayError, redis.RedisError) as error:
                self._wait("learn.open", error)
            else:
                self._runtime.registry.register(UsageCollector(shared.tables))
                self.waiting = None
                return True
        return False

    def train(self) -> None:
        """Step until stopped, line by line; while Redis is away or nothing can be written it waits."""
        stop = self._runtime.stop
        for line in self.lines:
            line.start()
        while not stop.is_set():
            self._runtime.tick()
            self._follow()
            started = self._clock()
            try:
                worked = [self.turns(line) for line in self.lines]
                self.waiting = None
            except (redis.RedisError, OSError) as error:
                self._wait("learn.redis" if isinstance(error, redis.RedisError) else "learn.disc", error)
                continue
            except Superseded as error:
                self._runtime.caught("learn.superseded", error)
                stop.set()
                continue
            if not any(worked):
                stop.wait(IDLE_S)
                for line in self.lines:
                    line.idle((self._clock() - started) / len(self.lines))

    def _wait(self, module: str, error: Exception) -> None:
        """Count an error that only others can mend, say once what they should look at, pause."""
        self._runtime.caught(module, error)
        why = remedy(error, self._settings, ()) or type(error).__name__
        if why != self.waiting:
            self._runtime.log.warning("waiting", reason=why)
        self.waiting = why
        self._runtime.stop.wait(RETRY_S)

    def turns(self, line: Line) -> bool:
        """A line's steps before the next line's: more of them the more waits. Whether any was taken."""
        worked = False
        for _ in range(line.steps_due):
            if self._runtime.stop.is_set() or not line.turn():
                break
            worked = True
            self._runtime.tick()
        self._metrics.counted(line.learner)
        return worked

    def close(self) -> bool:
        """Let every line end in order, then leave. Whether no decision is still being made."""
        for line in self.lines:
            line.finish()
        deadline = self._clock() + DECIDE_S
        ended = [line.close(max(deadline - self._clock(), 0.0)) for line in self.lines]
        if self._ranks is not None:
            self._ranks.stop()
        self._feed.close()
        self._producer.flush(5)
        self._runtime.close()
        return all(ended)

    def _shared(self, tables: Tables) -> Shared:
        config = self._settings.train
        base = load_base(base_folder(config.base), device=device_of(config.device))
        if base.foreign is not None:
            self._runtime.log.warning("unproven_architecture", reason="transformers computes the forward pass")
        anchors = load_anchors(base, config.anchors, config.anchor_tokens, Path(config.directory))
        return Shared(
            base, anchors, tables, self._redis, self._runtime, self._metrics, self._producer,
            step if self._ranks is None else self._ranks.take, self._clock, self._wall,
        )  # fmt: skip

    def _follow(self) -> None:
        """Hear what the controller wants and whom to forget."""
        for record in self._feed.poll(0.0):
            if record.value is None:
                continue
            if record.topic == ERASURES:
                self._erase(decode_erasure(record.value))
                continue
            wanted = decode_rollout(record.value)
            for line in self.lines:
                line.follow(wanted)

    def _erase(self, erasure: Erasure) -> None:
        """Forget a customer in every line, withdraw every version that learned from them, and answer."""
        done = [line.erase(erasure) for line in self.lines]
        rebuilt = " ".join(version for version, _ in done if version)
        withdrawn = sum(count for _, count in done)
        detail: dict[str, int | str] = {"rebuilt_from": rebuilt, "withdrawn": withdrawn}
        receipt = Receipt(erasure_id=erasure.erasure_id, process="learn", complete=True, detail=detail)
        send(self._producer, self._settings.kafka.prefix + RECEIPTS, erasure.erasure_id, encode_receipt(receipt))
        self._runtime.log.info("erased", count=withdrawn, version=rebuilt)


def device_of(configured: str) -> str:
    """`cuda` where there is one and `auto` or `cuda` is asked for, else `cpu`. Raises SettingsError."""
    if configured == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "train.device = 'cuda': torch finds no CUDA device here; set auto or cpu, or mend the driver"
        )
    return "cuda" if configured != "cpu" and torch.cuda.is_available() else "cpu"
