"""The stream worker as one Faust process: chats.raw -> chats.clean -> examples -> replay buffer.

Agents (one each for those topics, one for reviewers' decisions) hand their records to lanes; a lane runs its stage and
acknowledges in order. `create_app` builds a worker, `run` runs it until it is told to stop. Nothing else of driftline
imports faust, except the files that this one alone uses.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from time import monotonic
from typing import Any

import faust
import uvloop
from mode.supervisors import CrashingSupervisor

from streams.assemble_stage import AssembleStage, Place
from streams.config import StreamConfig
from streams.insert_stage import InsertStage
from streams.lanes import Counters, Holder, Incoming, Lane, Stage
from streams.lean import transport_with
from streams.ledger import Entry
from streams.metrics import StreamMetrics
from streams.outbox import Outbox, Record
from streams.security import credentials
from streams.topics import CHATS_CLEAN, CHATS_RAW, EXAMPLES, REVIEW_DECISIONS
from streams.unaccounted import LOOK_EVERY_S, Unaccounted

TICK_S = 0.1
"""Between two looks at conversations that may be due, seconds."""

WATCH_S = 1.0
"""Between two looks at the server's identity and the lag, seconds."""

EXIT_FATAL = 70
"""Exit code after an error that only a restart can heal; supervisors restart it."""

AHEAD_CLEAN = 2_000
"""Most events of a partition that scrub may be ahead of the assembler: the embedded broker deletes above 5 MB."""

AHEAD_EXAMPLES = 300
"""Most samples of a partition that the assembler may be ahead of the replay buffer, for the same reason."""

INSERTS = 64
"""Most samples that one insert script stores."""

BUFFER = 65_536
"""Faust's buffer a stream: below it the fetcher sleeps a second whenever all buffers are full."""


@dataclass(frozen=True)
class Parts:
    """What a worker is made of besides Faust: its stages, its producer, and where ledger entries go."""

    scrub: Stage
    assemble: AssembleStage
    insert: InsertStage
    decide: Stage
    producer: Any
    """A confluent-kafka producer: acks=all, idempotent, murmur2_random."""
    move: Callable[[Sequence[tuple[str, Entry]]], None]
    """Write ledger entries of events whose only effect is a record."""
    resume: Callable[[str, int, int | None, int], int | None]
    """Topic, partition, committed and first offset -> where to read on; earlier when Redis went back in time."""
    skip: Callable[[str, int, range], None]
    """Offsets of a topic's partition that do not exist (compacted, transaction markers): nothing waits for them."""
    effects_to: Callable[[str, int], int]
    """Topic and partition -> first offset of whose effect Redis knows nothing."""
    changed: Callable[[], bool]
    """Whether Redis is another server than at start, so that offsets have to be compared again."""
    metrics: StreamMetrics
    caught: Callable[[str, BaseException], None]
    """Count and log an error that was handled."""
    holder: Holder | None = None
    """The scrub stage, where it holds turns for the next one."""
    beat: Callable[[], None] = lambda: None
    """The main loop is alive."""


@dataclass
class Worker:
    """A Faust app with its lanes."""

    app: Any
    config: StreamConfig
    parts: Parts
    lanes: dict[str, Lane] = field(default_factory=dict)
    error: BaseException | None = None
    begun: set[int] = field(default_factory=set)
    """Partitions of chats.clean that this worker has taken over."""
    ready: bool = False
    assigned_at: float = 0.0
    unaccounted: Unaccounted = field(init=False)

    def __post_init__(self) -> None:
        """What is acknowledged is compared with what Redis knows."""
        self.unaccounted = Unaccounted(self.parts.effects_to)

    def unread(self, topic: str, records: int) -> None:
        """The broker deleted records before they were read."""
        self.unaccounted.deleted(topic, records)
        self.parts.metrics.unread(topic, records)
        self.parts.caught("worker", RuntimeError("offsets out of range: records were deleted unread"))

    def fail(self, error: BaseException) -> None:
        """End the worker: nothing past the failed record is acknowledged."""
        if self.error is None:
            self.error = error

    def partitions(self, topic: str) -> set[int]:
        """Partitions of a topic that this worker owns."""
        name = self.config.topic(topic)
        try:
            return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == name}
        except Exception:  # noqa: BLE001 - the consumer has not started yet
            return set()

    def behind(self, topic: str) -> dict[int, int]:
        """Records of each owned partition that are not acknowledged."""
        found = {}
        for partition in self.partitions(topic):
            tp = faust.types.TP(self.config.topic(topic), partition)
            highwater = self.app.consumer.highwater(tp)
            if highwater is not None:
                done = self.lanes[topic].done.get(partition, self.app.consumer.started_at(tp))
                found[partition] = max(0, highwater - done)
        return found

    def at_end(self, topic: str, partition: int) -> bool:
        """Whether everything in a partition has been read and acknowledged."""
        tp = faust.types.TP(self.config.topic(topic), partition)
        highwater = self.app.consumer.highwater(tp)
        lane = self.lanes[topic]
        if highwater is None or not lane.idle:
            return False
        return bool(lane.done.get(partition, self.app.consumer.started_at(tp)) >= highwater)


def create_app(config: StreamConfig, parts: Parts) -> Worker:
    """A worker that is not started yet; makes no connection."""
    app = faust.App(
        config.prefix + config.group, broker=[f"kafka://{host}" for host in config.bootstrap.split(",")],
        autodiscover=False, web_enabled=False, topic_disable_leader=True, topic_allow_declare=False,
        store="memory://", key_serializer="raw", value_serializer="raw", stream_buffer_maxsize=BUFFER,
        broker_commit_interval=config.commit_interval_s, broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=min(2.0, config.session_timeout_s / 3), broker_rebalance_timeout=30.0,
        broker_request_timeout=max(30.0, config.session_timeout_s + 5), consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=config.instance or None, stream_wait_empty=False,
        processing_guarantee="at_least_once", broker_max_poll_records=4_000, consumer_metadata_max_age_ms=10_000,
        datadir=str(Path(gettempdir(), "driftline-faust")),  # Faust makes it though no table is kept in it
        loghandlers=[], broker_credentials=credentials(config.extra), broker_client_id="driftline-clean",
    )  # fmt: skip
    worker = Worker(app, config, parts)
    ways: dict[str, Lane] = {}
    app._transport = transport_with(app, config, parts.resume, ways, worker.unread)  # noqa: SLF001 - else by URL
    _lane(worker, CHATS_RAW, parts.scrub, config.batch)
    _lane(worker, CHATS_CLEAN, parts.assemble, config.batch)
    _lane(worker, EXAMPLES, parts.insert, min(config.batch, INSERTS))
    _lane(worker, REVIEW_DECISIONS, parts.decide, min(config.batch, INSERTS))
    ways.update({config.topic(name): lane for name, lane in worker.lanes.items()})

    async def revoked(_app: Any, gone: Any, **_: Any) -> None:
        for tp in gone:
            name = tp.topic.removeprefix(config.prefix)
            if name in worker.lanes:
                worker.lanes[name].forget(tp.partition)
                parts.metrics.gone(name, tp.partition)

    app.on_partitions_revoked.connect(revoked)
    app.on_partitions_assigned.connect(_assigned(parts.metrics))
    return worker


def run(worker: Worker, stop: threading.Event) -> int:
    """Run a worker until `stop`; 0 after an orderly end, 70 after an error that a restart heals."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(worker, stop))


def _is_ahead(worker: Worker, topic: str, most: int) -> bool:
    """Whether a partition of ours holds so much unread that the stage before it has to wait."""
    return any(behind > most for behind in worker.behind(topic).values())


def _assigned(metrics: StreamMetrics) -> Callable[..., Any]:
    async def assigned(*_: Any, **__: Any) -> None:
        metrics.assigned()

    return assigned


def _lane(worker: Worker, topic: str, stage: Stage, size: int) -> None:
    config, parts = worker.config, worker.parts
    name = {CHATS_RAW: "scrub", CHATS_CLEAN: "assemble", EXAMPLES: "buffer", REVIEW_DECISIONS: "review"}[topic]
    counters = Counters(
        paused=lambda waits: parts.metrics.paused(name, waits=waits),
        took=lambda seconds, events: parts.metrics.took(name, seconds, events),
        caught=lambda error: parts.caught(name, error),
    )

    async def move(moves: Sequence[tuple[str, Entry]]) -> None:
        await lane.call(parts.move, moves)

    outbox = Outbox(parts.producer, move, config.in_flight, worker.fail)
    lane = Lane(
        stage, outbox, counters, batch=size, limit=config.in_flight,
        skip=lambda partition, gap: parts.skip(topic, partition, gap),
        hold=partial(_is_ahead, worker, CHATS_CLEAN, AHEAD_CLEAN) if topic == CHATS_RAW else lambda: False,
        holder=parts.holder if topic == CHATS_RAW else None,
    )  # fmt: skip
    worker.lanes[topic] = lane

    async def process(stream: Any) -> None:
        async for event in stream.noack().events():
            await lane.take(_incoming(event))

    source = worker.app.topic(config.topic(topic), key_type=bytes, value_type=bytes, internal=False)
    worker.app.agent(source, name=name, concurrency=1, supervisor_strategy=CrashingSupervisor)(process)


def _incoming(event: Any) -> Incoming:
    message = event.message
    found = message.headers or ()
    headers = tuple(found.items()) if isinstance(found, Mapping) else tuple(found)
    return Incoming(message.partition, message.offset, message.key, message.value, message.timestamp, headers, event)


async def _run(worker: Worker, stop: threading.Event) -> int:
    app = worker.app
    app.loop = asyncio.get_running_loop()
    app.finalize()
    worker.assigned_at = monotonic()
    tasks: list[asyncio.Task[Any]] = []
    try:
        await app.start()
        for lane in worker.lanes.values():
            tasks += [asyncio.create_task(lane.run()), asyncio.create_task(lane.outbox.run())]
        tasks.append(asyncio.create_task(_assemble(worker)))
        worker.ready = True
        tasks.append(asyncio.create_task(_watch(worker)))
        while not (stop.is_set() or worker.error or app.should_stop):
            worker.parts.beat()
            _supervise(worker, tasks)
            await asyncio.sleep(2 * TICK_S)
        crashed = worker.error is not None or (app.should_stop and not stop.is_set())
        if crashed:
            worker.parts.caught("worker", worker.error or RuntimeError("faust stopped"))
        await _stop(worker, drain=not crashed)
    finally:
        for task in tasks:
            task.cancel()
        for lane in worker.lanes.values():
            lane.close()
    return EXIT_FATAL if crashed else 0


def _supervise(worker: Worker, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Whatever ends by itself ends the worker; so does a minute without partitions, and another Redis server."""
    for task in tasks:
        if task.done() and not task.cancelled():
            worker.fail(task.exception() or RuntimeError("a task of the worker ended"))
    now = monotonic()
    if worker.partitions(CHATS_RAW) | worker.partitions(CHATS_CLEAN) | worker.partitions(EXAMPLES):
        worker.assigned_at = now
    elif now - worker.assigned_at > worker.config.no_assignment_s:
        worker.fail(RuntimeError("no partitions assigned"))
    for topic, lane in worker.lanes.items():
        worker.parts.metrics.held(topic, lane.outbox.waiting)
    if worker.parts.holder is not None:
        worker.parts.metrics.holding(worker.parts.holder.holding)


async def _watch(worker: Worker) -> None:
    """Notice another Redis server, how far the group is behind, and what is acknowledged without an effect."""
    lane, parts = worker.lanes[CHATS_RAW], worker.parts
    looked = monotonic()
    while True:
        await asyncio.sleep(WATCH_S)
        if monotonic() - looked >= LOOK_EVERY_S:
            looked = monotonic()
            done = {
                (topic, partition): offset
                for topic in (CHATS_RAW, CHATS_CLEAN, EXAMPLES)
                for partition, offset in worker.lanes[topic].done.items()
            }
            for topic, events in (await lane.call(worker.unaccounted.look, done)).items():
                parts.metrics.unaccounted(topic, events)
        if await lane.call(parts.changed):
            worker.fail(RuntimeError("redis was replaced; its offsets have to be compared"))
        for topic in worker.lanes:
            for partition, behind in worker.behind(topic).items():
                parts.metrics.lag(topic, partition, behind)


async def _stop(worker: Worker, *, drain: bool) -> None:
    """No more reads, deliver and acknowledge what is under way, commit, leave the group."""
    consumer = worker.app.consumer
    consumer.stop_flow()
    worker.lanes[CHATS_RAW].finish()
    if drain:
        try:
            await asyncio.wait_for(_drained(worker), worker.config.stop_s)
        except TimeoutError:
            worker.parts.caught("worker", TimeoutError("stopped before everything was delivered"))
    try:
        await asyncio.wait_for(worker.app.stop(), worker.config.stop_s)
    except TimeoutError:
        worker.parts.caught("worker", TimeoutError("faust did not stop in time"))


async def _drained(worker: Worker) -> None:
    while not all(lane.idle for lane in worker.lanes.values()):  # noqa: ASYNC110 - three lanes, bounded by stop_s
        await asyncio.sleep(TICK_S / 10)


async def _assemble(worker: Worker) -> None:
    """Look at conversations that are due, on the clocks of chats.raw, and produce what leaves them."""
    lane, parts = worker.lanes[CHATS_CLEAN], worker.parts
    delivered: list[Place] = []
    while True:
        if _is_ahead(worker, EXAMPLES, AHEAD_EXAMPLES):
            await asyncio.sleep(TICK_S)
            continue
        raw = {p: worker.at_end(CHATS_RAW, p) for p in worker.partitions(CHATS_RAW)}
        clean = {p: worker.at_end(CHATS_CLEAN, p) for p in worker.partitions(CHATS_CLEAN)}
        newest = dict(worker.lanes[CHATS_RAW].seen_at)
        done = delivered[:]
        produced = await lane.call(parts.assemble.turn, raw, clean, newest, done)
        del delivered[: len(done)]
        worker.begun = set(clean)
        for place, pending in produced.items():
            record = Record(worker.config.topic(pending.topic), pending.key.encode(), pending.value)
            await lane.outbox.produce(record, partial(delivered.append, place))
        parts.metrics.open(parts.assemble.open())
        await asyncio.sleep(0 if produced else TICK_S)
