"""Sticky pins and turn numbers in Redis: one script when a turn begins, one when it was answered.

pin:{<pseudonym>}         version, rollout, arm, p
pin:{<pseudonym>}:turns   next seq, keyed digests of the last turns, the last jobs (repeats give the same answer)
pin:kill:<line>           set of versions that are switched off
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis

from services.router.view import Pin

_SCRIPTS = files("services.router")
MOVE = """
if redis.call('GET', KEYS[1]) == ARGV[2] then redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[1]) end
return redis.call('GET', KEYS[1])
"""
"""Another router may have moved the pin meanwhile: its choice stands."""

LETTER = {"customer": "c", "assistant": "a", "agent": "g", "system": "s"}


@dataclass(frozen=True)
class Begun:
    """How a turn stands after its begin: `first` is the seq of message `skip`, -1 when nothing is recorded."""

    pin: Pin
    fresh: bool
    first: int
    skip: int
    count: int


def kill_key(line: str) -> str:
    """Redis key of a line's kill switch."""
    return f"pin:kill:{line}"


def turn_digest(key: bytes, role: str, text: str) -> str:
    """By which a message is known again; keyed, surrounding blanks do not count."""
    return f"{LETTER[role]}:{blake2b(text.strip().encode(errors='surrogatepass'), key=key, digest_size=8).hexdigest()}"


class Pins:
    """The scripts over one asyncio Redis client.

    Every method may raise redis.RedisError: then the turn is degraded, and the backlog repeats what is idempotent.
    """

    def __init__(self, client: Redis, ttl_s: float) -> None:
        self._client = client
        self._ttl_ms = int(ttl_s * 1000)
        self._begin = client.register_script(_SCRIPTS.joinpath("begin.lua").read_text())
        self._answered = client.register_script(_SCRIPTS.joinpath("answered.lua").read_text())
        self._move = client.register_script(MOVE)

    async def begin(self, conversation: str, proposed: Pin, job: str, digests: Sequence[str]) -> Begun:
        """Pin the conversation unless it is, and number its new messages (none of them when `digests` is empty)."""
        keys = [f"pin:{{{conversation}}}", f"pin:{{{conversation}}}:turns"]
        args: list[str | int] = [self._ttl_ms, proposed.encode(), job, ",".join(digests)]
        pin, fresh, first, skip, count = await self._begin(keys=keys, args=args)
        return Begun(Pin.decode(_text(pin)), bool(fresh), int(first), int(skip), int(count))

    async def answered(self, conversation: str, job: str, digest: str) -> int:
        """The seq of a job's answer."""
        return int(await self._answered(keys=[f"pin:{{{conversation}}}:turns"], args=[self._ttl_ms, job, digest]))

    async def move(self, conversation: str, old: Pin, new: Pin) -> Pin:
        """Replace a pin whose version may not serve any more; gives the pin that stands now."""
        args: list[str | int] = [self._ttl_ms, old.encode(), new.encode()]
        return Pin.decode(_text(await self._move(keys=[f"pin:{{{conversation}}}"], args=args) or new.encode()))

    async def kill(self, line: str, version: str) -> None:
        """Switch a version off for every router."""
        await self._client.sadd(kill_key(line), version)

    async def killed(self, line: str) -> frozenset[str]:
        """What is switched off."""
        found = await cast("Awaitable[set[Any]]", self._client.smembers(kill_key(line)))
        return frozenset(_text(item) for item in found)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
