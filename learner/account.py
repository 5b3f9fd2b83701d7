"""The durable part of a line in Redis: its epoch, which fences older owners, and the gate's account. Torch-free.

Both stand in the hash `{line:<line>}`. The account is stored before a decision is acted on; no restart, resume
or tuner run may reset it. Beside it: what became stable when, what a tuner found, which facts operators named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from learner.gate import Account

_SAVE = """
-- ARGV = epoch, then field, value, ...; writes only for the newest epoch and never takes back a decision or a denial
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) ~= tonumber(ARGV[1]) then return 0 end
local fields = {}
for i = 2, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
local stored = redis.call('HMGET', KEYS[1], 'gate_decisions', 'gate_denied')
if tonumber(fields['gate_decisions']) < tonumber(stored[1] or 0) then return 0 end
local denied = math.max(tonumber(fields['gate_denied']), tonumber(stored[2] or 0))
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('HSET', KEYS[1], 'gate_denied', denied)
return 1
"""

_DENY = """
-- ARGV = epoch, denied versions in all
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) ~= tonumber(ARGV[1]) then return 0 end
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'gate_denied') or 0) then
  redis.call('HSET', KEYS[1], 'gate_denied', ARGV[2])
end
return 1
"""


class Superseded(Exception):
    """A newer process owns the line, or the store has seen later decisions: this one must stop."""


class LineAccount:
    """One line's epoch and gate account; `client` is configured without retries, calls may be repeated."""

    def __init__(self, client: redis.Redis, line: str) -> None:
        self._client = client
        self._key = f"{{line:{line}}}"
        self._save = client.register_script(_SAVE)
        self._deny = client.register_script(_DENY)

    def claim(self) -> int:
        """Become the line's owner: the new epoch, above all earlier ones."""
        return int(self._client.hincrby(self._key, "epoch", 1))

    def owned(self, epoch: int) -> bool:
        """Whether `epoch` is still the newest."""
        return int(self._client.hget(self._key, "epoch") or 0) == epoch

    def load(self) -> Account:
        """The stored account; a new one when there is none."""
        stored = self._client.hgetall(self._key)
        return Account.from_fields({_text(name): _text(value) for name, value in stored.items()})

    def save(self, account: Account, epoch: int) -> None:
        """Store the account durably; repeating it is harmless. Raises Superseded."""
        pairs = [item for pair in account.to_fields().items() for item in pair]
        if not self._save(keys=[self._key], args=[epoch, *pairs]):
            raise Superseded(f"{self._key} epoch {epoch}")

    def deny(self, count: int, epoch: int) -> None:
        """So many versions of the line have been rolled back or withdrawn in all. Raises Superseded."""
        if not self._deny(keys=[self._key], args=[epoch, count]):
            raise Superseded(f"{self._key} epoch {epoch}")

    def promoted(self, version: str, at: float) -> None:
        """A version became stable at this time, seconds; the first time counts."""
        self._client.zadd(f"{self._key}:promoted", {version: at}, nx=True)

    def promotions(self, since: float) -> list[str]:
        """Versions that became stable at this time or later, oldest first; earlier ones are forgotten."""
        key = f"{self._key}:promoted"
        self._client.zremrangebyscore(key, "-inf", f"({since}")
        found: Any = self._client.zrange(key, 0, -1)
        return [_text(version) for version in found]

    def tune(self, params: Mapping[str, float]) -> None:
        """Ask the owner of the line to go on with these hyper-parameters."""
        self._client.hset(self._key, "tuned", json.dumps(dict(params)))

    def tuned(self) -> dict[str, float]:
        """What `tune` asked for last; empty if nobody did."""
        raw = self._client.hget(self._key, "tuned")
        return dict(json.loads(raw)) if raw else {}

    def name_fact(self, named: bytes) -> None:
        """An operator's word that a fact has changed, for the owner of the line to read."""
        self._client.rpush(f"{self._key}:facts", named)

    def named_facts(self, after: int = 0) -> list[bytes]:
        """What operators named, oldest first, without the first `after`."""
        return [
            raw if isinstance(raw, bytes) else raw.encode()
            for raw in self._client.lrange(f"{self._key}:facts", after, -1)
        ]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
