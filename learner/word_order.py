"""Words in random order: a reply of shuffled words is as likely in any other order, a real one is not.

Neither spelling nor loss tells word salad from a new topic. What its words gain by the order in which they stand does:
the loss of the same words shuffled, less that of the reply, both read alone by the running weights. It is measured
where the loss gives reason to doubt a sample, and compared with the gains of doubted samples of its lane that passed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from learner.adapter.chat import Said
from learner.adapter.tree import Tree, score

if TYPE_CHECKING:
    from learner.batch import Document

HISTORY = 64
"""Newest accepted gains of a lane that its median looks back on: they grow while a line learns."""

KNOWN = 8
"""Gains before a lane has a median."""

NEWEST = 32
"""Newest samples of a lane that tell whether it has moved: a fifth of noise is no half of so many by chance."""

FEWEST_WORDS = 16
"""What a sample says in fewer words has too few orders to be told apart."""

MOST_WORDS = 100
"""Words of a sample that are read in both orders: enough to tell, and a bound on what a doubt costs."""

SHORT = 3
"""A reply of fewer words has hardly another order."""


def spoken(replies: Iterable[str]) -> tuple[str, ...]:
    """The words of a sample's replies that are read in both orders; none if they are too few."""
    kept, room = list[str](), MOST_WORDS
    for reply in replies:
        words = reply.split()[:room]
        if len(words) >= SHORT:
            kept.append(" ".join(words))
            room -= len(words)
    return tuple(kept) if MOST_WORDS - room >= FEWEST_WORDS else ()


def gains(tree: Tree, doubted: Sequence[Document]) -> dict[str, float]:
    """What the order of its words saves each sample (by its key), nats a token."""
    said = {document.drawn.key: document.said for document in doubted}
    texts = [text for key, replies in said.items() for reply in replies for text in (reply, shuffled(reply, key))]
    found = iter(score(tree, [[Said("agent", text, is_target=True)] for text in texts]))
    gained: dict[str, float] = {}
    for key, replies in said.items():
        saved, tokens = 0.0, 0
        for own, other in ((next(found), next(found)) for _ in replies):
            saved += other.loss * other.tokens - own.loss * own.tokens
            tokens += own.tokens
        gained[key] = saved / max(tokens, 1)
    return gained


def shuffled(reply: str, key: str) -> str:
    """The words in an order that hangs on the sample's key alone: a killed step judges as it did before."""
    words = reply.split()
    random.Random(f"{key} {reply}").shuffle(words)
    return " ".join(words)


@dataclass
class Gains:
    """What is normal in one lane, nats a token."""

    accepted: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    newest: deque[float | None] = field(default_factory=lambda: deque(maxlen=NEWEST))
    """Of its newest samples, doubted (then with their gains) or not."""


class WordOrder:
    """Knows each lane's gains, and tells samples that gain too little of what others of their lane do."""

    def __init__(self, share: float) -> None:
        """`share` of its lane's median is what a sample must gain; 0 judges nothing."""
        self.share = share
        self._lanes: dict[str, Gains] = {}

    def hear(self, measured: Iterable[tuple[str, float]]) -> None:
        """Take the (lane, gain) of doubted samples to know; what is told apart from the others does not count."""
        for lane, gain in measured:
            if not self.is_salad(lane, gain):
                self._lane(lane).accepted.append(gain)

    def is_salad(self, lane: str, gain: float) -> bool:
        """Whether a sample gains too little."""
        known = self._lane(lane).accepted
        return self.share > 0 and len(known) >= KNOWN and gain < self.share * median(known)

    def observe(self, lane: str, gain: float | None) -> None:
        """See a sample of the lane, None if it was not doubted. Where most of a lane is like that, that is normal."""
        here = self._lane(lane)
        here.newest.append(gain)
        odd = [one for one in here.newest if one is not None and self.is_salad(lane, one)]
        if len(odd) > NEWEST / 2:
            here.accepted = deque(odd, maxlen=HISTORY)

    def state(self) -> dict[str, list[list[Any]]]:
        """Everything that a checkpoint needs, as JSON."""
        return {lane: [list(one.accepted), list(one.newest)] for lane, one in self._lanes.items()}

    def load(self, state: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Continue from `state()`."""
        self._lanes = {
            lane: Gains(deque(accepted, maxlen=HISTORY), deque(newest, maxlen=NEWEST))
            for lane, (accepted, newest) in state.items()
        }

    def _lane(self, lane: str) -> Gains:
        return self._lanes.setdefault(lane, Gains())
