"""`driftline rollout run`: one line's controller, from its lease to the signal that ends it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import redis

from learner.registry import Registry, RegistryError
from services.local import redis_server
from services.publishers import registry_of
from services.rollout.controller import Controller, Fleet
from services.rollout.erasures import Erasures
from services.rollout.metrics import RolloutMetrics
from services.rollout.store import Conflict, Fenced, Store
from services.rollout_records import RolloutRecord, decode_node, decode_rollout, decode_version, encode
from services.runtime import Runtime
from services.topic_feed import Record, TopicFeed, make_producer, send
from streams import erasures
from streams.topics import ADAPTER_EVENTS, ERASURES, EXPOSURES, NODES, OUTCOMES, RECEIPTS, ROLLOUT, VERSIONS

if TYPE_CHECKING:
    from services.settings import Settings

LEASE_S = 5.0
"""A controller that is silent for so long is replaced, seconds."""

ASK_S = 0.5
"""How often end offsets are asked: outcomes mature no faster than they are known to be complete, seconds."""


def run(settings: Settings) -> int:
    """Control until a signal. Returns 0."""
    runtime = Runtime("rollout", settings.admin)
    service = Service(settings, runtime)
    runtime.ready("controller", lambda: service.waiting)
    while not runtime.stop.is_set():
        runtime.tick()
        try:
            service.turn()
        except redis.RedisError as error:
            runtime.caught("rollout.redis", error)
            service.waiting = "Redis does not answer"
        except Fenced:
            service.metrics.fenced.inc()
            service.stand_by("fenced by a newer controller")
        runtime.stop.wait(settings.rollout.tick_s)
    service.close()
    runtime.close()
    return 0


class Service:
    """Feeds, store and controller of one process."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._clock: Callable[[], float] = time.monotonic
        self._wall: Callable[[], float] = time.time  # noqa: TID251 - the composition root hands the clock on
        self._owner = secrets.token_hex(8)
        self._base = settings.kafka.client("rollout")
        self._prefix = settings.kafka.prefix
        self._producer = make_producer(self._base)
        self._store = Store(client_of(settings), settings.rollout.line)
        self._newest: RolloutRecord | None = None
        self._fleet = Fleet({}, {})
        self._erasures = Erasures()
        topics = [VERSIONS, NODES, ROLLOUT, ERASURES, RECEIPTS]
        self._fleet_feed = TopicFeed(self._base, topics, self._clock, prefix=self._prefix)
        self._telemetry: TopicFeed | None = None
        self._fresh_at = self._clock()
        self._sent: tuple[int, float] = (0, 0.0)
        self._delivered = 0
        self.metrics = RolloutMetrics(runtime.registry)
        self.waiting: str | None = "starting"
        """Why there is no active controller here; None while there is."""
        registry = registry_of(settings.registry, self._wall)
        self.controller = Controller(
            settings.rollout,
            self._store,
            self._fleet,
            publish=self.publish,
            audit=self._audit,
            metrics=self.metrics,
            valid=lambda version: _invalid(registry, version),
            fresh=lambda: secrets.token_hex(8),
            wall=self._wall,
        )

    def turn(self) -> None:
        """Read what is new, and decide if this process is the controller. Raises redis.RedisError, `Fenced`."""
        for record in self._fleet_feed.poll(0.01):
            self._follow(record)
        self._producer.poll(0)
        if not self._fleet_feed.caught_up:
            self.waiting = "reading versions, nodes and records"
            return
        if not self._store.hold_lease(self._owner, LEASE_S):
            self.stand_by("another controller holds the lease")
            return
        if self._telemetry is None:
            self._read_from(self.controller.take_over(self._newest))
        self._again_if_lost()
        self._read_telemetry()
        if self._newest is not None and self._newest.generation > self.controller.state.record.generation:
            # a command has moved the record; waiting for the next commit's conflict would only be slower
            self._read_from(self.controller.reload())
        try:
            found = self.controller.tick(self._fleet_feed.heard_s, self._watermark(), self._clock() - self._fresh_at)
        except Conflict:
            self._read_from(self.controller.reload())
            return
        self.waiting = None
        self._answer_erasures()
        if found.decision:
            state = self.controller.state
            self._runtime.log.info(
                found.decision, reason=found.reason, state=state.phase, generation=state.record.generation,
                version=state.record.canary or state.record.stable,
            )  # fmt: skip

    def stand_by(self, why: str) -> None:
        """Not the controller any more; the next one resumes from the store."""
        self.waiting = why
        if self._telemetry is not None:
            self._telemetry.close()
            self._telemetry = None

    def publish(self, record: RolloutRecord) -> None:
        """Send a record; it is sent again until its delivery is reported."""
        self._sent = (record.generation, self._clock())

        def report(error: Any, _message: object) -> None:
            if error is None:
                self._delivered = max(self._delivered, record.generation)

        try:
            self._producer.produce(self._prefix + ROLLOUT, key=record.line, value=encode(record), on_delivery=report)
        except BufferError as error:
            self._runtime.caught("rollout.publish", error)
        self._producer.poll(0)

    def close(self) -> None:
        """Let go of the broker."""
        self._producer.flush(2)
        self.stand_by("stopping")
        self._fleet_feed.close()

    def _follow(self, record: Record) -> None:
        try:
            if record.topic == VERSIONS and record.value:
                self._fleet.version(decode_version(record.value))
            elif record.topic == NODES and record.value:
                self.controller.node_reported(decode_node(record.value), self._fleet_feed.heard_s, record.timestamp)
            elif record.topic == ROLLOUT and record.value:
                found = decode_rollout(record.value)
                newer = self._newest is None or found.generation > self._newest.generation
                if found.line == self._settings.rollout.line and newer:
                    self._newest = found
            elif record.topic == ERASURES and record.value:
                self._erasures.ask(erasures.decode_erasure(record.value))
            elif record.topic == RECEIPTS and record.value:
                self._erasures.hear(erasures.decode_receipt(record.value))
        except msgspec.DecodeError as error:
            self._runtime.caught("rollout.feed", error)

    def _read_from(self, starts: dict[tuple[str, int], int]) -> None:
        if self._telemetry is not None:
            self._telemetry.close()
        self._telemetry = TopicFeed(
            self._base, [EXPOSURES, OUTCOMES], self._clock, prefix=self._prefix, starts=starts, ask_s=ASK_S
        )
        self._fresh_at = self._clock()

    def _read_telemetry(self) -> None:
        assert self._telemetry is not None, "read after take_over"
        for record in self._telemetry.poll(0.01):
            self.controller.observe(record)
        if self._telemetry.lag() == 0 and self._telemetry.contact is not None:
            self._fresh_at = max(self._fresh_at, self._telemetry.contact)

    def _watermark(self) -> float:
        """Everything before this moment has been read: when the broker last told its end, and that was reached."""
        assert self._telemetry is not None, "read after take_over"
        if self._telemetry.lag() == 0 and self._telemetry.contact is not None:
            return self._wall() - (self._clock() - self._telemetry.contact)
        return self.controller.evidence.newest

    def _again_if_lost(self) -> None:
        generation, at = self._sent
        if self._delivered < generation and self._clock() - at >= LEASE_S:
            self.publish(self.controller.state.record)

    def _answer_erasures(self) -> None:
        record, nodes = self.controller.state.record, self._fleet.alive(self._settings.rollout.line, self._heard_s)
        for receipt in self._erasures.due(record, self._fleet.versions, nodes):
            send(self._producer, self._prefix + RECEIPTS, receipt.erasure_id, erasures.encode(receipt))

    @property
    def _heard_s(self) -> float:
        return self._fleet_feed.heard_s

    def _audit(self, event: str, version: str, reason: str) -> None:
        value = {"event": event, "version": version, "reason": reason, "at": self._wall()}
        send(self._producer, self._prefix + ADAPTER_EVENTS, version, msgspec.json.encode(value))


def client_of(settings: Settings) -> redis.Redis:
    """A client whose every call ends in time and is never repeated behind our back."""
    return redis_server.client(settings.redis.url, settings.redis.timeout_s)


def _invalid(registry: Registry, version: str) -> str | None:
    """Why a version's manifest may not be proposed; None when it may."""
    try:
        found = registry.manifest(version)
    except (RegistryError, OSError) as error:
        return type(error).__name__.lower()
    return None if found.eval.decision == "promote" else "refused by the gate"
