"""Where near copies are remembered: in Redis under `dup:` (bands, clusters, counters), or in memory for a dry run.

Reading (`look`) is separate from writing: the script that cuts a sample files its units in the same write, by
prepending `SCRIPT` and calling `dup_file(spec)`. All counters are sets of members, so a repeated call changes nothing,
and a member is never a copy of itself.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Protocol

import msgspec
import redis

from streams import near_copies
from streams.quality.config import QualityConfig, Reason, Tag

SCRIPT = files("streams").joinpath("near_copies.lua").read_text()
"""Lua that a script prepends to call `dup_file(spec)`."""

_FILE = """
local spec = cjson.decode(ARGV[1])
return dup_file(spec)
"""

_LOOK = """
local limit, found = tonumber(ARGV[1]), {}
for number, bands in ipairs(cjson.decode(ARGV[2])) do
  local shared, order = {}, {}
  for _, band in ipairs(bands) do
    for _, member in ipairs(redis.call('LRANGE', 'dup:b:' .. band, 0, -1)) do
      if not shared[member] then
        order[#order + 1] = member
        shared[member] = { 0, #order }
      end
      shared[member][1] = shared[member][1] + 1
    end
  end
  table.sort(order, function(a, b)
    local x, y = shared[a], shared[b]
    return x[1] > y[1] or (x[1] == y[1] and x[2] < y[2])
  end)
  local row = {}
  for at = 1, math.min(limit, #order) do
    local unit = redis.call('HMGET', 'dup:u:' .. order[at], 'c', 's')
    if unit[1] then
      local at_row = #row
      row[at_row + 1], row[at_row + 2], row[at_row + 3] = order[at], unit[1], unit[2]
      row[at_row + 4] = redis.call('GET', 'dup:c:' .. unit[1]) or 'train'
    end
  end
  found[number] = row
end
return found
"""
"""Those that share most bands with each unit, newest first among equals: member, cluster, signature, split."""

_LOOKED = 16
"""Units in one call of that script; it bounds how long others wait."""

_encoder = msgspec.json.Encoder()

_CANDIDATES = 48
"""Units compared with a new one: those that share most bands."""

_DEEP = 32
"""Newest units of a bucket that are looked at; near_copies.lua keeps as many."""


@dataclass(frozen=True)
class Unit:
    """One question and reply to be judged: `member` is the event id of the reply."""

    member: str
    question: str
    reply: str
    split: str = "train"

    @cached_property
    def signature(self) -> bytes:
        """What is kept of its words."""
        return near_copies.signature(self.question, self.reply)

    @cached_property
    def bands(self) -> tuple[bytes, ...]:
        """The buckets that it is filed in."""
        return near_copies.bands(self.question, self.reply)


@dataclass(frozen=True)
class Held:
    """A unit that is stored: its cluster and the split that first held that cluster."""

    member: str
    signature: bytes
    cluster: str
    split: str


@dataclass(frozen=True)
class Copies:
    """What a unit is a copy of: `reason` to reject it or None, its cluster, and the members that it contradicts."""

    reason: Reason | None = None
    cluster: str = ""
    tags: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filed:
    """Counts after filing: samples of the customer today, members of the cluster this hour, uses of the reply."""

    daily: int
    grown: int
    occurrences: int

    def verdict(self, config: QualityConfig) -> tuple[Reason | None, tuple[str, ...]]:
        """The cap that is passed, if any, and the tags that the counts give."""
        tags = (Tag.TEMPLATE.value,) if self.occurrences > config.template_count else ()
        if self.grown > config.cluster_hourly:
            return Reason.SOURCE_FLOOD, tags
        return (Reason.CUSTOMER_CAP if self.daily > config.customer_daily else None), tags


class CopyStore(Protocol):
    """Where copies are looked up and filed."""

    def look(self, units: Sequence[Unit]) -> list[Copies]:
        """What each unit is a copy of; writes nothing."""

    def file(self, unit: Unit, cluster: str, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit at time `at` (seconds), idempotent by member and sample."""


def relate(unit: Unit, candidates: Iterable[Held]) -> Copies:
    """Compare a unit with candidates: an exact copy first, then a near one, then contradictions."""
    signature = unit.signature
    others = [held for held in candidates if held.member != unit.member]
    for held in others:
        if near_copies.exact(signature, held.signature):
            return Copies(_across(unit.split, held.split, Reason.DUPLICATE), held.cluster)
    for held in others:
        if near_copies.similar(signature, held.signature):
            return Copies(_across(unit.split, held.split, Reason.NEAR_DUPLICATE), held.cluster)
    against = tuple(held.member for held in others if near_copies.contradicts(signature, held.signature))
    return Copies(tags=(Tag.CONTRADICTS.value,) if against else (), contradicts=against)


def _across(split: str, first: str, within: Reason) -> Reason:
    """A cluster belongs to the split that first held it: a copy of a held-out unit does not train."""
    if split == first:
        return within
    return Reason.HELDOUT_COPY if split == "train" else Reason.NEAR_DUPLICATE


def spec(  # noqa: PLR0917 - one script call's argument
    unit: Unit, cluster: str, sample: str, customer: str, at: float, config: QualityConfig
) -> dict[str, object]:
    """The argument of `dup_file` in Lua, as JSON takes it: bytes as hex digits."""
    return {
        "member": unit.member, "signature": unit.signature.hex(), "cluster": cluster, "split": unit.split,
        "customer": customer, "sample": sample, "reply_key": near_copies.reply_key(unit.reply).hex(),
        "hour": int(at // 3600), "day": int(at // 86400), "ttl": config.near_ttl_s,
        "bands": [band.hex() for band in unit.bands],
    }  # fmt: skip


class RedisCopies:
    """The store under `dup:`."""

    def __init__(self, client: redis.Redis, config: QualityConfig) -> None:
        self._client = client
        self._config = config
        self._file = client.register_script(SCRIPT + _FILE)
        self._look = client.register_script(_LOOK)

    def look(self, units: Sequence[Unit]) -> list[Copies]:
        """What each unit is a copy of; one round trip for `_LOOKED` units."""
        found: list[Copies] = []
        for at in range(0, len(units), _LOOKED):
            part = units[at : at + _LOOKED]
            answer = self._look(args=[_CANDIDATES, _encoder.encode([[b.hex() for b in unit.bands] for unit in part])])
            found += [relate(unit, _held(row)) for unit, row in zip(part, answer, strict=True)]
        return found

    def file(self, unit: Unit, cluster: str, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit; for callers whose effect is not a script of their own."""
        argument = _encoder.encode(spec(unit, cluster, sample, customer, at, self._config))
        daily, grown, occurrences = self._file(args=[argument])
        return Filed(daily, grown, occurrences)

    def forget(self, members: Iterable[str]) -> int:
        """Delete what is kept of these units (erasure); returns how many were there."""
        keys = [f"dup:u:{member}" for member in members]
        return int(self._client.delete(*keys)) if keys else 0


@dataclass
class MemoryCopies:
    """The store of a dry run: no time to live, gone with the process.

    Units have numbers; `newest` names the last one in a bucket and `before`, at number * BANDS + band, the one before
    it: the millions of buckets of a long history are no millions of lists.
    """

    config: QualityConfig
    newest: dict[bytes, int] = field(default_factory=dict)
    before: array[int] = field(default_factory=lambda: array("q"))
    order: list[Held] = field(default_factory=list)
    units: dict[str, Held] = field(default_factory=dict)
    sets: dict[tuple[str, str, int], set[str]] = field(default_factory=dict)

    def look(self, units: Sequence[Unit]) -> list[Copies]:
        """What each unit is a copy of."""
        return [relate(unit, self._candidates(unit)) for unit in units]

    def _candidates(self, unit: Unit) -> list[Held]:
        shared: Counter[int] = Counter()
        for band, bucket in enumerate(unit.bands):
            number, depth = self.newest.get(bucket, -1), 0
            while number >= 0 and depth < _DEEP:
                shared[number] += 1
                number, depth = self.before[number * near_copies.BANDS + band], depth + 1
        return [self.order[number] for number, _ in shared.most_common(_CANDIDATES)]

    def file(self, unit: Unit, cluster: str, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit."""
        if unit.member not in self.units:
            first = self.units.get(cluster)
            split = first.split if first else unit.split
            held = self.units[unit.member] = Held(unit.member, unit.signature, cluster or unit.member, split)
            number = len(self.order)
            self.order.append(held)
            self.before.extend(self.newest.get(bucket, -1) for bucket in unit.bands)
            self.before.extend([-1] * (near_copies.BANDS - len(unit.bands)))
            self.newest.update(dict.fromkeys(unit.bands, number))
        owner = self.units[unit.member].cluster
        return Filed(
            self._add(("day", customer, int(at // 86400)), sample),
            self._add(("hour", owner, int(at // 3600)), unit.member),
            self._add(("reply", near_copies.reply_key(unit.reply).hex(), 0), unit.member),
        )

    def _add(self, key: tuple[str, str, int], member: str) -> int:
        held = self.sets.setdefault(key, set())
        held.add(member)
        return len(held)


def _held(row: Sequence[bytes]) -> list[Held]:
    """What the script found for one unit."""
    fields = zip(row[::4], row[1::4], row[2::4], row[3::4], strict=True)
    return [Held(m.decode(), bytes.fromhex(s.decode()), c.decode(), split.decode()) for m, c, s, split in fields]
