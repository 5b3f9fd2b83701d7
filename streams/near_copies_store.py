"""Where near copies are remembered: in Redis under `dup:` (bands, clusters, counters), or in memory for a dry run.

Reading (`look`) is separate from writing: the script that cuts a sample files its units in the same write, by
prepending `SCRIPT` and calling `dup_file(spec)`. All counters are sets of members, so a repeated call changes nothing,
and a member is never a copy of itself.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import repeat
from typing import Protocol

import msgspec
import redis

from streams import near_copies
from streams.claims import Evidence, Stance, stance, turned, voice
from streams.quality.config import QualityConfig, Reason, Tag

SCRIPT = files("streams").joinpath("near_copies.lua").read_text()
"""Lua that a script prepends to call `dup_file(spec)`."""

_FILE = """
local spec = cjson.decode(ARGV[1])
dup_say(spec)
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
    local unit = redis.call('HMGET', 'dup:u:' .. order[at], 'c', 's', 'x')
    if unit[1] then
      local at_row = #row
      row[at_row + 1], row[at_row + 2], row[at_row + 3] = order[at], unit[1], unit[2]
      row[at_row + 4] = redis.call('GET', 'dup:c:' .. unit[1]) or 'train'
      row[at_row + 5] = unit[3] or ''
    end
  end
  found[number] = row
end
return found
"""
"""Those that share most bands with each unit, newest first among equals: five fields of each.

member, cluster, signature, split, the clusters that its claim contradicts (by blanks)."""

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
    customer: str = ""
    """Pseudonym of who was told; empty: a claim of nobody, which no other has to wait for."""
    agent: str = ""
    """Pseudonym of who said it, where known."""
    at: float = 0.0
    """When, seconds."""

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
    against: tuple[str, ...] = ()
    """Clusters that its claim contradicts."""


@dataclass(frozen=True)
class Copies:
    """What a unit is a copy of: `reason` to reject it or None, its cluster, and the members that it contradicts."""

    reason: Reason | None = None
    cluster: str = ""
    tags: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    """Clusters of which it, or what it is a copy of, says the opposite."""
    stance: Stance = Stance.ADMIT
    """Whether it may be learned in spite of that."""
    moved: tuple[str, ...] = ()
    """Earlier replies against the same claims, which have this stance from now on."""


NEW = Copies()
"""Like nothing that is known."""


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

    def file(self, unit: Unit, copies: Copies, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit and what `look` said of it, at time `at` (seconds); idempotent by member and sample."""


def relate(unit: Unit, candidates: Iterable[Held]) -> Copies:
    """Compare a unit with candidates: an exact copy first, then a near one, then contradictions."""
    signature = unit.signature
    others = [h for h in candidates if h.member != unit.member and near_copies.related(signature, h.signature)]
    for held in others:
        if near_copies.exact(signature, held.signature):
            return Copies(_across(unit.split, held.split, Reason.DUPLICATE), held.cluster, against=held.against)
    for held in others:
        if near_copies.similar(signature, held.signature):
            return Copies(_across(unit.split, held.split, Reason.NEAR_DUPLICATE), held.cluster, against=held.against)
    denied = [held for held in others if near_copies.contradicts(signature, held.signature)]
    if not denied:
        return NEW
    # who contradicts a contradiction takes the old side
    asked = near_copies.asks(signature)
    against = tuple(dict.fromkeys(held.cluster for held in denied if asked and not held.against))
    return Copies(tags=(Tag.CONTRADICTS.value,), contradicts=tuple(held.member for held in denied), against=against)


def judge(copies: Copies, unit: Unit, evidence: Sequence[Evidence], hourly: int) -> Copies:
    """The same with its stance towards the claims that it contradicts: the most careful one counts."""
    if not unit.customer or not evidence:
        return copies
    stances = [stance(known, voice(unit.customer), voice(unit.agent), unit.at, hourly) for known in evidence]
    now = max(stances, key=list(Stance).index)
    moved = [
        name for known, own in zip(evidence, stances, strict=True) if own is now for name in turned(known, now, hourly)
    ]
    tags = {Stance.ADMIT: (), Stance.HOLD: (Tag.HELD.value,), Stance.FLOOD: (Tag.HELD.value, Reason.SOURCE_FLOOD.value)}
    return replace(copies, stance=now, moved=tuple(dict.fromkeys(moved)), tags=(*copies.tags, *tags[now]))


def _across(split: str, first: str, within: Reason) -> Reason:
    """A cluster belongs to the split that first held it: a copy of a held-out unit does not train."""
    if split == first:
        return within
    return Reason.HELDOUT_COPY if split == "train" else Reason.NEAR_DUPLICATE


def spec(  # noqa: PLR0917 - one script call's argument
    unit: Unit, copies: Copies, sample: str, customer: str, at: float, config: QualityConfig
) -> dict[str, object]:
    """The argument of `dup_file` and `dup_say` in Lua, as JSON takes it: bytes as hex digits."""
    return {
        **said(unit, copies, config), "signature": unit.signature.hex(), "split": unit.split,
        "customer": customer, "sample": sample, "reply_key": near_copies.reply_key(unit.reply).hex(),
        "hour": int(at // 3600), "day": int(at // 86400), "bands": [band.hex() for band in unit.bands],
    }  # fmt: skip


def said(unit: Unit, copies: Copies, config: QualityConfig) -> dict[str, object]:
    """The argument of `dup_say` alone, for a unit that is refused as a copy but was said all the same."""
    return {
        "member": unit.member, "cluster": copies.cluster, "against": list(copies.against),
        "who": voice(unit.customer), "agent": voice(unit.agent), "admitted": copies.stance is Stance.ADMIT,
        "said_at": unit.at, "ttl": config.near_ttl_s,
    }  # fmt: skip


class RedisCopies:
    """The store under `dup:`."""

    def __init__(self, client: redis.Redis, config: QualityConfig) -> None:
        self._client = client
        self._config = config
        self._file = client.register_script(SCRIPT + _FILE)
        self._look = client.register_script(_LOOK)

    def look(self, units: Sequence[Unit]) -> list[Copies]:
        """What each unit is a copy of; one round trip for `_LOOKED` units, and one for all that contradict."""
        found: list[Copies] = []
        for at in range(0, len(units), _LOOKED):
            part = units[at : at + _LOOKED]
            answer = self._look(args=[_CANDIDATES, _encoder.encode([[b.hex() for b in unit.bands] for unit in part])])
            found += [relate(unit, _held(row)) for unit, row in zip(part, answer, strict=True)]
        evidence = iter(
            self._evidence([(name, u) for u, copies in zip(units, found, strict=True) for name in copies.against])
        )
        return [
            judge(copies, unit, [next(evidence) for _ in copies.against], self._config.cluster_hourly)
            for unit, copies in zip(units, found, strict=True)
        ]

    def _evidence(self, wanted: Sequence[tuple[str, Unit]]) -> list[Evidence]:
        """What is known of each cluster in the hour of the unit that contradicts it."""
        if not wanted:
            return []
        pipe = self._client.pipeline(transaction=False)
        for cluster, unit in wanted:
            pipe.hgetall(f"dup:e:{cluster}")
            pipe.hgetall(f"dup:x:{cluster}")
            pipe.smembers(f"dup:m:{cluster}")
            pipe.scard(f"dup:o:{cluster}:{int(unit.at // 3600)}")
        answers = iter(pipe.execute())
        return [_known(next(answers), next(answers), _names(next(answers)), next(answers)) for _ in wanted]

    def file(self, unit: Unit, copies: Copies, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit; for callers whose effect is not a script of their own."""
        argument = _encoder.encode(spec(unit, copies, sample, customer, at, self._config))
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
    voices: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    told_at: dict[str, float] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def look(self, units: Sequence[Unit]) -> list[Copies]:
        """What each unit is a copy of."""
        return [self._looked(unit, relate(unit, self._candidates(unit))) for unit in units]

    def _looked(self, unit: Unit, copies: Copies) -> Copies:
        known = [
            Evidence(
                self.voices.get(("told", name), {}), self.voices.get(("against", name), {}),
                tuple(sorted(self.sets.get(("against", name, 0), ()))),
                len(self.sets.get(("otherwise", name, int(unit.at // 3600)), ())),
                self.told_at.get(name, 0.0), self.since.get(name, math.inf),
            )
            for name in copies.against
        ]  # fmt: skip
        return judge(copies, unit, known, self.config.cluster_hourly)

    def say(self, unit: Unit, copies: Copies) -> None:
        """Remember who was told what: of every unit, those included that are refused as copies."""
        cluster = copies.cluster or unit.member
        if copies.stance is Stance.ADMIT and unit.customer:
            self.voices.setdefault(("told", cluster), {}).setdefault(voice(unit.customer), voice(unit.agent))
            self.told_at[cluster] = max(unit.at, self.told_at.get(cluster, unit.at))
        for name in copies.against:
            if unit.customer:
                self.voices.setdefault(("against", name), {}).setdefault(voice(unit.customer), voice(unit.agent))
                self.since.setdefault(name, unit.at)
            self._add(("against", name, 0), unit.member)
            self._add(("otherwise", name, int(unit.at // 3600)), unit.member)

    def _candidates(self, unit: Unit) -> list[Held]:
        known = enumerate(map(self.newest.get, unit.bands))
        shared: dict[int, int] = {}
        for band, newest in [(band, number) for band, number in known if number is not None]:
            number, depth = newest, 0
            while number >= 0 and depth < _DEEP:
                shared[number] = shared.get(number, 0) + 1
                number, depth = self.before[number * near_copies.BANDS + band], depth + 1
        # whoever shares most bands first, as they were met among equals
        return [self.order[number] for number in sorted(shared, key=lambda one: -shared[one])[:_CANDIDATES]]

    def file(self, unit: Unit, copies: Copies, sample: str, customer: str, at: float) -> Filed:
        """Remember a unit."""
        self.say(unit, copies)
        if unit.member not in self.units:
            first = self.units.get(copies.cluster)
            split = first.split if first else unit.split
            held = Held(unit.member, unit.signature, copies.cluster or unit.member, split, copies.against)
            self.units[unit.member] = held
            number = len(self.order)
            self.order.append(held)
            self.before.extend(map(self.newest.get, unit.bands, repeat(-1)))
            self.before.extend([-1] * (near_copies.BANDS - len(unit.bands)))
            for band in unit.bands:  # three times as quick as `update`, which looks at the table's size first
                self.newest[band] = number
        owner = self.units[unit.member].cluster
        return Filed(
            self._add(("day", customer, int(at // 86400)), sample),
            self._add(("hour", owner, int(at // 3600)), unit.member),
            self._add(("reply", near_copies.reply_key(unit.reply).hex(), 0), unit.member),
        )

    def _add(self, key: tuple[str, str, int], member: str) -> int:
        held = self.sets.get(key)
        if held is None:
            held = self.sets[key] = set()
        held.add(member)
        return len(held)


def _held(row: Sequence[bytes]) -> list[Held]:
    """What the script found for one unit."""
    fields = zip(row[::5], row[1::5], row[2::5], row[3::5], row[4::5], strict=True)
    return [
        Held(m.decode(), bytes.fromhex(s.decode()), c.decode(), split.decode(), tuple(x.decode().split()))
        for m, c, s, split, x in fields
    ]


def _known(told: dict[bytes, bytes], against: dict[bytes, bytes], members: tuple[str, ...], hourly: int) -> Evidence:
    told_at, since = float(told.pop(b"@", 0.0)), float(against.pop(b"@", math.inf))
    return Evidence(_voices(told), _voices(against), members, hourly, told_at, since)


def _voices(raw: dict[bytes, bytes]) -> dict[str, str]:
    return {customer.decode(): agent.decode() for customer, agent in raw.items()}


def _names(raw: set[bytes]) -> tuple[str, ...]:
    return tuple(sorted(name.decode() for name in raw))
