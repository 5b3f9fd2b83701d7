"""The records that steer serving: what is published, what should run where, and what does run.

    adapters.versions   VersionRecord   key id     learn writes, rollout reads
    adapters.rollout    RolloutRecord   key line   rollout writes; nodes, routers and learn obey
    adapters.nodes      NodeRecord      key node   each node reports; routers and rollout read

A rollout record is desired state, not a command: whoever missed one needs only the newest.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec

BASE = "base"
"""Reserved version id: the base model alone."""


class NodeState(StrEnum):
    """Where a version stands on one node; registry-and-nodes.md 4.1."""

    ABSENT = "absent"
    FETCHING = "fetching"
    VERIFIED = "verified"
    LOADING = "loading"
    PROBING = "probing"
    READY = "ready"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    QUARANTINED = "quarantined"


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A committed version: a pointer, never bytes."""

    id: str
    digest: str
    parent: str = BASE
    size: int = 0
    """Bytes of its files."""
    fresh_from: float = 0.0
    """Kafka timestamps of the samples that it learned from, seconds."""
    fresh_to: float = 0.0
    epoch: int = 0
    """Epoch of the line's owner; readers drop lower ones."""
    decision: str = "promote"
    gated_against: str = BASE
    withdrawn: bool = False

    @property
    def line(self) -> str:
        """The line letter."""
        return self.id[0]


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Desired state of one line; `generation` only rises."""

    line: str = "a"
    generation: int = 0
    rollout_id: str = ""
    state: str = "idle"
    stable: str = BASE
    canary: str | None = None
    next: str | None = None
    previous: str | None = None
    weight: float = 0.0
    """Share of new conversations for the candidate."""
    holdback: float = 0.0
    """After a promotion: share of new conversations that stay on `previous`."""
    salt: str = ""
    deny: tuple[str, ...] = ()
    reason: str = ""
    actor: str = "controller"
    at: float = 0.0

    def roles(self) -> dict[str, str]:
        """Version -> role of what may be loaded, most important first; denied ones are left out."""
        named = {"stable": self.stable, "previous": self.previous, "canary": self.canary, "next": self.next}
        found: dict[str, str] = {}
        for role, version in named.items():
            if version and version not in self.deny:
                found.setdefault(version, role)
        return found

    def arms(self) -> tuple[str, str, float] | None:
        """Candidate, control and the probability of the candidate arm, or None while nothing is compared."""
        if self.canary:
            return self.canary, self.stable, self.weight
        if self.holdback > 0 and self.previous:
            return self.stable, self.previous, 1.0 - self.holdback
        return None


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version on one node."""

    role: str
    state: NodeState
    reason: str = ""
    weak: bool = False
    """Too close to its parent for the probe to tell; digest and loaded path carry the proof."""


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one node runs; a node that skips three reports is gone."""

    node: str
    url: str
    generation: int
    """Of the rollout record that it has acted on."""
    versions: dict[str, VersionStatus]
    engine: str
    started_at: float
    at: float
    every_s: float
    """Seconds between its reports."""
    line: str = "a"
    restarts: int = 0
    poisoned: tuple[str, ...] = ()
    """Versions that served a non-finite value: tier 0, at once."""
    leaving: bool = False
    """Draining: no new requests."""

    def ready(self, version: str) -> bool:
        """True when this node may be asked for `version`."""
        status = self.versions.get(version)
        return not self.leaving and status is not None and status.state is NodeState.READY


def draw(salt: str, conversation: str) -> float:
    """A conversation's place in [0, 1), fixed for a salt: it is a candidate while this is below the weight."""
    digest = sha256(salt.encode() + b"\x00" + conversation.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


_encoder = msgspec.json.Encoder()
_versions = msgspec.json.Decoder(VersionRecord)
_rollouts = msgspec.json.Decoder(RolloutRecord)
_nodes = msgspec.json.Decoder(NodeRecord)


def encode(record: VersionRecord | RolloutRecord | NodeRecord) -> bytes:
    """The JSON bytes of a record."""
    return _encoder.encode(record)


def decode_version(value: bytes) -> VersionRecord:
    """Read a record of adapters.versions. Raises msgspec.DecodeError."""
    return _versions.decode(value)


def decode_rollout(value: bytes) -> RolloutRecord:
    """Read a record of adapters.rollout. Raises msgspec.DecodeError."""
    return _rollouts.decode(value)


def decode_node(value: bytes) -> NodeRecord:
    """Read a record of adapters.nodes. Raises msgspec.DecodeError."""
    return _nodes.decode(value)
