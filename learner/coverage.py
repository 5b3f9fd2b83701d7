"""Which samples stand for the most uncertainty: greedy facility location over word vectors.

gain(i) = sum over j of weight_j * max(0, similarity(i, j) - covered_j); the best is taken and covers its neighbours.
Choosing the single most uncertain samples loses to random choice (outliers, near copies); covering them does not
(tests/bench/active.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streams import near_copies

WIDTH = 4096
"""Hashed words of a vector; 2,000 vectors are 32 MB."""
SAME_TOPIC = 0.15
"""What two samples of one topic have in common at least."""
SAME_TOPIC_ONLY = 0.5
"""As `SAME_TOPIC`, where the words of one are not known."""

Floats = npt.NDArray[np.float32]


def cover(
    signatures: Sequence[bytes], topics: Sequence[str], weights: Sequence[float], known: Sequence[bytes]
) -> Iterator[int]:
    """Positions in the order in which they cover most of what is left; `known` signatures are covered already."""
    idf = _rarity([*signatures, *known])
    own = _vectors(signatures, idf)
    names = np.array(topics)
    wordless: npt.NDArray[np.bool_] = np.logical_not(own.any(axis=1))
    topical = np.where(wordless[:, None] | wordless[None, :], SAME_TOPIC_ONLY, SAME_TOPIC)
    similar = np.maximum(own @ own.T, topical * (names[:, None] == names[None, :])).astype(np.float32)
    np.fill_diagonal(similar, 1.0)
    seen = _vectors(known, idf)
    covered = (own @ seen.T).max(axis=1) if len(known) else np.zeros(len(own), dtype=np.float32)
    weight = np.array(weights, dtype=np.float32)
    left = np.ones(len(own), dtype=bool)
    while left.any():
        gain = np.where(left, np.maximum(similar - covered[None, :], 0) @ weight, -1.0)
        best = int(gain.argmax())
        yield best
        left[best] = False
        covered = np.maximum(covered, similar[best])


def _rarity(signatures: Sequence[bytes]) -> Floats:
    """(4096,) log of how few of the samples hold a word."""
    held = np.zeros(WIDTH, dtype=np.float32)
    for signature in signatures:
        held[sorted(_words(signature))] += 1
    return np.log((1 + len(signatures)) / (1 + held)).astype(np.float32)


def _vectors(signatures: Sequence[bytes], idf: Floats) -> Floats:
    """(n, 4096) rows of length 1; a sample without words is like no other."""
    rows = np.zeros((len(signatures), WIDTH), dtype=np.float32)
    for row, signature in zip(rows, signatures, strict=True):
        words = sorted(_words(signature))
        row[words] = idf[words]
    norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    unit: Floats = rows / norms
    return unit


def _words(signature: bytes) -> set[int]:
    if not signature:
        return set()
    unit = near_copies.read(signature)
    tokens = [*unit.question.words, *unit.reply.words]
    return {token % WIDTH for token in tokens} | {(a * 31 + b) % WIDTH for a, b in pairwise(tokens)}
