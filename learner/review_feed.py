"""What fills the review queue: the least certain and most surprising fresh samples, and what waits in quarantine.

Beside the steps, in their thread: a round every `every_s` measures a few of the newest fresh samples and takes the best
picks. Torch-free; how a version's certainty is measured comes in as a function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from learner.select import Pick, ReviewItem, ReviewQueue, Scored, SelectConfig, item, select
from streams import near_copies
from streams.events import Sample
from streams.quality.config import Reason, Tag
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import QUARANTINE
from streams.replay.figures import in_lane

LISTED = 100
"""Samples of the quarantine lane that the queue holds at most."""

WAITING = 1.0
"""Score of what waits in quarantine: as high as the most uncertain of a round."""

REMEMBERED = 300
"""Earlier picks that later ones must not be near copies of."""


class Certainty(Protocol):
    """Entropy in nats and margin 0 to 1 of a sample's replies; learner.uncertainty.Unsure is one."""

    @property
    def entropy(self) -> float:
        """Mean over tokens, nats."""

    @property
    def margin(self) -> float:
        """Best less second-best probability, mean over tokens."""


@dataclass(frozen=True)
class Seen:
    """A fresh sample as its step saw it: its key in the buffer, its loss in nats, and by how much that has risen."""

    key: str
    sample: Sample
    loss: float
    change: float = 0.0


class ReviewFeed:
    """One line's feed; `measure` gives the certainty of samples by key, for those that can be measured."""

    def __init__(
        self, queue: ReviewQueue, table: ReplayBuffer, config: SelectConfig,
        measure: Callable[[Sequence[Seen]], Mapping[str, Certainty]],
    ) -> None:  # fmt: skip
        self._queue = queue
        self._table = table
        self._config = config
        self._measure = measure
        self._fresh: deque[Seen] = deque(maxlen=config.measured)
        self._losses: dict[str, float] = {}
        self._known: deque[bytes] = deque(maxlen=REMEMBERED)
        self._due = 0.0

    def observe(self, losses: Mapping[str, float], fresh: Mapping[str, Sample]) -> None:
        """Take in one step: losses by key (rehearsed samples included) and the fresh samples."""
        for key, loss in losses.items():
            before = self._losses.pop(key, None)
            if key in fresh:
                self._fresh.append(Seen(key, fresh[key], loss, 0.0 if before is None else loss - before))
            self._losses[key] = loss
        while len(self._losses) > self._config.candidates:
            self._losses.pop(next(iter(self._losses)))

    def turn(self, now: float) -> int:
        """A round if one is due at `now`, seconds; how many items are new or renewed. Raises redis.RedisError."""
        if now < self._due:
            return 0
        self._due = now + self._config.every_s
        return self._queue.add(self._picked()) + self._waiting()

    def _picked(self) -> list[ReviewItem]:
        seen = {one.key: one for one in self._fresh}
        self._fresh.clear()
        if not seen:
            return []
        certain = self._measure(list(seen.values()))
        scored = [_scored(one, certain[key]) for key, one in seen.items() if key in certain]
        picks = select(scored, self._config.picks, self._config, list(self._known))
        self._known.extend(_signature(seen[pick.sample_id].sample) for pick in picks)
        return [_item(seen[pick.sample_id].sample, pick) for pick in picks]

    def _waiting(self) -> int:
        """The quarantine lane as it is now: what came in is listed, what left is not any more."""
        held = in_lane(self._table, QUARANTINE, LISTED)
        self._queue.keep({sample.sample_id for sample in held}, lane=QUARANTINE)
        made = (msgspec.structs.replace(item(s, _why(s), WAITING), lane=QUARANTINE) for s in held)
        return self._queue.add(made)


def _scored(one: Seen, certain: Certainty) -> Scored:
    sample = one.sample
    return Scored(
        one.key, one.loss, certain.entropy, certain.margin, one.change, topic=sample.topic, signature=_signature(sample)
    )


def _item(sample: Sample, pick: Pick) -> ReviewItem:
    return item(sample, pick.reason, pick.score)


def _why(sample: Sample) -> str:
    """The reason that the assembler gave; else the learner set it apart."""
    if Reason.SOURCE_FLOOD.value in sample.tags:
        return Reason.SOURCE_FLOOD.value
    return Tag.CONTRADICTS.value if Tag.HELD.value in sample.tags else "loss"


def _signature(sample: Sample) -> bytes:
    """Of the last reply and the question before it."""
    replies = [at for at, turn in enumerate(sample.turns) if turn.is_target]
    if not replies:
        return b""
    asked = next((turn.text for turn in reversed(sample.turns[: replies[-1]]) if turn.role == "customer"), "")
    return near_copies.signature(asked, sample.turns[replies[-1]].text)
