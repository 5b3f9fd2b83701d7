"""Decision and checkpoint in one compare-and-set in Redis; rollout.md 5.

StoreError
├── Fenced     a newer controller has begun: this one may not write any more
└── Conflict   somebody else (a person's command) wrote a newer generation: read again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgspec
import redis

from services.rollout.evidence import Kept
from services.rollout.machine import State
from services.rollout_records import encode
from services.router.pins import kill_key

COMMIT = """
local cur = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'record')
local epoch, gen = tonumber(cur[1] or 0), tonumber(cur[2] or 0)
if tonumber(ARGV[1]) ~= epoch then return {'fenced', epoch} end
local mine = gen == tonumber(ARGV[3]) and cur[3] == ARGV[4]
if gen ~= tonumber(ARGV[2]) and not mine then return {'conflict', gen} end
redis.call('HSET', KEYS[1], 'generation', ARGV[3], 'record', ARGV[4], 'checkpoint', ARGV[5])
return {'ok', tonumber(ARGV[3])}
"""
"""A repeat of one's own write, or a checkpoint under the same record, passes too."""

LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
"""Only keeps two controllers from being busy at once; safety is the epoch."""


class StoreError(Exception):
    """A write that was refused."""


class Fenced(StoreError):
    """Another controller has taken over."""


class Conflict(StoreError):
    """The generation is not the expected one."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """What a controller resumes from; floats survive JSON exactly."""

    state: State
    evidence: Kept | None = None
    positions: dict[str, int] = {}
    """`topic:partition` -> offset up to which records had been read."""
    starts: dict[str, int] = {}
    """`topic:partition` -> offset from which they must be read again: the oldest open conversation's."""


@dataclass(frozen=True)
class Stored:
    """The hash of a line."""

    epoch: int
    generation: int
    checkpoint: Checkpoint | None


class Store:
    """One line's hash. Every method may raise redis.RedisError."""

    def __init__(self, client: redis.Redis, line: str) -> None:
        self._client = client
        self._line = line
        self._key = f"{{rollout:{line}}}"
        self._commit = client.register_script(COMMIT)
        self._lease = client.register_script(LEASE)

    def begin(self) -> int:
        """A new epoch: from now on every older controller is fenced."""
        return int(self._client.hincrby(self._key, "epoch", 1))

    def hold_lease(self, owner: str, ttl_s: float) -> bool:
        """Take or renew the lease; False while another controller has it."""
        return bool(self._lease(keys=[f"{self._key}:lease"], args=[owner, int(ttl_s * 1000)]))

    def read(self) -> Stored:
        """What stands now. A checkpoint that this release cannot read counts as none."""
        epoch, generation, raw = cast("list[Any]", self._client.hmget(self._key, ["epoch", "generation", "checkpoint"]))
        try:
            checkpoint = None if raw is None else msgspec.json.decode(raw, type=Checkpoint)
        except msgspec.DecodeError:
            checkpoint = None
        return Stored(int(epoch or 0), int(generation or 0), checkpoint)

    def commit(self, epoch: int, expected: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whose record stands at `expected` or follows it. Raises `Fenced` or `Conflict`.

        Repeated once after a time-out, which means unknown; the script is idempotent.
        """
        record = checkpoint.state.record
        args: list[str | int | bytes] = [
            epoch,
            expected,
            record.generation,
            encode(record),
            msgspec.json.encode(checkpoint),
        ]
        try:
            answer, at = self._commit(keys=[self._key], args=args)
        except redis.TimeoutError:
            answer, at = self._commit(keys=[self._key], args=args)
        if answer == b"fenced":
            raise Fenced(f"epoch {at} has begun after {epoch}")
        if answer == b"conflict":
            raise Conflict(f"generation is {at}, not {expected}")

    def killed(self) -> frozenset[str]:
        """Versions that the kill switch names."""
        found = cast("set[bytes]", self._client.smembers(kill_key(self._line)))
        return frozenset(item.decode() for item in found)

    def lift(self, versions: frozenset[str]) -> None:
        """Denied versions need no kill switch any more."""
        if versions:
            self._client.srem(kill_key(self._line), *versions)
