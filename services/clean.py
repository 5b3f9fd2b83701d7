"""`driftline clean`: the stream worker: chats.raw -> scrub -> chats.clean -> assemble -> examples -> replay buffer."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from services.settings import Settings, SettingsError

if TYPE_CHECKING:
    import redis

    from services.runtime import Runtime
    from streams.app import Parts
    from streams.config import StreamConfig
    from streams.ledger import Entry
    from streams.replay import Offsets

LINGER_MS = 5

EMBEDDED_FETCH_WAIT_S = 0.1
"""The embedded broker answers a fetch that finds nothing only after its wait: each topic would add up to that."""

HOLD_MOST_S = 30.0
"""Longest time that a turn may be held: a worker that dies meanwhile reads all of it again."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Takes no arguments of its own."""
    del parser


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the worker until SIGTERM; 70 asks the supervisor for a restart."""
    del args
    from services.runtime import Runtime  # noqa: PLC0415 - imports are paid by the process that uses them
    from streams import app  # noqa: PLC0415 - faust
    from streams.metrics import StreamMetrics  # noqa: PLC0415 - with faust

    runtime = Runtime("clean", settings.admin)
    try:
        config = _config(settings)
        metrics = StreamMetrics(runtime.registry)
        worker = app.create_app(config, _parts(settings, config, runtime, metrics))
        runtime.ready("worker", lambda: None if worker.ready and worker.begun else "no partitions yet")
        return app.run(worker, runtime.stop)
    finally:
        runtime.close()


def _config(settings: Settings) -> StreamConfig:
    """The stream's settings with the broker's, topics in place. Raises `SettingsError`."""
    from streams.admin import broker_epoch, ensure_topics, touch_topics  # noqa: PLC0415 - confluent-kafka
    from streams.topics import CHATS_CLEAN, CHATS_RAW, EXAMPLES  # noqa: PLC0415 - with it

    if settings.scrub.hold_s > HOLD_MOST_S:
        raise SettingsError(f"scrub.hold_s = {settings.scrub.hold_s}: wants at most {HOLD_MOST_S}; offsets wait for it")
    kafka = settings.kafka
    config = replace(
        settings.stream, bootstrap=kafka.bootstrap, prefix=kafka.prefix, epoch=kafka.epoch, extra=kafka.extra
    )
    if kafka.embedded:
        touch_topics(config)
        return replace(config, fetch_wait_s=min(config.fetch_wait_s, EMBEDDED_FETCH_WAIT_S))
    ensure_topics(config)
    return config if config.epoch else replace(config, epoch=broker_epoch(config, [CHATS_RAW, CHATS_CLEAN, EXAMPLES]))


def _parts(settings: Settings, config: StreamConfig, runtime: Runtime, metrics: Any) -> Parts:
    from confluent_kafka import Producer  # noqa: PLC0415 - imports are paid by the process that uses them

    from services.clean_erasures import Erasures, answer_erasures  # noqa: PLC0415
    from services.local.redis_server import client as redis_client  # noqa: PLC0415
    from services.replay_care import care  # noqa: PLC0415
    from services.scrub_watch import watch  # noqa: PLC0415
    from streams.app import Parts  # noqa: PLC0415
    from streams.assemble.store import AssembleStore  # noqa: PLC0415
    from streams.assemble_stage import AssembleStage  # noqa: PLC0415
    from streams.clock import StreamClock  # noqa: PLC0415
    from streams.decision_stage import DecisionStage  # noqa: PLC0415
    from streams.held_turns import HeldTurns  # noqa: PLC0415
    from streams.insert_stage import InsertStage  # noqa: PLC0415
    from streams.kafka_figures import KafkaFigures  # noqa: PLC0415
    from streams.late_pass import LatePass  # noqa: PLC0415
    from streams.near_copies_store import RedisCopies  # noqa: PLC0415
    from streams.replay import Offsets, open_tables  # noqa: PLC0415
    from streams.scrub import Scrubber  # noqa: PLC0415
    from streams.scrub.audit import LeakAudit  # noqa: PLC0415
    from streams.scrub.identity import ledger_key  # noqa: PLC0415
    from streams.scrub_stage import ScrubStage, ScrubStore  # noqa: PLC0415

    keys = settings.keys.keys()
    key = ledger_key(keys)
    client = redis_client(settings.redis.url)
    # Before the tables: a restart while they open is another server too.
    changed = _watch(client, require_aof=settings.replay.require_aof)

    def pause(seconds: float) -> bool:
        runtime.tick()
        return runtime.stop.wait(seconds)

    tables = open_tables(client, settings.replay, key, config.epoch, configure=True, pause=pause)
    for warning in tables.warnings:
        runtime.log.warning("redis_settings", reason=warning)
    care(tables, runtime.registry, runtime.stop, lambda error: runtime.caught("replay", error))
    offsets = Offsets(client, config.epoch, config.source_retention_s)
    sure: dict[str, str | float | bool] = {
        "acks": "all", "enable.idempotence": True, "linger.ms": LINGER_MS, "compression.type": "lz4",
        "message.timeout.ms": 0, "partitioner": "murmur2_random", "queue.buffering.max.messages": 200_000,
    }  # fmt: skip
    producer = Producer({**config.client("clean", **sure), **KafkaFigures(runtime.registry).settings()})
    states = ScrubStore(client, config, config.epoch, settings.scrub.state_ttl_s)
    audit = LeakAudit(
        settings.scrub,
        keys,
        report=lambda event_id, label: runtime.log.warning("pii_audit", where=event_id, reason=label),
    )
    held = HeldTurns(settings.scrub.hold_s, time.monotonic)
    scrub = ScrubStage(Scrubber(settings.scrub, keys), states, keys, config, metrics, audit=audit, held=held)
    watch(settings.scrub, keys, metrics.planted, runtime.stop, lambda error: runtime.caught("canaries", error))
    store = AssembleStore(client, config, settings.quality, key, config.epoch)
    assemble = AssembleStage(
        store, RedisCopies(client, settings.quality),
        StreamClock(client, config.epoch, time.time),  # noqa: TID251 - the process's edge
        config, quality=settings.quality, key=key, count=metrics, late=LatePass(states, keys, metrics.found_late),
    )  # fmt: skip
    erasures = partial(Erasures, settings, client, assemble.forget, time.monotonic)
    answer_erasures(erasures, runtime.stop, lambda error: runtime.caught("erasures", error))
    return Parts(
        scrub=scrub, holder=scrub, assemble=assemble,
        insert=InsertStage(tables, offsets, config, key, load=store.load, count=metrics),
        decide=DecisionStage(store, states, keys, settings.scrub, config), producer=producer,
        move=_mover(client, key, config),
        resume=partial(_resume, offsets), skip=partial(_skip, offsets), effects_to=partial(_effects_to, offsets),
        changed=changed, metrics=metrics, caught=runtime.caught, beat=runtime.tick,
    )  # fmt: skip


def _mover(client: redis.Redis, key: bytes, config: StreamConfig) -> Callable[[Sequence[tuple[str, Entry]]], None]:
    from streams.ledger import Ledger  # noqa: PLC0415 - with redis

    ledger = Ledger(client, key, config.ledger_ttl_s)

    def move(moves: Sequence[tuple[str, Entry]]) -> None:
        for digest, entry in moves:
            ledger.move(digest, entry)

    return move


def _resume(offsets: Offsets, topic: str, partition: int, committed: int | None, first: int) -> int | None:
    """Where Redis knows all effects up to; None where nothing was ever committed, or nothing is kept of the topic."""
    from streams.replay import TopicPartition  # noqa: PLC0415 - with redis
    from streams.topics import REVIEW_DECISIONS  # noqa: PLC0415 - with it

    if topic == REVIEW_DECISIONS:
        return None  # its effects travel on examples and chats.clean, whose offsets are kept
    place = TopicPartition(topic, partition)
    offsets.begin(place, first)
    return None if committed is None else offsets.resume_offset(place)


def _skip(offsets: Offsets, topic: str, partition: int, gap: range) -> None:
    from streams.replay import TopicPartition  # noqa: PLC0415 - with redis

    offsets.mark(TopicPartition(topic, partition), [gap])


def _effects_to(offsets: Offsets, topic: str, partition: int) -> int:
    from streams.replay import TopicPartition  # noqa: PLC0415 - with redis

    return offsets.resume_offset(TopicPartition(topic, partition))


def _watch(client: redis.Redis, *, require_aof: bool) -> Callable[[], bool]:
    """Tells whether the server's run id is another one than at start: it may have lost its last second.

    What it tells with raises `UnsafeServer` when a setting was changed under which samples get lost: the worker ends,
    and does not start again before it is mended.
    """
    from streams.replay import check_server  # noqa: PLC0415 - with redis

    first = str(client.info("server")["run_id"])

    def changed() -> bool:
        check_server(client, require_aof=require_aof)
        return str(client.info("server")["run_id"]) != first

    return changed
