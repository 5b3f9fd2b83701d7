"""A text as numbers: hashed character and word n-grams and some robust counts; the same at training and at run time.

`Vocabulary` holds what is counted against: bit sets of hashed words, word pairs and abusive words, and a table of
character trigrams. They are hashes, so the package data holds nobody's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.uint32]

HASH_BITS: Final = 17
"""Width of the table of n-gram weights; 2^17 rows of 4 int8 are 0.5 MB."""
SET_BITS: Final = 20
"""Width of the bit sets of words and word pairs."""
TRIGRAM_BITS: Final = 16
MAX_BYTES: Final = 1200
"""A text is judged by so many of its first bytes: what decides stands early, and time per text stays bounded."""
COUNTS: Final = 27
"""How many robust counts `Features` holds."""

_FOLD = bytes(ord("0") if 48 <= b <= 57 else b + 32 if 65 <= b <= 90 else 32 if b < 32 else b for b in range(256))
_WORD = re.compile(rb"[a-z\x80-\xff][a-z'\x80-\xff]*|0+")
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")
_LINK = re.compile(
    rb"https?:|www\.|\b[a-z0-]+\.(?:com|net|org|info|biz|co|ru|ly|io|tk|xyz|top|me|shop|club|link|click)\b"
)
_MONEY = re.compile("[$£€₹]\\s?\\d|\\d\\s?(?:[$£€₹]|p/m|usd\\b|eur\\b|gbp\\b|pounds?\\b|p\\b)", re.IGNORECASE)
_MIX: Final = np.uint32(2654435761)
_STEP: Final = np.uint32(16777619)


@dataclass(frozen=True)
class Vocabulary:
    """`words`, `pairs`, `abuse`: (2^20 / 8,) uint8 bit sets; `trigrams`: (2^16,) float32 log-probabilities."""

    words: npt.NDArray[np.uint8]
    pairs: npt.NDArray[np.uint8]
    abuse: npt.NDArray[np.uint8]
    trigrams: Floats


@dataclass(frozen=True)
class Features:
    """`rows`: indices of n-grams, repeats included; `counts`: (27,) float32, each within about -3 to 3."""

    rows: Ints
    counts: Floats


def fold(text: str) -> bytes:
    """Lower-case bytes with digits as 0 and placeholders as one letterless word, cut at `MAX_BYTES`."""
    if "<" in text:
        text = _PLACEHOLDER.sub("00", text)
    return text[:MAX_BYTES].lower().encode(errors="replace").translate(_FOLD)[:MAX_BYTES]


@lru_cache(maxsize=1 << 15)
def _word_hash(word: bytes) -> int:
    return crc32(word)


def word_hashes(folded: bytes) -> Ints:
    """(n,) uint32, one a word; runs of digits are one word each."""
    return np.array([_word_hash(w) for w in _WORD.findall(folded)], dtype=np.uint32)


def pair_hashes(words: Ints) -> Ints:
    """(n - 1,) uint32, one for each word and its successor."""
    return (words[:-1] * _STEP) ^ (words[1:] * _MIX)


def trigram_rows(codes: Ints) -> Ints:
    """(n - 2,) indices into the trigram table."""
    return ((((codes[:-2] << 16) ^ (codes[1:-1] << 8) ^ codes[2:]) * _MIX) >> np.uint32(32 - TRIGRAM_BITS)).astype(
        np.uint32
    )


def members(bits: npt.NDArray[np.uint8], hashes: Ints) -> npt.NDArray[np.uint8]:
    """(n,) 1 where the hash is in the bit set."""
    at = hashes & np.uint32((1 << SET_BITS) - 1)
    return (bits[at >> np.uint32(3)] >> (at & np.uint32(7)).astype(np.uint8)) & np.uint8(1)


def extract(text: str, vocabulary: Vocabulary) -> Features:
    """The features of one text."""
    folded = fold(text)
    codes = np.frombuffer(b" " + folded + b" ", dtype=np.uint8).astype(np.uint32)
    words = word_hashes(folded)
    pairs = pair_hashes(words)
    grams = [words ^ np.uint32(0x5BD1E995), pairs]
    rolling = codes
    for n in range(2, 6):
        rolling = rolling[:-1] * _STEP + codes[n - 1 :]
        if n > 2:  # noqa: PLR2004 - pairs of letters say little
            grams.append(rolling)
        if not len(rolling):
            break
    rows = (np.concatenate(grams) * _MIX) >> np.uint32(32 - HASH_BITS)
    return Features(rows, _counts(text, folded, codes, words, pairs, vocabulary))


def _counts(text: str, folded: bytes, codes: Ints, words: Ints, pairs: Ints, vocabulary: Vocabulary) -> Floats:
    """Shares and counts that hold on sources that nobody has seen."""
    length = max(1, len(folded))
    n_words = max(1, len(words))
    kinds = np.bincount(_KIND[codes], minlength=6)
    letters = max(1, int(kinds[1] + kinds[5]))
    known = float(members(vocabulary.words, words).sum()) / n_words if len(words) else 0.0
    paired = float(members(vocabulary.pairs, pairs).sum()) / len(pairs) if len(pairs) else 0.5
    trigrams = trigram_rows(codes)
    fluent = vocabulary.trigrams[trigrams]
    abusive = int(members(vocabulary.abuse, words).sum())
    uppercase = sum(map(str.isupper, text[:200])) / min(letters, 200)
    links = len(_LINK.findall(folded)) if b"." in folded or b":" in folded else 0
    digits = int(kinds[2])
    long_number = b"00000" in folded
    money = 1.0 if digits and _MONEY.search(text) else 0.0
    mean = float(fluent.mean()) if len(fluent) else 0.0
    distinct = len(set(folded)) / min(length, 30)
    ascii_share = 1 - float(kinds[5]) / length
    return np.array(
        [
            known, max(0.0, 0.5 - known) * 4, max(0.0, known - 0.85) * 6,
            paired if n_words > 4 else 0.5, max(0.0, 0.4 - paired) * 4 if n_words > 4 else 0.0,
            mean, max(0.0, -0.5 - mean) * 2, max(0.0, -1.5 - mean) * 2,
            min(3.0, np.log1p(length) - 3.5), min(2.0, max(0.0, np.log1p(n_words) - 3)), 1.0 if n_words < 4 else 0.0,
            min(1.0, uppercase * 2), 1.0 if uppercase > 0.6 and letters > 12 else 0.0,
            min(1.0, digits / length * 4), 1.0 if digits * 3 > length else 0.0,
            min(1.0, float(kinds[3]) / length * 5), 1.0 if kinds[3] * 4 > length else 0.0,
            min(2, links), 1.0 if long_number else 0.0, money, 1.0 if links and (money or long_number) else 0.0,
            min(2, abusive), min(1.0, abusive / n_words * 5), ascii_share, distinct,
            1.0 if length / n_words > 14 else 0.0, min(1.0, folded.count(b"!") / 3),
        ],
        dtype=np.float32,
    )  # fmt: skip


def _kinds() -> npt.NDArray[np.int64]:
    """(256,) 0 space, 1 letter, 2 digit, 3 technical symbol, 4 punctuation of prose, 5 not ASCII."""
    kind = np.full(256, 3, dtype=np.int64)
    kind[128:] = 5
    kind[ord("a") : ord("z") + 1] = 1
    kind[ord("0")] = 2
    kind[[ord(c) for c in ".,;!?'\"-()"]] = 4
    kind[ord(" ")] = 0
    return kind


_KIND = _kinds()
