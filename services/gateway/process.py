"""`driftline gateway`: builds the door from settings and serves until a signal."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from services.gateway.app import Gateway, create_app
from services.gateway.capture import Capture
from services.gateway.memory import Memory, connect
from services.gateway.metrics import GatewayMetrics
from services.gateway.sink import Sink
from services.http_server import HttpServer
from services.pacing import Backlog
from services.runtime import Runtime
from streams.kafka_figures import KafkaFigures
from streams.topics import CHATS_RAW

if TYPE_CHECKING:
    from services.settings import Settings

TICK_S = 0.5


def arguments(_parser: argparse.ArgumentParser) -> None:
    """The gateway has no options of its own; see the section `gateway` of the settings."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal. Returns 0."""
    runtime = Runtime("gateway", settings.admin)
    config, kafka, clock = settings.gateway, settings.kafka, time.monotonic
    sink = Sink(
        {**kafka.client("gateway"), **KafkaFigures(runtime.registry).settings()},
        kafka.prefix + CHATS_RAW,
        clock,
        max_queue_bytes=config.max_queue_bytes,
        timeout_s=config.produce_timeout_s,
    )
    metrics = GatewayMetrics(runtime.registry)
    memory = Memory(
        connect(settings.redis.url, settings.redis.timeout_s),
        kafka.epoch or "kafka",
        config.remember_s,
        lambda error: runtime.caught("gateway.memory", error),
    )
    wall = time.time  # noqa: TID251 - the composition root hands the clock on
    gateway = Gateway(config, sink, memory, metrics, clock=clock, wall=wall)
    capture = None
    if config.upstream:
        capture = Capture(config, sink, memory, metrics, tenant=gateway.tenant, wall=wall)
    server = HttpServer(create_app(gateway, capture), config.host, config.port)
    reachable = _Reachable(sink)
    runtime.ready("kafka", reachable.check)
    backlog = None
    if kafka.embedded:
        group = kafka.prefix + settings.ingest.reader_group
        backlog = Backlog(kafka.client("gateway-reader"), group, kafka.prefix + CHATS_RAW)
    runtime.ready("api", lambda: None if server.alive() else "the API has stopped")
    sink.start()
    server.start()
    runtime.log.info("serving", url=server.url)
    while not runtime.stop.wait(TICK_S):
        runtime.tick()
        reachable.ask()
        sink.paused = backlog is not None and backlog.full()
    server.stop()
    if backlog is not None:
        backlog.close()
    sink.close()
    runtime.close()
    return 0


class _Reachable:
    """Whether Kafka answers, asked by the main loop so that /readyz itself never waits."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._reason: str | None = "kafka was not asked yet"

    def ask(self) -> None:
        """Ask now."""
        good = not self._sink.stuck() and self._sink.reachable(TICK_S)
        self._reason = None if good else "kafka does not answer"

    def check(self) -> str | None:
        """None, or why the gateway is not ready."""
        return self._reason
