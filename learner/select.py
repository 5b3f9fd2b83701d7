"""Which samples a person should look at: those that stand for most uncertainty and surprise, no near copies.

Scores come from the learner's steps; they feed this queue and never the training mix (choosing by loss feeds on noise).
The queue itself lives in Redis under `review:`: `review:queue` orders ids by score, `review:items` holds the scrubbed
items. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from streams import near_copies
from streams.events import Sample, Turn
from streams.replay.config import CHAT

if TYPE_CHECKING:
    import redis

QUEUE = "review:queue"
ITEMS = "review:items"


@dataclass(frozen=True)
class SelectConfig:
    """How the review queue is filled."""

    size: int = 500
    """Items that the queue holds; the lowest scores fall out."""
    surprise: float = 0.3
    """Share of picks by surprise (loss and its change); the rest is by uncertainty."""
    every_s: float = 60.0
    """Pause between two rounds of the learner's feed, seconds."""
    measured: int = 32
    """Newest fresh samples whose certainty a round measures: one forward pass each."""
    picks: int = 4
    """Samples that a round puts into the queue."""
    candidates: int = 2_000
    """Most samples that are compared with each other in one selection; the cost grows with the square."""
    ceiling: float = 0.98
    """Quantile of loss above which a sample is more likely garbage than news, and is left out."""

    def __post_init__(self) -> None:
        """Check shares and size."""
        for name in ("size", "candidates", "measured", "picks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: wants at least 1")
        if not self.every_s > 0:
            raise ValueError(f"every_s = {self.every_s}: wants more than 0")
        for name in ("surprise", "ceiling"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: wants 0 to 1")


@dataclass(frozen=True)
class Scored:
    """The learner's scores of one sample.

    `loss` in nats a reply token, `entropy` in nats, `margin` 0 to 1 (probability of the best token less the second's,
    mean over the reply), `change` of loss since it was last seen.
    """

    sample_id: str
    loss: float
    entropy: float
    margin: float
    change: float = 0.0
    topic: str = "other"
    signature: bytes = b""
    """near_copies.signature of its last question and reply; empty: never a copy."""


@dataclass(frozen=True)
class Pick:
    """A sample that was chosen, by which sign, and how strongly (0 to 1, comparable within one call)."""

    sample_id: str
    reason: str
    score: float


def select(scored: Sequence[Scored], count: int, config: SelectConfig, known: Sequence[bytes] = ()) -> list[Pick]:
    """At most `count` picks, both signs in their shares; `known` are signatures of samples that were reviewed.

    Uncertainty and surprise are weights: picks stand for as much of them as they can, which spreads them over topics.
    Near copies of a pick are left out. Deterministic.
    """
    kept = sorted(_below_ceiling(scored, config.ceiling), key=lambda s: s.sample_id)[: config.candidates]
    uncertain = _ranks(kept, lambda s: s.entropy - s.margin)
    news = _ranks(kept, lambda s: s.loss + max(0.0, s.change))
    chosen: dict[str, Pick] = {}
    taken: list[Scored] = []
    for reason, ranks, wanted in (
        ("surprising", news, round(count * config.surprise)),
        ("uncertain", uncertain, count),
    ):
        seen = [*known, *(sample.signature for sample in taken)]
        for sample in _covering(kept, ranks, seen) if len(chosen) < wanted else ():
            if len(chosen) >= wanted:
                break
            if sample.sample_id in chosen or any(_copy(sample, other) for other in taken):
                continue
            chosen[sample.sample_id] = Pick(sample.sample_id, reason, ranks[sample.sample_id])
            taken.append(sample)
    return sorted(chosen.values(), key=lambda pick: (-pick.score, pick.sample_id))


def _covering(kept: Sequence[Scored], ranks: dict[str, float], known: Sequence[bytes]) -> Iterator[Scored]:
    from learner.coverage import cover  # noqa: PLC0415 - numpy; settings import this module

    weights = [0.5 + ranks[s.sample_id] / 2 for s in kept]
    for at in cover([s.signature for s in kept], [s.topic for s in kept], weights, known):
        yield kept[at]


def _below_ceiling(scored: Sequence[Scored], ceiling: float) -> list[Scored]:
    losses = sorted(s.loss for s in scored)
    if not losses:
        return []
    limit = losses[min(len(losses) - 1, int(len(losses) * ceiling))]
    return [s for s in scored if s.loss <= limit]


def _ranks(scored: Sequence[Scored], key: Callable[[Scored], float]) -> dict[str, float]:
    """Each id with its rank from 0 (lowest) to 1: signs of different units become comparable."""
    ordered = sorted(scored, key=lambda s: (key(s), s.sample_id))
    return {s.sample_id: (at + 1) / len(ordered) for at, s in enumerate(ordered)}


def _copy(one: Scored, other: Scored) -> bool:
    return bool(one.signature and other.signature) and near_copies.similar(one.signature, other.signature)


class ReviewItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sample in the queue: scrubbed turns, the replies asked about, why it is there."""

    sample_id: str
    conversation: str
    customer: str
    turns: tuple[Turn, ...]
    reason: str
    score: float
    topic: str = "other"
    lane: str = ""
    home: str = CHAT
    """Its own lane, where it goes when it is let out of quarantine."""
    adapter: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Event ids of the replies that a decision speaks of."""
        return tuple(turn.event_id for turn in self.turns if turn.is_target and turn.event_id)

    @property
    def question(self) -> str:
        """The newest turn of the customer, empty for none."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "customer"), "")

    @property
    def reply(self) -> str:
        """The last reply that is asked about, empty for none."""
        return next((turn.text for turn in reversed(self.turns) if turn.is_target), "")

    def __repr__(self) -> str:
        """Ids only."""
        return f"ReviewItem(sample_id={self.sample_id!r}, reason={self.reason!r})"


def item(sample: Sample, reason: str, score: float) -> ReviewItem:
    """A queue item of a sample, for example one of the lane `quarantine`."""
    return ReviewItem(
        sample_id=sample.sample_id, conversation=sample.conversation, customer=sample.customer, turns=sample.turns,
        reason=reason, score=score, topic=sample.topic, lane=sample.lane, home=sample.lane,
        adapter=sample.adapter,
    )  # fmt: skip


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ReviewItem)

_ADD = """
if redis.call('SISMEMBER', 'review:done', ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[4])
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
return 1
"""
_DONE = """
redis.call('SADD', 'review:done', ARGV[1])
redis.call('EXPIRE', 'review:done', 2592000)
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


class ReviewQueue:
    """The queue in Redis; an item that was decided does not come back for 30 days.

    An item that cannot be read leaves the queue where it is met: nobody can decide it or say whose text it holds.
    """

    def __init__(self, client: redis.Redis, config: SelectConfig) -> None:
        self._client = client
        self._size = config.size
        self._add = client.register_script(_ADD)
        self._done = client.register_script(_DONE)

    def add(self, items: Iterable[ReviewItem]) -> int:
        """Put items in; returns how many are new or renewed, without those decided already."""
        keys = [QUEUE, ITEMS]
        return sum(self._add(keys=keys, args=[i.sample_id, i.score, _encoder.encode(i), self._size]) for i in items)

    def list(self, count: int) -> list[ReviewItem]:
        """The items with the highest scores."""
        ids: Any = self._client.zrevrange(QUEUE, 0, count - 1)
        held: Any = self._client.hmget(ITEMS, ids) if ids else []
        return list(self._read({key: raw for key, raw in zip(ids, held, strict=True) if raw is not None}).values())

    def waiting(self) -> int:
        """How many items the queue holds."""
        held: Any = self._client.zcard(QUEUE)
        return int(held)

    def get(self, sample_id: str) -> ReviewItem | None:
        """One item, None if it is not in the queue."""
        raw: Any = self._client.hget(ITEMS, sample_id)
        key = sample_id.encode()
        return None if raw is None else self._read({key: raw}).get(key)

    def keep(self, wanted: Collection[str], lane: str) -> int:
        """Take out the items of a lane that are not among `wanted`, undecided; returns how many."""
        held: Any = self._client.hgetall(ITEMS)
        read = self._read(held).items()
        return self._drop([key for key, item in read if item.lane == lane and item.sample_id not in wanted])

    def _drop(self, gone: Sequence[bytes]) -> int:
        if gone:
            self._client.hdel(ITEMS, *gone)
            self._client.zrem(QUEUE, *gone)
        return len(gone)

    def done(self, sample_id: str) -> bool:
        """Take a decided item out; False if it was not there."""
        return bool(self._done(keys=[QUEUE, ITEMS], args=[sample_id]))

    def forget(self, customer: str) -> int:
        """Take out all items of a customer (erasure); returns how many."""
        held: Any = self._client.hgetall(ITEMS)
        return self._drop([key for key, item in self._read(held).items() if item.customer == customer])

    def _read(self, held: Mapping[bytes, bytes]) -> dict[bytes, ReviewItem]:
        found: dict[bytes, ReviewItem] = {}
        for key, raw in held.items():
            with suppress(msgspec.DecodeError):
                found[key] = _decoder.decode(raw)
        self._drop([key for key in held if key not in found])
        return found
