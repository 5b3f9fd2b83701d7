"""A small convolutional network that reads a turn at once: which tokens are names, which are parts of an address.

Two layers over rows of a table: what a token is (network_features.py) meets its neighbours within two tokens, and what
these make meets what stands within twelve, and the mean of the turn. What a token brings to its neighbours is worked
out once per token and kept in a bounded table, so a turn costs a few products of small matrices.
Weights: data/network.bin.gz, built by building/network.py.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from streams.scrub.network_features import EDGE, GLUED, TOKEN, features_of
from streams.scrub.remembered import Remembered

WIDTH = 32
NEAR = (-2, -1, 0, 1, 2)
FAR = (-4, -2, 0, 2, 4)
"""Where the neighbours stand that a token sees in each layer."""
SECOND = 16
"""Width of the second layer; the first is WIDTH."""
REACH = 3
"""Pieces on both sides of one with a digit that are looked at first."""
BEYOND = 4
"""Empty places on each side of a turn."""
USUAL = 160
"""Tokens of a reading that needs no arrays of its own."""
LONGEST = 6_000
"""Characters that are read at once at most."""
Array = np.ndarray[Any, Any]


def unpacked(raw: bytes) -> tuple[list[str], dict[str, Array]]:
    """Names of the rows, and the arrays, of a packed network: a line of JSON, then a byte a number."""
    line, _, body = gzip.decompress(raw).partition(b"\n")
    header = json.loads(line)
    arrays: dict[str, Array] = {}
    at = 0
    for key, said in header["arrays"].items():
        size = int(np.prod(said["shape"]))
        whole = np.frombuffer(body, np.int8, size, at).reshape(said["shape"])
        arrays[key] = whole * np.array(said["scale"], np.float32)
        at += size
    return header["features"], arrays


class Network:
    """The packaged weights, and the tokens that were seen."""

    def __init__(self, raw: bytes, most: int = 2 * LONGEST) -> None:
        features, arrays = unpacked(raw)
        self._index = {name: i for i, name in enumerate(features)}
        self._rows = arrays["rows"]
        self._near, self._near_bias = arrays["near"], arrays["near_bias"]
        far = arrays["far"].reshape(WIDTH, len(FAR), SECOND).transpose(1, 0, 2)
        direct = np.zeros((len(FAR), WIDTH, 2), np.float32)
        direct[FAR.index(0)] = arrays["out"][:WIDTH]
        self._far = np.concatenate([far, direct], axis=2).reshape(len(FAR) * WIDTH, SECOND + 2)
        """What the first layer gives to the second, and in two columns more to the scores themselves."""
        self._pool = np.concatenate([arrays["pool"], np.zeros((WIDTH, 2), np.float32)], axis=1)
        self._out, self._bias = arrays["out"][WIDTH:], np.concatenate([arrays["far_bias"], arrays["out_bias"]])
        self._brought = np.zeros((most, len(NEAR), WIDTH), np.float32)
        """By token and place, what a token brings to a neighbour there."""
        self._hint, self.hint_bias = arrays["hint"], float(arrays["hint_bias"][0])
        self._hinted = np.zeros((most, 2 * REACH + 1), np.float32)
        self._count = 1
        self._rooms: list[_Room] = []
        self._places = Remembered[str, int](self._place, most)
        self._pieces = Remembered[str, tuple[int, ...]](self._piece, most)

    def _place(self, surface: str) -> int:
        rows = [self._index[name] for name in features_of(surface) if name in self._index]
        at = self._count
        self._count += 1
        row = np.add.reduce(self._rows[rows])
        self._brought[at] = (row @ self._near).reshape(len(NEAR), WIDTH)
        self._brought[at, NEAR.index(0)] += self._near_bias
        self._hinted[at] = row @ self._hint
        return at

    def _piece(self, piece: str) -> tuple[int, ...]:
        places = []
        for match in TOKEN.finditer(piece):
            start, token = match.start(), match[0]
            glued = start > 0 and not piece[start - 1].isspace() and token[0] != "\n"
            places.append(self._places[GLUED * glued + _reduced(token)])
        return tuple(places)

    def remembered(self) -> int:
        """How many tokens its table holds."""
        return self._count

    def hints(self, piece: str) -> tuple[float, ...]:
        """What a piece says, place by place, of a piece with a digit near it being part of an address."""
        if len(piece) > LONGEST:
            return (0.0,) * (2 * REACH + 1)
        self._make_room(len(piece))
        return tuple(np.add.reduce(self._hinted[list(self._pieces[piece])]).tolist())

    def scores(self, pieces: list[str]) -> Array:
        """What speaks for a name and for an address, of each token; (tokens, 2); of at most `LONGEST` characters."""
        self._make_room(sum(map(len, pieces)))
        edge = self._places[EDGE]
        places = [0, 0, edge, *chain.from_iterable(map(self._pieces.__getitem__, pieces)), edge, 0, 0]
        count = len(places) + 1 - len(NEAR)
        room = self._rooms.pop() if self._rooms and count <= USUAL else _Room(max(count, USUAL))
        scores = self._forward(room.views(count), places)
        if room.count == USUAL:
            self._rooms.append(room)
        return scores

    def _make_room(self, most: int) -> None:
        """Forget every token if the table cannot take `most` more; a reader's indices hold until the next call."""
        if self._count + most + 1 > len(self._brought):
            self._pieces.clear()
            self._places.clear()
            self._count = 1

    def _forward(self, views: _Views, places: list[int]) -> Array:
        self._brought.take(places, axis=0, out=views.brought, mode="clip")
        np.add.reduce(views.diagonal, axis=1, out=views.first)
        np.maximum(views.first, _ZERO, out=views.first)
        views.behind.fill(0)
        np.copyto(views.apart, views.around)
        views.flat.dot(self._far, views.blocks)
        np.add(views.blocks, views.mean.dot(views.first).dot(self._pool) + self._bias, out=views.blocks)
        np.maximum(views.second, _ZERO, out=views.second)
        views.second.dot(self._out, views.scores)
        np.add(views.scores, views.direct, out=views.scores)
        return views.scores[1:-1].copy()


_ZERO = np.zeros((), np.float32)


class _Views(NamedTuple):
    """The parts of a room's arrays that a reading of so many tokens uses."""

    brought: Array
    diagonal: Array
    """(tokens, places, width): what the neighbours of each token bring to it."""
    first: Array
    behind: Array
    """The empty places behind the turn."""
    around: Array
    """(tokens, places, width): the first layer where the second sees it."""
    apart: Array
    flat: Array
    """Copies of those, (tokens, places, width) and (tokens, places x width)."""
    mean: Array
    """(tokens): one part in so many of each."""
    blocks: Array
    second: Array
    direct: Array
    scores: Array


class _Room:
    """Arrays for the steps of one reading, used again and again: fresh memory costs more than the sums."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._brought = np.zeros((count + len(NEAR) - 1, len(NEAR), WIDTH), np.float32)
        self._padded = np.zeros((count + 2 * BEYOND, WIDTH), np.float32)
        self._around = np.zeros((count, len(FAR) * WIDTH), np.float32)
        self._blocks = np.zeros((count, SECOND + 2), np.float32)
        self._scores = np.zeros((count, 2), np.float32)
        self._views: dict[int, _Views] = {}

    def views(self, count: int) -> _Views:
        """Its arrays cut for so many tokens; cutting costs as much as a sum, so it is done once for each number."""
        if count not in self._views:
            self._views[count] = self._cut(count)
        return self._views[count]

    def _cut(self, count: int) -> _Views:
        brought = self._brought[: count + len(NEAR) - 1]
        token, place, number = brought.strides
        diagonal = np.ndarray((count, len(NEAR), WIDTH), np.float32, brought, 0, (token, token + place, number))
        token, number = self._padded.strides
        around = np.ndarray((count, len(FAR), WIDTH), np.float32, self._padded, 0, (token, _STEP * token, number))
        flat, blocks = self._around[:count], self._blocks[:count]
        return _Views(
            brought, diagonal, self._padded[BEYOND : BEYOND + count],
            self._padded[BEYOND + count : count + 2 * BEYOND], around, flat.reshape(around.shape), flat,
            np.full(count, 1 / count, np.float32), blocks, blocks[:, :SECOND], blocks[:, SECOND:], self._scores[:count],
        )  # fmt: skip


_STEP = FAR[1] - FAR[0]


def _reduced(token: str) -> str:
    """A long number with its inner digits forgotten: it looks the same to the network."""
    if not token[0].isdigit() or len(token) < _LONG:
        return token
    return f"{token[0]}{_INNER * (len(token) - 4)}{token[-3:]}"


_LONG = 6
_INNER = "5"


@cache
def network() -> Network:
    """The packaged network, read once."""
    return Network(files("streams.scrub").joinpath("data/network.bin.gz").read_bytes())
