"""The node agent: brings one engine to what the newest rollout record asks for, step by step, proof by proof.

Level-triggered: `step` compares desired with real and does the next thing, however often it is called and
whatever was missed. One thread calls `step`; the door calls the rest from another.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from learner.registry import Foundation, Manifest, Probe, Reason, Refused, RegistryError, Standing, sequence
from services.engines import Engine, EngineError, EngineGone, LoadRefused
from services.node import probe as probes
from services.node.breaker import Breaker
from services.node.desired import Desired
from services.node.metrics import NodeMetrics
from services.rollout_records import BASE, NodeState, RolloutRecord, VersionStatus
from services.serving_config import NodeConfig

HELD = frozenset({NodeState.READY, NodeState.DRAINING})
"""States in which the engine has the version."""


class Versions(Protocol):
    """Where versions come from: fetched, then verified from the local bytes."""

    def fetch(self, version: str, into: Path) -> Path:
        """Copy a version into a folder. Raises RegistryError, OSError."""

    def verify(self, directory: Path, standing: Standing) -> Manifest:
        """Every check before load, in order. Raises Refused."""


@dataclass
class Entry:
    """One version on this node."""

    role: str
    state: NodeState = NodeState.ABSENT
    reason: str = ""
    weak: bool = False
    running: int = 0
    """Requests in flight."""
    since: float = 0.0
    """When it began to drain, or when it may be tried again."""
    gone_at_load: int = 0
    """How many loads the engine had seen when the name was taken away."""
    crashes: list[float] = field(default_factory=list)


class Agent:
    """The state of every version on this node, and the one that drives it."""

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        versions: Versions,
        *,
        foundation: Foundation,
        desired: Desired,
        metrics: NodeMetrics,
        clock: Callable[[], float],
        note: Callable[[str, str, str], None],
    ) -> None:
        self._config = config
        self._engine = engine
        self._versions = versions
        self._foundation = foundation
        self._desired = desired
        self._metrics = metrics
        self._clock = clock
        self._note = note
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._noise: dict[int, probes.Noise] = {}
        self._breaker = Breaker(config.breaker_window, config.breaker_limit)
        self._loads = 0
        self._last_loaded = ""
        self._base_ready = False
        self._restart = True
        self.restarts = -1
        """Engine restarts since this process began."""
        self.poisoned: tuple[str, ...] = ()
        self.wake = threading.Event()
        """Set when there is something to do before the next regular step."""

    @property
    def generation(self) -> int:
        """Of the record that is acted on."""
        return self._desired.record.generation

    def accept(self, record: RolloutRecord) -> bool:
        """Take a newer record, on disk first; False when it is none."""
        if not self._desired.accept(record):
            return False
        self._refresh_roles()
        self.wake.set()
        return True

    def statuses(self) -> dict[str, VersionStatus]:
        """What this node reports."""
        with self._lock:
            return {
                version: VersionStatus(role=entry.role, state=entry.state, reason=entry.reason, weak=entry.weak)
                for version, entry in self._entries.items()
                if entry.state is not NodeState.UNLOADED
            }

    def enter(self, version: str) -> bool:
        """A request for a version begins; False (and nothing begins) unless it is READY and named."""
        with self._lock:
            entry = self._entries.get(version)
            named = self._desired.record.roles()
            if entry is None or entry.state is not NodeState.READY or version not in named:
                self._metrics.denied.inc()
                return False
            entry.running += 1
            return True

    def leave(self, version: str) -> None:
        """The request has ended."""
        with self._lock:
            entry = self._entries[version]
            entry.running -= 1
            if entry.state is NodeState.DRAINING and entry.running == 0:
                self.wake.set()

    def instead_of(self, version: str) -> str | None:
        """A READY version that may serve in place of one that fails: stable, else previous."""
        record = self._desired.record
        with self._lock:
            for other in (record.stable, record.previous):
                entry = self._entries.get(other or "")
                if other and other != version and entry is not None and entry.state is NodeState.READY:
                    return other
        return None

    def note_answer(self, version: str, *, good: bool) -> None:
        """An answer went well or not; too many bad ones quarantine the version, if another can serve."""
        if self._breaker.note(version, good=good) and self.instead_of(version) is not None:
            self._quarantine(version, "breaker")

    def poison(self, version: str) -> None:
        """A non-finite number was served: the version goes at once, and what the engine has cached with it."""
        if version not in self.poisoned:
            self.poisoned = (*self.poisoned, version)
        self._quarantine(version, Reason.NUMBERS)
        self._restart = True
        self.wake.set()

    def unready(self) -> str | None:
        """Why this node serves nobody, if so."""
        with self._lock:
            entry = self._entries.get(self._desired.record.stable)
            return None if entry is not None and entry.state is NodeState.READY else "stable is not ready"

    def step(self) -> None:
        """Do all that can be done now. An engine that is away is asked again at the next step."""
        self.wake.clear()
        try:
            if self._restart:
                self._start_engine()
            self._compare(self._engine.loaded())
            self._probe_base()
            self._retire()
            for version, role in self._desired.record.roles().items():
                self._raise(version, role)
        except EngineGone:
            self._lost()
        self._metrics.show(self.statuses().values(), self.generation)

    def _refresh_roles(self) -> None:
        """Names that left the record drain from now on; names that came back serve again."""
        named = self._desired.record.roles()
        with self._lock:
            for version, entry in self._entries.items():
                if version in named:
                    entry.role = named[version]
                    if entry.state is NodeState.DRAINING:
                        entry.state = NodeState.READY
                elif entry.state is NodeState.READY:
                    entry.state, entry.since = NodeState.DRAINING, self._clock()

    def _start_engine(self) -> None:
        self._engine.restart()
        self._restart = False
        self.restarts += 1
        self._metrics.restarts.inc()
        self._forget_loaded()

    def _forget_loaded(self) -> None:
        """The engine holds nothing any more: all is proven again, in order."""
        self._base_ready = False
        with self._lock:
            for entry in self._entries.values():
                if entry.state in HELD or entry.state in {NodeState.LOADING, NodeState.PROBING}:
                    entry.state = NodeState.ABSENT
                elif entry.state is NodeState.UNLOADED:
                    entry.gone_at_load = self._loads - self._config.max_cpu_adapters

    def _lost(self) -> None:
        """The engine died or hangs; twice with the same newest version means that this version is the cause."""
        entry = self._entries.get(self._last_loaded)
        if entry is not None:
            now = self._clock()
            entry.crashes = [at for at in entry.crashes if now - at < self._config.crash_window_s] + [now]
            if len(entry.crashes) > 1 and self._last_loaded != BASE:
                self._quarantine(self._last_loaded, "crash")
        self._forget_loaded()
        self._restart = True

    def _compare(self, loaded: dict[str, str]) -> None:
        """Believe the engine: unknown names go, missing ones mean that it was restarted."""
        with self._lock:
            held = {v for v, entry in self._entries.items() if entry.state in HELD and v != BASE}
        for name, path in loaded.items():
            if name not in held:
                self._engine.unload(name)
            elif path != str(self._config.directory / name):
                self._engine.unload(name)
                self._quarantine(name, Reason.LOAD)
        if held - set(loaded):
            self._last_loaded_crash(held - set(loaded))

    def _last_loaded_crash(self, missing: set[str]) -> None:
        if self._last_loaded in missing:
            self._lost()
            self._restart = False
        else:
            self._forget_loaded()
        self.restarts += 1

    def _probe_base(self) -> None:
        """The base answers with numbers, before anything else is loaded."""
        if not self._base_ready:
            prompts, token_ids = probes.base_prompts(int(self._foundation.config["vocab_size"]))
            if not probes.finite(self._engine.probe(None, prompts, token_ids, uuid.uuid4().hex)):
                raise EngineGone("the base's probe is not finite")
            self._base_ready = True

    def _retire(self) -> None:
        """Unload what has drained; delete folders that no engine can want any more."""
        now = self._clock()
        with self._lock:
            drained = [
                version
                for version, entry in self._entries.items()
                if entry.state is NodeState.DRAINING
                and (entry.running == 0 or now - entry.since >= self._config.drain_s)
            ]
        for version in drained:
            if version != BASE:
                self._engine.unload(version)
            self._breaker.forget(version)
            with self._lock:
                self._entries[version].state = NodeState.UNLOADED
                self._entries[version].gone_at_load = self._loads
        named = self._desired.record.roles()
        with self._lock:
            for version in [v for v in self._entries if v not in named]:
                entry = self._entries[version]
                old = self._loads - entry.gone_at_load >= self._config.max_cpu_adapters
                if entry.state in {NodeState.UNLOADED, NodeState.QUARANTINED, NodeState.ABSENT} and old:
                    shutil.rmtree(self._config.directory / version, ignore_errors=True)
                    del self._entries[version]

    def _raise(self, version: str, role: str) -> None:
        """Bring a named version to READY, or find out why it must not be."""
        with self._lock:
            entry = self._entries.setdefault(version, Entry(role))
            entry.role = role
            if entry.state in HELD or entry.state is NodeState.QUARANTINED or self._clock() < entry.since:
                return
            entry.state, entry.since = NodeState.FETCHING, 0.0
        try:
            if version != BASE:
                self._fetch_and_load(version, entry)
            self._now(entry, NodeState.READY)
            self._note("ready", version, role)
        except Refused as refused:
            self._metrics.refused.labels(refused.reason).inc()
            self._quarantine(version, refused.reason)
        except LoadRefused:
            self._metrics.refused.labels(Reason.LOAD).inc()
            self._quarantine(version, Reason.LOAD)
        except (RegistryError, OSError):
            entry.state, entry.since = NodeState.ABSENT, self._clock() + self._config.retry_s

    def _fetch_and_load(self, version: str, entry: Entry) -> None:
        with self._metrics.stage("fetch"):
            directory = self._versions.fetch(version, self._config.directory)
        with self._metrics.stage("verify"):
            manifest = self._versions.verify(directory, self._standing())
        self._now(entry, NodeState.VERIFIED)
        self._desired.verified(sequence(version))
        self._now(entry, NodeState.LOADING)
        with self._metrics.stage("load"):
            self._loads += 1
            self._last_loaded = version
            self._load(version, directory)
        self._now(entry, NodeState.PROBING)
        with self._metrics.stage("probe"):
            try:
                entry.weak = self._prove(version, manifest.probe)
            except Refused:
                self._engine.unload(version)
                raise

    def _load(self, version: str, directory: Path) -> None:
        """Load; a time-out means unknown, so the engine is asked what it holds."""
        try:
            self._engine.load(version, directory)
        except EngineGone:
            if self._engine.loaded().get(version) != str(directory):
                raise

    def _prove(self, version: str, probe: Probe) -> bool:
        key = hash((probe.prompts, probe.token_ids, probe.base_logprobs))
        if key not in self._noise:
            measured = self._ask(None, probe)
            self._noise = {key: probes.calibrate(measured, probe, self._engine.precision)}
        difference, weak = probes.check(self._ask(version, probe), probe, self._noise[key])
        self._metrics.difference.set(difference)
        return weak

    def _ask(self, name: str | None, probe: Probe) -> list[list[float]]:
        try:
            return self._engine.probe(name, probe.prompts, probe.token_ids, uuid.uuid4().hex)
        except EngineGone:
            raise
        except EngineError as error:
            raise Refused(Reason.PROBE, type(error).__name__) from None

    def _standing(self) -> Standing:
        record = self._desired.record
        return Standing(
            generation=record.generation,
            seen_generation=record.generation,
            named=frozenset(record.roles()),
            denied=frozenset(record.deny),
            highest_sequence=self._desired.highest,
        )

    def _now(self, entry: Entry, state: NodeState) -> None:
        with self._lock:
            entry.state, entry.reason = state, ""

    def _quarantine(self, version: str, reason: str) -> None:
        with self._lock:
            entry = self._entries.setdefault(version, Entry("other"))
            if entry.state is NodeState.QUARANTINED:
                return
            entry.state, entry.reason, entry.gone_at_load = NodeState.QUARANTINED, str(reason), self._loads
        self._metrics.quarantines.labels(str(reason)).inc()
        self._note("quarantined", version, str(reason))
        self.wake.set()
