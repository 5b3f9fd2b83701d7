"""The controller at work: feeds evidence, ticks the machine, commits, and only then publishes and adopts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from services.rollout import machine
from services.rollout.evidence import Evidence
from services.rollout.machine import Phase, State, Tick, World
from services.rollout.metrics import DECISIONS, RolloutMetrics
from services.rollout.store import Checkpoint, Store
from services.rollout_records import NodeRecord, NodeState, RolloutRecord, VersionRecord
from services.serving_config import RolloutConfig
from services.topic_feed import Record
from streams.rollout_events import decode_exposure, decode_outcome
from streams.topics import EXPOSURES

CHECKPOINT_S = 1.0
"""Evidence is written at least so often while it grows, seconds."""


@dataclass
class Fleet:
    """Versions and nodes as their topics tell."""

    versions: dict[str, VersionRecord]
    nodes: dict[str, tuple[NodeRecord, float]]
    epoch: int = 0

    def version(self, record: VersionRecord) -> None:
        """Take in a version's record; one of an older owner of the line is dropped."""
        if record.epoch >= self.epoch:
            self.epoch = record.epoch
            self.versions[record.id] = record

    def node(self, record: NodeRecord, heard_s: float) -> None:
        """Take in a node's report; `heard_s` is TopicFeed's, which stands still while the broker is away."""
        self.nodes[record.node] = (record, heard_s)

    def alive(self, line: str, heard_s: float) -> list[NodeRecord]:
        """Nodes of a line that still report."""
        found = [n for n, seen in self.nodes.values() if heard_s - seen <= 3 * n.every_s + 1.0 and not n.leaving]
        return [node for node in found if node.line == line]


class Controller:
    """One line's controller between `take_over` and the error that ends it."""

    def __init__(
        self,
        config: RolloutConfig,
        store: Store,
        fleet: Fleet,
        *,
        publish: Callable[[RolloutRecord], None],
        audit: Callable[[str, str, str], None],
        metrics: RolloutMetrics,
        valid: Callable[[str], str | None],
        fresh: Callable[[], str],
        wall: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self.fleet = fleet
        self._publish = publish
        self._audit = audit
        self._metrics = metrics
        self._valid = valid
        self._fresh = fresh
        self._wall = wall
        self._epoch = 0
        self._positions: dict[str, int] = {}
        self._replay_until: dict[str, int] = {}
        self._marks: dict[str, deque[tuple[int, float]]] = {}
        self._saved_at = 0.0
        self._killed: frozenset[str] = frozenset()
        self._ready_seen: set[str] = set()
        self.state = State(record=RolloutRecord(line=config.line))
        self.evidence = Evidence(config, "")

    def take_over(self, newest: RolloutRecord | None) -> dict[tuple[str, int], int]:
        """Fence older controllers and resume; `newest` is the topic's last record. Gives offsets to read from."""
        self._epoch = self._store.begin()
        stored = self._store.read()
        reported = max((node.generation for node, _ in self.fleet.nodes.values()), default=0)
        behind = newest is not None and newest.generation > stored.generation
        if stored.checkpoint is not None and not behind:
            starts = self._resume(stored.checkpoint)
        else:
            starts = {}
            self.state = _rebuilt(newest or self.state.record, self._wall())
            self.evidence = Evidence(self._config, self.state.record.rollout_id)
        highest = max(stored.generation, newest.generation if newest else 0, reported)
        if self.state.record.generation < max(highest, 1) or behind:
            record = msgspec.structs.replace(self.state.record, generation=highest + 1, at=self._wall())
            self.state = msgspec.structs.replace(self.state, record=record)
        self._ready_seen = {v for node, _ in self.fleet.nodes.values() for v in node.versions if node.ready(v)}
        self._store.commit(self._epoch, stored.generation, self._checkpoint(self.state))
        self._publish(self.state.record)
        return starts

    def reload(self) -> dict[tuple[str, int], int]:
        """Somebody else moved the record: go on from there. Gives offsets to read from."""
        stored = self._store.read()
        if stored.checkpoint is None:
            return {}
        starts = self._resume(stored.checkpoint)
        self._publish(self.state.record)
        return starts

    def observe(self, record: Record) -> None:
        """Take in one record of telemetry; a broken one is skipped."""
        at = f"{record.topic}:{record.partition}"
        replayed = record.offset < self._replay_until.get(at, 0)
        try:
            if record.topic == EXPOSURES:
                exposure = decode_exposure(record.value or b"")
                self.evidence.expose(exposure, replayed=replayed)
                when = exposure.ts
            else:
                outcome = decode_outcome(record.value or b"")
                self.evidence.observe(outcome)
                when = outcome.event_ts
        except msgspec.DecodeError:
            when = record.timestamp
        self._positions[at] = record.offset + 1
        self._marks.setdefault(at, deque()).append((record.offset, when))

    def node_reported(self, record: NodeRecord, heard_s: float, timestamp: float) -> None:
        """A node's report; the first READY of a version ends the way from its samples to its serving."""
        self.fleet.node(record, heard_s)
        for version, status in record.versions.items():
            known = self.fleet.versions.get(version)
            if status.state is NodeState.READY and version not in self._ready_seen and known is not None:
                self._ready_seen.add(version)
                if timestamp < known.fresh_from:
                    self._metrics.skewed.inc()
                if known.fresh_from:
                    self._metrics.freshness.observe(max(timestamp - known.fresh_from, 0.0))

    def tick(self, heard_s: float, watermark: float, silence_s: float) -> Tick:
        """One look and at most one decision. Raises redis.RedisError, `Fenced`, `Conflict`: nothing was adopted."""
        self.evidence.advance(watermark)
        wall = self._wall()
        self._killed = self._store.killed()
        world = World(
            now=wall, versions=self.fleet.versions, nodes=self.fleet.alive(self._config.line, heard_s),
            killed=self._killed, silence_s=silence_s, valid=self._valid, fresh=self._fresh,
        )  # fmt: skip
        found = machine.tick(self.state, world, self.evidence, self._config)
        if found.state != self.state:
            self._adopt(found, wall)
        elif wall - self._saved_at >= CHECKPOINT_S:
            self._store.commit(self._epoch, self.state.record.generation, self._checkpoint(self.state))
            self._saved_at = wall
        self._metrics.show(self.state, self.evidence, silence_s)
        return found

    def _adopt(self, found: Tick, wall: float) -> None:
        """Commit, publish, adopt: in this order, so that what was seen outside always stands in the store."""
        old, new = self.state, found.state
        self._store.commit(self._epoch, old.record.generation, self._checkpoint(new))
        self.state, self._saved_at = new, wall
        if new.record.generation != old.record.generation:
            self._publish(new.record)
        if new.record.rollout_id != old.record.rollout_id:
            self.evidence = Evidence(self._config, new.record.rollout_id)
        if old.phase is Phase.ROLLING_BACK and new.phase is Phase.IDLE:
            self._metrics.rollback.observe(max(wall - old.since, 0.0))
        if found.decision in DECISIONS:
            self._metrics.decisions.labels(DECISIONS[found.decision]).inc()
        if found.decision is not None:
            subject = old.record.canary or new.record.canary or new.record.stable
            self._audit(found.decision, subject, found.reason)
        self._store.lift(self._killed & set(new.record.deny))

    def _checkpoint(self, state: State) -> Checkpoint:
        oldest = self.evidence.oldest_open()
        for at, marks in self._marks.items():
            while marks and (oldest is None or marks[0][1] < oldest):
                marks.popleft()
            if not marks:
                self._marks[at] = deque()
        starts = {at: self._marks[at][0][0] if self._marks.get(at) else end for at, end in self._positions.items()}
        kept = self.evidence.keep() if self.evidence.rollout_id == state.record.rollout_id else None
        return Checkpoint(state=state, evidence=kept, positions=dict(self._positions), starts=starts)

    def _resume(self, checkpoint: Checkpoint) -> dict[tuple[str, int], int]:
        self.state = checkpoint.state
        self.evidence = Evidence(self._config, self.state.record.rollout_id, checkpoint.evidence)
        self._positions = dict(checkpoint.positions)
        self._replay_until = dict(checkpoint.positions)
        self._marks = {}
        return {(at.rsplit(":", 1)[0], int(at.rsplit(":", 1)[1])): off for at, off in checkpoint.starts.items()}


def _rebuilt(record: RolloutRecord, now: float) -> State:
    """A state from a record alone: a running canary is held until the evidence has been read again."""
    phase = Phase.IDLE
    if record.canary is not None:
        phase = Phase.HOLD
    elif record.holdback > 0:
        phase = Phase.SOAKING
    return State(phase=phase, record=record, since=now, stage_at=now, began=now)
