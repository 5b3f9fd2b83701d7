"""`driftline router`: builds the door from settings, follows the record and the nodes, delivers what is spooled."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.http_server import HttpServer
from services.rollout_records import decode_node, decode_rollout
from services.router.app import Routes, create_app
from services.router.backlog import Backlog
from services.router.door import Door
from services.router.mask import make_mask
from services.router.metrics import RouterMetrics
from services.router.nodes import NodeClient
from services.router.pins import Pins
from services.router.spool import Spool
from services.router.view import View
from services.runtime import Runtime
from services.topic_feed import Record, TopicFeed, make_producer
from streams.topics import NODES, ROLLOUT

if TYPE_CHECKING:
    from services.settings import Settings

POLL_S = 0.05
"""Longest wait for a record: so late may a rollback be seen, seconds."""


def arguments(_parser: argparse.ArgumentParser) -> None:
    """The router has no options of its own; see the sections `router` and `keys` of the settings."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal. Returns 0."""
    runtime = Runtime("router", settings.admin)
    config, clock = settings.router, time.monotonic
    view = View(config.line, config.spool / "record.json")
    metrics = RouterMetrics(runtime.registry)
    base = settings.kafka.client("router")
    spool = Spool(config.spool / "spool", lambda: make_producer(base), clock, prefix=settings.kafka.prefix)
    keys = settings.keys.keys()
    door = Door(
        config,
        keys,
        view,
        pins=Pins(redis_client(settings), config.pin_ttl_s),
        spool=spool,
        backlog=Backlog(config.spool / "backlog.jsonl"),
        nodes=NodeClient(config.connect_timeout_s),
        mask=make_mask(settings.scrub, keys),
        metrics=metrics,
        clock=clock,
        wall=time.time,  # noqa: TID251 - the composition root hands the clock on
    )
    routes = Routes(config, settings.keys.admin_token, door)
    server = HttpServer(create_app(routes, door), config.host, config.port)
    feed = TopicFeed(base, [ROLLOUT, NODES], clock, prefix=settings.kafka.prefix)
    runtime.ready("nodes", lambda: None if view.safe(clock()) else "no node is ready for stable")
    runtime.ready("api", lambda: None if server.alive() else "the API has stopped")
    server.start()
    runtime.log.info("serving", url=server.url)
    while not runtime.stop.is_set():
        runtime.tick()
        for record in feed.poll(POLL_S):
            follow(view, record, runtime)
        view.heard_s = feed.heard_s
        spool.poll()
        pending = spool.pending()
        for topic in metrics.topics:
            metrics.spooled.labels(topic).set(pending.get(topic, 0))
        if not feed.known:
            runtime.stop.wait(POLL_S)
    server.stop()
    feed.close()
    spool.close()
    runtime.close()
    return 0


def follow(view: View, record: Record, runtime: Runtime) -> None:
    """Act on one record of the fleet's state."""
    if record.value is None:
        return
    try:
        if record.topic == NODES:
            view.report(decode_node(record.value))
            return
        state = decode_rollout(record.value)
    except msgspec.DecodeError as error:
        runtime.caught("router.feed", error)
        return
    if view.accept(state):
        runtime.log.info("rollout", generation=state.generation, state=state.state, version=state.canary)


def redis_client(settings: Settings) -> Redis:
    """An asyncio client whose every call ends in time and is never repeated behind our back."""
    timeout = settings.redis.timeout_s
    return Redis.from_url(
        settings.redis.url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
    )
