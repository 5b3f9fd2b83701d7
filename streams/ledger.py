"""What became of each event: one Redis entry under a keyed digest of its id.

Scripts that have an effect write the entry in the same script: they are this module's `SCRIPT` followed
by their own text and call `ledger_move(key, outcome, reason, effects, sample, ttl)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from importlib.resources import files

import redis

SCRIPT = files("streams").joinpath("ledger.lua").read_text()
"""Lua that every script with an effect starts with."""


ERASED = "led:erased"
"""Set of the digests of samples that were erased, so that what became of their events can be told."""


class Outcome(StrEnum):
    """What can become of an event; a closed set that adds up to all events."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DEAD_LETTERED = "dead_lettered"
    REMOVED = "removed"
    WAITING = "waiting"


@dataclass(frozen=True)
class Entry:
    """One event's outcome, its reason, how often it took effect, and the samples (hex digests) that hold it."""

    outcome: Outcome
    reason: str = ""
    effects: int = 0
    samples: tuple[str, ...] = ()


def event_digest(event_id: str | bytes, key: bytes) -> str:
    """Sixteen hex digits under which an event is filed; keyed, so that ids cannot be enumerated."""
    raw = event_id.encode(errors="surrogatepass") if isinstance(event_id, str) else event_id
    return blake2b(raw, key=key, digest_size=8, person=b"ledger").hexdigest()


def record_digest(record_key: bytes | None, value: bytes | None, key: bytes) -> str:
    """The digest of a record without a readable event id: over its raw key and value."""
    framed = len(record_key or b"").to_bytes(4, "big") + (record_key or b"") + (value or b"")
    return event_digest(framed, key)


def entry_key(digest: str) -> str:
    """Redis key of an entry."""
    return f"led:{digest}"


def decode(raw: bytes | str) -> Entry:
    """Read an entry as the scripts write it."""
    text = raw.decode() if isinstance(raw, bytes) else raw
    outcome, reason, effects, samples, *_ = text.split("|", 4)
    return Entry(Outcome(outcome), reason, int(effects), tuple(s for s in samples.split(",") if s))


def claims(raw: bytes | str | None) -> Iterator[tuple[str, str]]:
    """Who trains a reply, by its entry as it is stored: `kind/n`, and the holder as replay's insert names it."""
    text = raw.decode() if isinstance(raw, bytes) else raw or ""
    for claim in filter(None, "".join(text.split("|", 4)[4:]).split(",")):
        name, _, holder = claim.partition("=")
        yield name, holder


class Ledger:
    """Reads entries, and moves those whose only effect is a Kafka record."""

    def __init__(self, client: redis.Redis, key: bytes, ttl_s: int) -> None:
        self._client = client
        self._key = key
        self._ttl_s = ttl_s
        self._script = client.register_script(
            SCRIPT + "\nreturn ledger_move(KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]))"
        )

    def digest(self, event_id: str) -> str:
        """The digest of an event id under this ledger's key."""
        return event_digest(event_id, self._key)

    def move(self, digest: str, entry: Entry) -> bool:
        """File an outcome; False when the entry stands already or may not move so."""
        args: list[str | int] = [entry.outcome, entry.reason, entry.effects, ",".join(entry.samples), self._ttl_s]
        return bool(self._script(keys=[entry_key(digest)], args=args))

    def read(self, digests: Sequence[str]) -> list[Entry | None]:
        """The entries of these digests, None where there is none."""
        if not digests:
            return []
        found = self._client.mget([entry_key(d) for d in digests])
        return [None if raw is None else decode(raw) for raw in found]

    def ages_s(self, digests: Sequence[str]) -> list[float]:
        """Seconds since each entry's last move; 0 for those that are not there."""
        pipe = self._client.pipeline(transaction=False)
        for digest in digests:
            pipe.pttl(entry_key(digest))
        return [max(0.0, self._ttl_s - left / 1000) if left > 0 else 0.0 for left in pipe.execute()]

    def erase_samples(self, samples: Sequence[str]) -> None:
        """Remember that these samples (hex digests) were erased."""
        if samples:
            self._client.sadd(ERASED, *samples)
            self._client.expire(ERASED, self._ttl_s)

    def erased_samples(self, samples: Sequence[str]) -> set[str]:
        """Which of these samples were erased."""
        if not samples:
            return set()
        found = self._client.smismember(ERASED, list(samples))
        return {sample for sample, known in zip(samples, found, strict=True) if known}
