"""How abusive words look by their letters: weights of the n-grams inside each word, worked out once a word.

The n-grams of features.py run across words and learn from whole messages. These stop at a word's borders (blanks
included), so that a spelling nobody has seen is still like the word it hides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from streams.quality.features import Floats, Numbers, sums
from streams.quality.words import FUNCTION

BITS: Final = 17
"""Width of the table of weights."""
SHORTEST, LONGEST = 2, 4
"""Letters of an n-gram, a word's border counted as one."""
FAINT: Final = 1.0
"""Smaller weights say nothing and would only share rows with those that do."""
_KEPT: Final = 1 << 16
_COUNT_BITS: Final = 12
"""A word has less n-grams than 2^12: texts are cut at 1,200 bytes."""
_BORDER: Final = b" "


class Letters(dict[bytes, int]):
    """Folded word -> sum of its weights above its number of n-grams; emptied when it has grown.

    `table` (2^17,) int8 with one `scale`.
    """

    def __init__(self, table: npt.NDArray[np.int8], scale: float) -> None:
        super().__init__()
        self.table = table
        self.scale = scale

    def __missing__(self, word: bytes) -> int:
        """The code of a word that was not seen lately; 0 of a function word, a number, a separator."""
        if len(self) >= _KEPT:
            self.clear()
        bare = word.replace(b"'", b"")
        grams = ngrams(bare) if bare.isalpha() and word not in FUNCTION else []
        code = self[word] = int(self.table[[row(gram) for gram in grams]].sum()) << _COUNT_BITS | len(grams)
        return code

    def abuse(self, words: Sequence[bytes], starts: Numbers) -> Floats:
        """(n,) the summed weight of each text's n-grams over the root of their number; texts begin at `starts`."""
        codes = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        counted = sums(codes & ((1 << _COUNT_BITS) - 1), starts)
        weighed = sums(codes >> _COUNT_BITS, starts) * self.scale
        found: Floats = (weighed / np.sqrt(np.maximum(1, counted))).astype(np.float32)
        return found


def ngrams(word: bytes) -> list[bytes]:
    """The n-grams of a word between its borders."""
    whole = _BORDER + word + _BORDER
    sizes = range(SHORTEST, min(LONGEST, len(whole)) + 1)
    return [whole[at : at + size] for size in sizes for at in range(len(whole) - size + 1)]


def row(gram: bytes) -> int:
    """Where the weight of an n-gram stands in the table."""
    return crc32(gram) >> (32 - BITS)


def letters(weights: Mapping[str, float]) -> Letters:
    """A table of these n-grams' weights; where two share a row, the stronger one stays."""
    held = np.zeros(1 << BITS, dtype=np.float32)
    for gram, weight in weights.items():
        at = row(gram.encode())
        if abs(weight) >= max(FAINT, abs(held[at])):
            held[at] = weight
    scale = float(max(np.abs(held).max(), 1e-6)) / 127
    return Letters(np.round(held / scale).astype(np.int8), scale)
