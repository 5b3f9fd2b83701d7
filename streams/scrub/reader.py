"""What the network reads: addresses.

The network costs as much as all rules together, so a turn is read only round pieces with numbers or words for street
that a first look (one number a neighbour) finds like an address.
"""

from __future__ import annotations

import numpy as np

from streams.scrub.network import LONGEST, REACH, network
from streams.scrub.network_features import TOKEN
from streams.scrub.remembered import Remembered
from streams.scrub.spans import Overflow, Span

HINT = 0.5
"""First look: nats above which a piece may stand in an address."""
SURE, LIKELY = 1.0, -0.5
"""Nats that one token of an address needs, and all of them."""
AROUND = 32
"""Pieces on both sides of what is read."""
MOST_SPOTS = 256
"""Numbers and words for street of fifty addresses."""
CACHE_PIECES = 20_000

_hints = Remembered[str, tuple[float, ...]](lambda piece: network().hints(piece), CACHE_PIECES)


def hinted(pieces: list[str], each: list[int], flags: int) -> list[int]:
    """The pieces with any of the gate's `flags` that may stand in an address, as the first look has it.

    Raises Overflow for more than any turn has: their number bounds our time.
    """
    least = HINT - network().hint_bias
    edge = [""] * REACH
    around = [*edge, *pieces, *edge]
    found = []
    for i, seen in enumerate(each):
        if seen & flags:
            a, b, c, d, e, f, g = around[i : i + 2 * REACH + 1]  # written out: a loop here costs more than a rule
            nats = _hints[a][0] + _hints[b][1] + _hints[c][2] + _hints[d][3]
            if nats + _hints[e][4] + _hints[f][5] + _hints[g][6] > least:
                found.append(i)
    if len(found) > MOST_SPOTS:
        raise Overflow
    return found


_NEITHER = -99.0
"""Nats of what is a name rather than a part of an address."""
_MEASURE = 2
"""Letters of "ml" and "x": a stretch needs a longer word."""


class Reading:
    """A stretch of a turn as the network sees it: nats for a name and for an address, by token."""

    def __init__(self, pieces: list[str], first: int, last: int) -> None:
        self._pieces = pieces
        self._first, self._last = first, last
        self._scores = network().scores(pieces[first:last])

    def addresses(self, text: str) -> list[Span]:
        """The stretches of tokens that are addresses: likely ones, one of them sure, a word among them, no measure."""
        if not len(self._scores) or np.maximum.reduce(self._scores[:, 1]) <= SURE:
            return []
        places = self._places()
        nats = [place if place > name else _NEITHER for name, place in self._scores.tolist()]
        runs = _runs(nats, LIKELY, SURE)
        return [
            span
            for first, last in runs
            if any((b - a > _MEASURE and not text[a].isdigit()) or text[a] == "\x01" for a, b in places[first:last])
            for span in _trimmed(text, places[first:last])
        ]

    def _places(self) -> list[tuple[int, int]]:
        """Where its tokens stand in the text."""
        at = sum(map(len, self._pieces[: self._first])) + self._first
        found: list[tuple[int, int]] = []
        for piece in self._pieces[self._first : self._last]:
            found += [(at + start, at + end) for start, end in _places[piece]]
            at += len(piece) + 1
        return found


def read(pieces: list[str], spots: list[int]) -> list[Reading]:
    """The stretches round the pieces at `spots` (in order)."""
    return [
        Reading(pieces, first, last)
        for first, last in _windows(spots, len(pieces))
        if sum(map(len, pieces[first:last])) <= LONGEST  # more is no turn of words
    ]


_places = Remembered[str, tuple[tuple[int, int], ...]](
    lambda piece: tuple(token.span() for token in TOKEN.finditer(piece)), CACHE_PIECES
)
"""Where the tokens stand in a piece."""


def _windows(spots: list[int], count: int) -> list[tuple[int, int]]:
    """Stretches of pieces round spots; they do not overlap."""
    if count <= AROUND:
        return [(0, count)]
    windows: list[tuple[int, int]] = []
    for spot in spots:
        first, last = max(0, spot - AROUND), min(count, spot + AROUND + 1)
        if windows and first <= windows[-1][1]:
            windows[-1] = (windows[-1][0], last)
        else:
            windows.append((first, last))
    return windows


def _runs(scores: list[float], all_above: float, one_above: float) -> list[tuple[int, int]]:
    """Where scores stand in a row above the first limit, one of them above the second."""
    found: list[tuple[int, int]] = []
    at = 0
    for first, score in enumerate(scores):
        if first < at or score <= all_above:
            continue
        at = first
        while at < len(scores) and scores[at] > all_above:
            at += 1
        if max(scores[first:at]) > one_above:
            found.append((first, at))
    return found


def _trimmed(text: str, places: list[tuple[int, int]]) -> list[Span]:
    """A stretch of tokens without the signs at its ends."""
    inner = [(a, b) for a, b in places if text[a].isalnum() or text[a] in "#\x01"]
    return [(inner[0][0], inner[-1][1], "ADDRESS")] if inner else []
