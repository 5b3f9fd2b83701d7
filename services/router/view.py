"""What a router knows of the fleet: the newest rollout record, the nodes that report, what was killed.

Pure state: no I/O but the file that keeps the last record, so that a router starts without Kafka and Redis.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from services.rollout_records import NodeRecord, RolloutRecord, draw
from streams.rollout_events import Arm

SUSPECT_S = 1.0
"""A node that refused a connection is asked last for so long, seconds; then its reports count again."""


@dataclass(frozen=True)
class Pin:
    """A conversation's version, and the draw that chose it; `rollout_id` is empty while nothing was compared."""

    version: str
    rollout_id: str = ""
    arm: Arm | None = None
    p: float = 0.0
    mixed: bool = False
    """The conversation has changed its version."""

    def encode(self) -> str:
        """As Redis keeps it."""
        return f"{self.version}|{self.rollout_id}|{self.arm or ''}|{self.p!r}|{int(self.mixed)}"

    @staticmethod
    def decode(text: str) -> Pin:
        """Read what `encode` wrote. Raises ValueError."""
        version, rollout, arm, p, mixed = text.split("|")
        known: dict[str, Arm] = {"candidate": "candidate", "control": "control"}
        return Pin(version, rollout, known.get(arm), float(p), mixed == "1")


class _Kept(msgspec.Struct, frozen=True):
    record: RolloutRecord
    killed: list[str]


class View:
    """The router's copy of the world; methods are safe from the feed's thread and the server's."""

    def __init__(self, line: str, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._nodes: dict[str, tuple[NodeRecord, float]] = {}
        self._suspects: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._local_kills: frozenset[str] = frozenset()
        self._redis_kills: frozenset[str] = frozenset()
        self.heard_s = 0.0
        """Seconds for which the broker has been answering: while it is away no node grows old."""
        self.record = RolloutRecord(line=line)
        if file is not None and file.exists():
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
            self.record, self._local_kills = kept.record, frozenset(kept.killed)

    @property
    def killed(self) -> frozenset[str]:
        """Versions that somebody switched off, whatever the record says."""
        return self._local_kills | self._redis_kills

    def accept(self, record: RolloutRecord) -> bool:
        """Act on a record; False for another line's or one that is not above the last."""
        with self._lock:
            if record.line != self.record.line or record.generation <= self.record.generation:
                return False
            self.record = record
            self._local_kills -= set(record.deny)
            self._keep()
            return True

    def kill(self, version: str) -> None:
        """Serve a version no more, from this moment, without asking anybody."""
        with self._lock:
            self._local_kills |= {version}
            self._keep()

    def killed_elsewhere(self, versions: frozenset[str]) -> None:
        """What the kill switch in Redis says now."""
        self._redis_kills = versions

    def report(self, node: NodeRecord) -> None:
        """A node's newest report."""
        with self._lock:
            known = self._nodes.get(node.node)
            if known is None or node.at >= known[0].at:
                self._nodes[node.node] = (node, self.heard_s)

    def suspect(self, url: str, now: float) -> None:
        """A node did not answer: others are asked first."""
        self._suspects[url] = now

    def started(self, url: str) -> None:
        """One more request runs on this node."""
        self._running[url] = self._running.get(url, 0) + 1

    def ended(self, url: str) -> None:
        """One request less."""
        self._running[url] -= 1

    def urls(self, version: str, now: float) -> list[str]:
        """Nodes that are ready for a version: quiet ones first, suspects last."""
        with self._lock:
            nodes = [node for node, seen in self._nodes.values() if self.heard_s - seen <= 3 * node.every_s + 1.0]
        ready = [node.url for node in nodes if node.line == self.record.line and node.ready(version)]
        suspects = {url for url, at in self._suspects.items() if now - at < SUSPECT_S}
        return sorted(ready, key=lambda url: (url in suspects, self._running.get(url, 0), url))

    def servable(self, version: str) -> bool:
        """Named by the record at a weight, not denied, not killed."""
        role = self.record.roles().get(version)
        return role in {"stable", "canary", "previous"} and version not in self.killed

    def safe(self, now: float) -> str | None:
        """The version that serves whom nothing else can: stable, else previous; None when no node has either."""
        for version in (self.record.stable, self.record.previous):
            if version and self.servable(version) and self.urls(version, now):
                return version
        return None

    def assign(self, conversation: str, now: float) -> tuple[Pin, bool]:
        """The draw for a new conversation, and whether stable stands in for its arm's version."""
        record = self.record
        arms = record.arms()
        if arms is None:
            return Pin(self.safe(now) or record.stable), False
        candidate, control, p = arms
        if candidate in self.killed:
            p = 0.0
        arm: Arm = "candidate" if draw(record.salt, conversation) < p else "control"
        wanted = candidate if arm == "candidate" else control
        if self.servable(wanted) and self.urls(wanted, now):
            return Pin(wanted, record.rollout_id, arm, p), False
        return Pin(self.safe(now) or record.stable, record.rollout_id, arm, p), True

    def follow(self, pin: Pin, now: float) -> Pin:
        """The pin itself while its version may serve, else the one that takes its place, marked as mixed."""
        if self.servable(pin.version) and self.urls(pin.version, now):
            return pin
        instead = self.safe(now)
        return pin if instead is None or instead == pin.version else replace(pin, version=instead, mixed=True)

    def status(self) -> dict[str, Any]:
        """For the operators' route: record, killed, nodes with the age of their reports."""
        with self._lock:
            nodes = {
                name: {"url": n.url, "age_s": round(self.heard_s - seen, 1)} for name, (n, seen) in self._nodes.items()
            }
        return {"record": msgspec.to_builtins(self.record), "killed": sorted(self.killed), "nodes": nodes}

    def _keep(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with fresh.open("wb") as out:
            out.write(msgspec.json.encode(_Kept(self.record, sorted(self._local_kills))))
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
