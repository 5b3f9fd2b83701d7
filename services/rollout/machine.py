"""The controller's states (rollout.md 3) as a pure function: what is known in, the next state and record out.

    IDLE -> VALIDATING -> DISTRIBUTING -> CANARY (stage by stage) -> PROMOTING -> SOAKING -> IDLE
                               |             |   ^                                  |
                               |             v   |                                  |
                               |            HOLD-+                                  |
                               +-------------+-----> ROLLING_BACK -> IDLE <---------+

VALIDATING is one tick inside IDLE: its checks need no waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from services.rollout.evidence import Evidence
from services.rollout_records import BASE, NodeRecord, NodeState, RolloutRecord, VersionRecord
from services.serving_config import RolloutConfig

TRIED = 256
"""Versions that are remembered as decided; the newest ones matter."""


class Phase(StrEnum):
    """Where the controller stands."""

    IDLE = "idle"
    DISTRIBUTING = "distributing"
    CANARY = "canary"
    HOLD = "hold"
    PROMOTING = "promoting"
    SOAKING = "soaking"
    ROLLING_BACK = "rolling_back"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that the controller knows of its line besides the evidence."""

    phase: Phase = Phase.IDLE
    record: RolloutRecord = RolloutRecord()
    stage: int = 0
    since: float = 0.0
    """When this phase began."""
    stage_at: float = 0.0
    """When this stage began."""
    began: float = 0.0
    """When the canary began."""
    matured: int = 0
    """Candidate conversations that had matured when the stage began."""
    by_hand: bool = False
    """A person said hold: only a person ends it."""
    watched: str = ""
    """What is being rolled back."""
    tried: tuple[str, ...] = ()
    """Versions that were decided, dropped or superseded."""
    promoted: tuple[str, ...] = ()
    """Versions that became stable, oldest first."""


@dataclass(frozen=True)
class World:
    """What the controller sees at one tick."""

    now: float
    versions: Mapping[str, VersionRecord]
    nodes: Sequence[NodeRecord]
    """Those that still report."""
    killed: frozenset[str]
    silence_s: float
    """How long exposures and outcomes have not been read to their end."""
    valid: Callable[[str], str | None]
    """Checks a version's manifest: None, or why not."""
    fresh: Callable[[], str]
    """New random ids and salts."""


@dataclass(frozen=True)
class Tick:
    """The next state, and the decision that led there, if there was one."""

    state: State
    decision: str | None = None
    """promote, roll_back, hold, step, start, drop or withdraw."""
    reason: str = ""


def tick(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> Tick:
    """One look at the world."""
    withdrawn = _withdrawn(state, world)
    if withdrawn is not None:
        return withdrawn
    handlers = {
        Phase.IDLE: _idle,
        Phase.DISTRIBUTING: _distributing,
        Phase.CANARY: _canary,
        Phase.HOLD: _hold,
        Phase.PROMOTING: _promoting,
        Phase.SOAKING: _soaking,
        Phase.ROLLING_BACK: _rolling_back,
    }
    found = handlers[state.phase](state, world, evidence, config)
    return found if found.decision is not None else _next_candidate(found.state, world)


def by_hand(state: State, command: str, actor: str, now: float) -> Tick:
    """promote, hold or rollback by a person. Raises ValueError when it makes no sense now."""
    record = state.record
    if command == "hold":
        if state.phase not in {Phase.CANARY, Phase.HOLD}:
            raise ValueError("no canary is running")
        held = _become(state, Phase.HOLD, now, reason="by hand", actor=actor)
        return Tick(msgspec.structs.replace(held, by_hand=True), "hold", "by hand")
    if command == "promote":
        if state.phase not in {Phase.CANARY, Phase.HOLD, Phase.DISTRIBUTING} or record.canary is None:
            raise ValueError("no candidate is running")
        if record.canary in record.deny:
            raise ValueError(f"{record.canary} is denied")
        return Tick(_promote(state, now, 0.0, actor=actor), "promote", "by hand")
    if command == "rollback":
        if record.canary is None and record.stable == BASE:
            raise ValueError("nothing is served but the base")
        return Tick(_roll_back(state, now, "by hand", actor=actor), "roll_back", "by hand")
    raise ValueError(f"unknown command {command!r}")


def _idle(state: State, world: World, _evidence: Evidence, config: RolloutConfig) -> Tick:
    """Propose the newest valid candidate that was gated against the present stable."""
    record = state.record
    for version in _candidates(state, world):
        known = world.versions[version]
        if known.decision != "promote" or known.gated_against != record.stable:
            continue
        why = world.valid(version)
        if why is not None:
            return Tick(_skip(state, version), "drop", why)
        older = [v for v in _candidates(state, world) if v < version]
        fresh = _become(
            _skip(state, version, *older), Phase.DISTRIBUTING, world.now,
            rollout_id=world.fresh(), salt=world.fresh(), canary=version, next=None, weight=0.0, holdback=0.0,
            reason="distributing",
        )  # fmt: skip
        return Tick(fresh, "start", version)
    del config
    return Tick(state)


def _distributing(state: State, world: World, _evidence: Evidence, config: RolloutConfig) -> Tick:
    urgent = _tier_zero(state, world)
    if urgent:
        return Tick(_roll_back(state, world.now, urgent), "roll_back", urgent)
    if _quorum(state.record.canary, world, config):
        begun = _become(state, Phase.CANARY, world.now, weight=config.weights[0], reason="canary")
        return Tick(
            msgspec.structs.replace(begun, stage=0, stage_at=world.now, began=world.now, matured=0), "step", "0"
        )
    if world.now - state.since >= config.distribute_timeout_s:
        dropped = _become(state, Phase.IDLE, world.now, canary=None, weight=0.0, reason="not distributed in time")
        return Tick(dropped, "drop", "not distributed in time")
    return Tick(state)


def _canary(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> Tick:
    stopped = _stopped(state, world, evidence, config)
    if stopped is not None:
        return stopped
    seen = evidence.matured["candidate"]
    ready = seen - state.matured >= config.matured[state.stage] and _quorum(state.record.canary, world, config)
    if not ready or evidence.uneasy(config.caution):
        return Tick(state)
    if state.stage < len(config.weights) - 1:
        stage = state.stage + 1
        moved = _become(state, Phase.CANARY, world.now, weight=config.weights[stage], reason="canary")
        return Tick(msgspec.structs.replace(moved, stage=stage, stage_at=world.now, matured=seen), "step", str(stage))
    if world.now - state.began >= config.min_wall_s and evidence.proven():
        return Tick(_promote(state, world.now, config.holdback), "promote", "not inferior on every guardrail")
    return Tick(state)


def _stopped(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> Tick | None:
    """Harm, trouble or the horizon end the stage that a canary is in."""
    bad = _tier_zero(state, world) or _harm(evidence)
    exhausted = _exhausted(state, world, evidence, config)
    if exhausted and config.at_horizon == "roll_back":
        bad = bad or "horizon"
    if bad:
        return Tick(_roll_back(state, world.now, bad), "roll_back", bad)
    trouble = _trouble(world, evidence, config) or ("horizon" if exhausted else "")
    if trouble:
        held = _become(state, Phase.HOLD, world.now, reason=trouble)
        return Tick(msgspec.structs.replace(held, by_hand=exhausted), "hold", trouble)
    return None


def _hold(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> Tick:
    """Guardrails go on, nothing advances; back to the stage when the trouble is over."""
    bad = _tier_zero(state, world) or _harm(evidence)
    if bad:
        return Tick(_roll_back(state, world.now, bad), "roll_back", bad)
    if state.by_hand:
        return Tick(state)
    if _exhausted(state, world, evidence, config) and config.at_horizon == "roll_back":
        return Tick(_roll_back(state, world.now, "horizon"), "roll_back", "horizon")
    trouble = _trouble(world, evidence, config)
    if not trouble:
        back = _become(state, Phase.CANARY, world.now, weight=config.weights[state.stage], reason="canary")
        return Tick(back, "step", "back from hold")
    if world.silence_s >= config.dark_s and state.record.weight > 0:
        return Tick(_become(state, Phase.HOLD, world.now, weight=0.0, reason=trouble), "hold", "dark")
    return Tick(state)


def _promoting(state: State, world: World, _evidence: Evidence, _config: RolloutConfig) -> Tick:
    acted = all(node.generation >= state.record.generation for node in world.nodes)
    if not acted or not world.nodes:
        return Tick(state)
    return Tick(msgspec.structs.replace(state, phase=Phase.SOAKING, since=world.now))


def _soaking(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> Tick:
    bad = _tier_zero(state, world) or _harm(evidence)
    if bad:
        return Tick(_roll_back(state, world.now, bad), "roll_back", bad)
    if world.now - state.since >= config.soak_s:
        return Tick(_become(state, Phase.IDLE, world.now, holdback=0.0, reason="stable"))
    return Tick(state)


def _rolling_back(state: State, world: World, _evidence: Evidence, _config: RolloutConfig) -> Tick:
    """Wait until no node has the version; a node that is away gets the record before it serves again."""
    served = [node for node in world.nodes if node.ready(state.watched)]
    behind = [node for node in world.nodes if node.generation < state.record.generation]
    if served or behind or not world.nodes:
        return Tick(state)
    return Tick(msgspec.structs.replace(state, phase=Phase.IDLE, since=world.now))


def _next_candidate(state: State, world: World) -> Tick:
    """While one candidate is decided, only the newest waits, loaded at weight 0; older ones are superseded."""
    record = state.record
    waiting = [v for v in _candidates(state, world) if v != record.canary]
    newest = waiting[0] if waiting and state.phase not in {Phase.IDLE, Phase.ROLLING_BACK} else None
    if newest is None or newest == record.next:
        return Tick(state)
    superseded = _skip(state, *waiting[1:])
    return Tick(_become(superseded, state.phase, state.since, next=newest, at=world.now))


def _withdrawn(state: State, world: World) -> Tick | None:
    """A version that must not be served any more, by erasure or by hand: one record takes it out everywhere."""
    record = state.record
    gone = {v.id for v in world.versions.values() if v.withdrawn} - set(record.deny)
    if not gone & {record.stable, record.canary, record.next, record.previous}:
        return None
    deny = (*record.deny, *sorted(gone))
    stable = record.stable
    if stable in gone:
        clean = [v for v in reversed(state.promoted) if v not in deny]
        stable = clean[0] if clean else BASE
    previous = record.previous if record.previous not in deny and record.previous != stable else None
    waiting = record.next if record.next not in deny else None
    keeps = record.canary is not None and record.canary not in deny and stable == record.stable
    phase = state.phase if keeps else Phase.IDLE
    changed = _become(
        state, phase, world.now, stable=stable, previous=previous, next=waiting, deny=deny, reason="withdrawn",
        canary=record.canary if keeps else None, weight=record.weight if keeps else 0.0, holdback=0.0,
    )  # fmt: skip
    return Tick(changed, "withdraw", ",".join(sorted(gone)))


def _tier_zero(state: State, world: World) -> str:
    """A reason to go back at once: poison anywhere, refusals on two nodes (one if there is one), a kill switch."""
    version = state.record.canary or state.record.stable
    if version == BASE:
        return ""
    if version in world.killed:
        return "killed"
    if any(version in node.poisoned for node in world.nodes):
        return "numbers"
    found = [node.versions[version] for node in world.nodes if version in node.versions]
    refused = [status.reason for status in found if status.state is NodeState.QUARANTINED]
    return refused[0] if len(refused) >= min(2, max(len(world.nodes), 1)) else ""


def _harm(evidence: Evidence) -> str:
    metric = evidence.harmed()
    return f"harm: {metric}" if metric is not None else ""


def _trouble(world: World, evidence: Evidence, config: RolloutConfig) -> str:
    """Why nothing may advance, if so."""
    if evidence.skewed():
        return "sample ratio"
    return "telemetry" if world.silence_s >= config.stale_s else ""


def _exhausted(state: State, world: World, evidence: Evidence, config: RolloutConfig) -> bool:
    seen = sum(evidence.matured.values())
    return seen >= config.horizon or world.now - state.began >= config.horizon_s


def _quorum(version: str | None, world: World, config: RolloutConfig) -> bool:
    ready = sum(1 for node in world.nodes if version is not None and node.ready(version))
    return ready >= max(1, config.quorum * len(world.nodes))


def _candidates(state: State, world: World) -> list[str]:
    """Versions that may still be proposed, newest first."""
    record = state.record
    out = {record.stable, record.previous, *record.deny, *state.tried, *state.promoted}
    found = [v.id for v in world.versions.values() if v.line == record.line and not v.withdrawn and v.id not in out]
    return sorted(found, reverse=True)


def _promote(state: State, now: float, holdback: float, *, actor: str = "controller") -> State:
    record = state.record
    assert record.canary is not None, "only a canary is promoted"
    promoted = _become(
        state, Phase.PROMOTING, now, stable=record.canary, previous=record.stable, canary=None, weight=0.0,
        holdback=holdback, reason="promoted", actor=actor,
    )  # fmt: skip
    return msgspec.structs.replace(promoted, promoted=(*state.promoted, record.canary), by_hand=False)


def _roll_back(state: State, now: float, reason: str, *, actor: str = "controller") -> State:
    """One record: the candidate (or, after a promotion, the new stable) goes and is denied for ever."""
    record = state.record
    if record.canary is not None:
        bad, stable, previous = record.canary, record.stable, record.previous
    else:
        older = [v for v in state.promoted if v != record.stable and v not in record.deny]
        bad, previous = record.stable, None
        stable = record.previous or (older[-1] if older else BASE)
    gone = _become(
        state, Phase.ROLLING_BACK, now, stable=stable, previous=previous, canary=None, weight=0.0, holdback=0.0,
        deny=(*record.deny, bad), reason=reason, actor=actor,
    )  # fmt: skip
    return msgspec.structs.replace(gone, watched=bad, by_hand=False)


def _skip(state: State, *versions: str) -> State:
    return msgspec.structs.replace(state, tried=(*state.tried, *versions)[-TRIED:])


def _become(state: State, phase: Phase, now: float, **changes: Any) -> State:
    """The state in `phase` with a record of the next generation."""
    base = {"state": phase, "generation": state.record.generation + 1, "actor": "controller", "at": now}
    record = msgspec.structs.replace(state.record, **{**base, **changes})
    return msgspec.structs.replace(state, phase=phase, since=now, record=record)
