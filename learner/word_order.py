"""Words that could as well stand in any other order: no more of their neighbours are known than by chance.

A pair of words is known if another one of the newest samples says it. Chance is exact without a shuffle: the share of
known pairs among all ordered pairs of a reply's words. Its surplus parts salad from chats from the first batch on,
since chats of one batch vouch for each other, and costs no forward pass. What is kept of a pair is a hash.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple
from zlib import crc32

KEPT = 256
"""Newest samples, of whatever lane, whose pairs of words are known."""

HISTORY = 64
"""Newest samples of a lane that its median looks back on, whether they were accepted or not."""

KNOWN = 8
"""Samples before a lane has a median: those of a first batch, which a fifth of noise does not move."""

FEWEST_WORDS = 12
"""What a sample says in fewer words has too few orders to be told apart."""

MOST_WORDS = 100
"""Words of a sample that are looked at: enough to tell, and a bound on the pairs."""

SHORT = 3
"""A reply of fewer words has hardly another order."""

EVIDENT = 2.0
"""Standard deviations by which a sample of this length would stand out if it were like its lane; below that it is not
judged: in short or very different messages hardly any pair is known."""


class Surplus(NamedTuple):
    """How ordered a sample's words are."""

    value: float
    """Known pairs of neighbours above chance, standard deviations per root of the pairs: the same for any length."""
    pairs: int


def spoken(replies: Iterable[str]) -> tuple[str, ...]:
    """The words of a sample's replies whose order is looked at; none if they are too few."""
    kept, room = list[str](), MOST_WORDS
    for reply in replies:
        words = reply.lower().split()[:room]
        if len(words) >= SHORT:
            kept.append(" ".join(words))
            room -= len(words)
    return tuple(kept) if MOST_WORDS - room >= FEWEST_WORDS else ()


class WordOrder:
    """Knows the newest samples' pairs and each lane's surplus, and tells samples that have too little of it."""

    def __init__(self, share: float) -> None:
        """`share` of its lane's median is what a sample must have; 0 judges nothing."""
        self._share = share
        self._newest: deque[tuple[str, frozenset[int]]] = deque()
        self._known = Counter[int]()
        self._lanes: dict[str, deque[float]] = {}
        self._medians: dict[str, float] = {}
        self.found: dict[str, Surplus] = {}
        """Of the samples of this step, by their key."""

    def look(self, examples: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        """Take a step's fresh samples to know, (lane, `spoken` replies) by key, before they are judged."""
        self.found.clear()
        if not self._share:
            return
        words = {key: [_hashes(reply) for reply in replies] for key, (_, replies) in examples.items() if replies}
        self._learn({key: _pairs(replies) for key, replies in words.items()})
        for key, replies in words.items():
            found = self.found[key] = self._surplus(replies)
            self._lanes.setdefault(examples[key][0], deque(maxlen=HISTORY)).append(found.value)
        self._settle()

    def is_salad(self, lane: str, found: Surplus) -> bool:
        """Whether a sample's words might as well stand in another order."""
        usual = self._medians.get(lane, 0.0) if self._share else 0.0
        return found.value < self._share * usual and usual * math.sqrt(found.pairs) >= EVIDENT

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the pairs of erased samples."""
        gone = set(keys)
        self._put([(key, pairs) for key, pairs in self._newest if key not in gone])

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        newest = [[key, sorted(pairs)] for key, pairs in self._newest]
        return {"newest": newest, "lanes": {lane: list(known) for lane, known in self._lanes.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._put([(key, frozenset(pairs)) for key, pairs in state.get("newest", ())])
        self._lanes = {lane: deque(known, maxlen=HISTORY) for lane, known in state.get("lanes", {}).items()}
        self._settle()

    def _learn(self, said: Mapping[str, frozenset[int]]) -> None:
        here = {key for key, _ in self._newest}  # a sample that comes again must not vouch for itself
        for key, pairs in said.items():
            if key not in here:
                self._newest.append((key, pairs))
                self._known.update(pairs)
        while len(self._newest) > KEPT:
            self._known.subtract(self._newest.popleft()[1])
        self._known = +self._known

    def _surplus(self, replies: Sequence[Sequence[int]]) -> Surplus:
        own, pairs, above, variance = _pairs(replies), 0, 0.0, 1.0
        for words in replies:
            size = len(words)
            orders = [[self._known[_pair(a, b)] - (_pair(a, b) in own) > 0 for b in words] for a in words]
            chance = (sum(map(sum, orders)) - sum(orders[at][at] for at in range(size))) / (size * (size - 1))
            pairs += size - 1
            above += sum(orders[at][at + 1] for at in range(size - 1)) - chance * (size - 1)
            variance += chance * (1 - chance) * (size - 1)
        return Surplus(above / math.sqrt(variance * pairs), pairs)

    def _settle(self) -> None:
        self._medians = {lane: median(known) for lane, known in self._lanes.items() if len(known) >= KNOWN}

    def _put(self, newest: Iterable[tuple[str, frozenset[int]]]) -> None:
        self._newest, self._known = deque(newest), Counter()
        for _, pairs in self._newest:
            self._known.update(pairs)


def _hashes(reply: str) -> list[int]:
    return [crc32(word.encode(errors="surrogatepass")) for word in reply.split()]


def _pair(first: int, second: int) -> int:
    return (31 * first + second) & 0xFFFF_FFFF


def _pairs(replies: Iterable[Sequence[int]]) -> frozenset[int]:
    return frozenset(_pair(a, b) for words in replies for a, b in pairwise(words))
