"""A thread that reads the control topics as they are written: versions, rollout records, nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from services.rollout_records import (
    NodeRecord,
    RolloutRecord,
    VersionRecord,
    decode_node,
    decode_rollout,
    decode_version,
)
from services.topic_feed import TopicFeed
from streams.topics import ADAPTER_EVENTS, NODES, ROLLOUT, VERSIONS


@dataclass(frozen=True)
class Seen:
    """A rollout record and when the broker stored it, seconds since the epoch."""

    record: RolloutRecord
    at: float


class Watch:
    """Copies of the control topics; `wait` blocks until something about them is true."""

    def __init__(self, kafka: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.versions: dict[str, VersionRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.rollouts: list[Seen] = []
        self.decisions: list[dict[str, Any]] = []
        """What the gate decided, as the learner's audit says it."""
        self._say = say
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._feed = TopicFeed(kafka, (VERSIONS, ROLLOUT, NODES, ADAPTER_EVENTS), time.monotonic)
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)
        self._thread.start()

    @property
    def rollout(self) -> RolloutRecord:
        """The newest rollout record."""
        return self.rollouts[-1].record if self.rollouts else RolloutRecord()

    @property
    def idle(self) -> bool:
        """Whether no canary runs and the newest version waits for none: one gated against another stable may not."""
        now, newest = self.rollout, next(reversed(self.versions.values()), None)
        if now.canary is not None:
            return False
        if newest is None or newest.id in {now.stable, *now.deny}:
            return True
        return newest.decision != "promote" or newest.gated_against != now.stable

    def judged_to(self, version: str) -> float:
        """When the newest chat came that it learned from, or that the gate found to add too little to it."""
        later = (float(d["fresh_to"]) for d in self.decisions if d["gated_against"] == version)
        return max([self.versions[version].fresh_to, *later])

    def promoted(self) -> list[str]:
        """Versions that became stable, in order."""
        found: list[str] = []
        for seen in self.rollouts:
            if seen.record.stable != "base" and seen.record.stable not in found:
                found.append(seen.record.stable)
        return found

    def denied(self) -> dict[str, Seen]:
        """Version -> the first record that denies it."""
        found: dict[str, Seen] = {}
        for seen in self.rollouts:
            for version in seen.record.deny:
                found.setdefault(version, seen)
        return found

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """True as soon as the condition holds, False when it did not in time."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(5)
        self._feed.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            records = self._feed.poll(0.1)
            if not self._feed.known:
                self._stop.wait(0.2)
            with self._changed:
                for record in records:
                    if record.value is not None:
                        self._take(record.topic, record.value, record.timestamp)
                self._changed.notify_all()

    def _take(self, topic: str, value: bytes, at: float) -> None:
        try:
            if topic == VERSIONS:
                self._version(decode_version(value))
            elif topic == ROLLOUT:
                self._rollout(decode_rollout(value), at)
            elif topic == ADAPTER_EVENTS:
                self._decision(msgspec.json.decode(value))
            else:
                node = decode_node(value)
                self.nodes[node.node] = node
        except msgspec.DecodeError:
            self._say(f"a record of {topic} cannot be read")

    def _decision(self, found: dict[str, Any]) -> None:
        if "decision" not in found:
            return
        self.decisions.append(found)
        self._say(
            f"gate: {found['decision']} {found['version']}, held-out loss {found['nll']:.3f} "
            f"(base {found['base_nll']:.3f}, {found['examples']} chats): {found['why']}"
        )

    def _version(self, record: VersionRecord) -> None:
        if record.id not in self.versions:
            self._say(f"version {record.id} published, parent {record.parent}")
        self.versions[record.id] = record

    def _rollout(self, record: RolloutRecord, at: float) -> None:
        if self.rollouts and record.generation <= self.rollout.generation:
            return
        before = self.rollout
        self.rollouts.append(Seen(record, at))
        if (record.state, record.canary, record.weight) != (before.state, before.canary, before.weight):
            share = f" at {record.weight:.0%}" if record.canary and record.weight else ""
            canary = f", canary {record.canary}{share}" if record.canary else ""
            why = f" ({record.reason})" if record.reason else ""
            self._say(f"rollout {record.state}: stable {record.stable}{canary}{why}")
