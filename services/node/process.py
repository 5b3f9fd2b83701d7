"""`driftline node`: builds one agent and its engine from settings, follows the rollout record, reports."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import Producer

from learner.registry import Foundation, Manifest, Registry, Standing, Trust, base_identity, verify
from learner.shape import base_folder
from services.engines import Engine
from services.engines.sglang import SglangEngine
from services.engines.vllm import VllmEngine
from services.http_server import HttpServer
from services.node.agent import Agent
from services.node.desired import Desired
from services.node.door import Doorway, create_app
from services.node.metrics import NodeMetrics
from services.node.safety import Safety
from services.publishers import trusted
from services.rollout_records import NodeRecord, VersionStatus, decode_rollout, encode
from services.runtime import Runtime
from services.serving_config import NodeConfig
from services.topic_feed import TopicFeed, make_producer, send
from streams.topics import ADAPTER_EVENTS, NODES, ROLLOUT

if TYPE_CHECKING:
    from services.settings import Settings

POLL_S = 0.1
"""Longest wait for a record, seconds."""


def arguments(_parser: argparse.ArgumentParser) -> None:
    """A node has no options of its own; see the sections `node` and `registry` of the settings."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal. Returns 0."""
    runtime = Runtime("node", settings.admin)
    config, clock = settings.node, time.monotonic
    wall = time.time  # noqa: TID251 - the composition root hands the clock on
    producer = make_producer(settings.kafka.client(config.name))
    base = base_folder(config.base)
    foundation = base_identity(base, base.name)
    versions = Store(
        Registry(settings.registry.directory, trusted(settings.registry), wall), trusted(settings.registry), foundation
    )
    engine = make_engine(settings.node, base, wall)
    metrics = NodeMetrics(runtime.registry)

    def note(event: str, version: str, reason: str) -> None:
        runtime.log.info(event, version=version, reason=reason)
        value = {"event": event, "version": version, "node": config.name, "reason": reason, "at": wall()}
        send(producer, settings.kafka.prefix + ADAPTER_EVENTS, version, msgspec.json.encode(value))

    config.directory.mkdir(parents=True, exist_ok=True)
    desired = Desired(config.directory / "rollout.json", config.line)
    agent = Agent(
        config, engine, versions, foundation=foundation, desired=desired, metrics=metrics, clock=clock, note=note
    )
    safety = Safety(settings.quality, producer, settings.kafka.prefix, wall=wall, count=metrics.flagged.inc)
    server = HttpServer(create_app(Doorway(agent, engine, safety.look)), config.host, config.port)
    report = Report(agent, settings, producer, config.url or server.url, wall)
    feed = TopicFeed(settings.kafka.client(config.name), [ROLLOUT], clock, prefix=settings.kafka.prefix)
    runtime.ready("stable", agent.unready)
    server.start()
    runtime.log.info("serving", url=server.url)
    loop(runtime, agent, feed, report, clock)
    report.send(leaving=True)
    server.stop()
    engine.close()
    feed.close()
    producer.flush(5)
    runtime.close()
    return 0


def loop(runtime: Runtime, agent: Agent, feed: TopicFeed, report: Report, clock: Callable[[], float]) -> None:
    """Reconcile on every record and every few seconds, report on every change and every few seconds."""
    stepped = -report.config.reconcile_s
    while not runtime.stop.is_set():
        runtime.tick()
        for record in feed.poll(POLL_S):
            try:
                agent.accept(decode_rollout(record.value or b""))
            except msgspec.DecodeError as error:
                runtime.caught("node.feed", error)
        if not feed.known:
            agent.wake.wait(POLL_S)
        if agent.wake.is_set() or clock() - stepped >= report.config.reconcile_s or agent.unready():
            stepped = clock()
            agent.step()
        report.maybe(clock())


class Report:
    """A node's record on adapters.nodes: at once when something changed, else every `report_s`."""

    def __init__(
        self, agent: Agent, settings: Settings, producer: Producer, url: str, wall: Callable[[], float]
    ) -> None:
        self.config = settings.node
        self._agent = agent
        self._producer = producer
        self._topic = settings.kafka.prefix + NODES
        self._url = url
        self._wall = wall
        self._started_at = wall()
        self._last: tuple[int, dict[str, VersionStatus], tuple[str, ...]] | None = None
        self._sent = 0.0

    def maybe(self, now: float) -> None:
        """Send if something changed or the time has come."""
        state = (self._agent.generation, self._agent.statuses(), self._agent.poisoned)
        if state != self._last or now - self._sent >= self.config.report_s:
            self._last, self._sent = state, now
            self.send()

    def send(self, *, leaving: bool = False) -> None:
        """Send now."""
        record = NodeRecord(
            node=self.config.name,
            url=self._url,
            generation=self._agent.generation,
            versions=self._agent.statuses(),
            engine=self.config.engine,
            started_at=self._started_at,
            at=self._wall(),
            every_s=self.config.report_s,
            line=self.config.line,
            restarts=max(self._agent.restarts, 0),
            poisoned=self._agent.poisoned,
            leaving=leaving,
        )
        send(self._producer, self._topic, self.config.name, encode(record))


@dataclass(frozen=True)
class Store:
    """The registry as the agent sees it: fetch, then every check on the local bytes."""

    registry: Registry
    trust: Trust
    foundation: Foundation

    def fetch(self, version: str, into: Path) -> Path:
        """Copy a version into a folder. Raises RegistryError, OSError."""
        return self.registry.fetch(version, into)

    def verify(self, directory: Path, standing: Standing) -> Manifest:
        """All checks before load. Raises Refused."""
        return verify(directory, self.trust, self.foundation, standing)


def make_engine(config: NodeConfig, base: Path, wall: Callable[[], float]) -> Engine:
    """The driver that the settings name; only the embedded one loads torch."""
    if config.engine == "embedded":
        from services.engines.embedded import EmbeddedEngine  # noqa: PLC0415 - loads torch

        return EmbeddedEngine(
            base, wall, batch=config.batch, max_new_tokens=config.max_new_tokens, queue_size=config.queue
        )
    if config.engine == "vllm":
        return VllmEngine(config.engine_url, config.engine_timeout_s, config.engine_command)
    return SglangEngine(config.engine_url, config.engine_timeout_s, config.engine_command)
