"""A text as numbers: hashed character and word n-grams and some robust counts; the same at training and at run time.

`Vocabulary` holds what is counted against: bit sets of hashed words, word pairs and abusive words, tables of character
trigrams and of word order. They are hashes and classes, so the package data holds nobody's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.quality.words import CLASSES, GROUPS, word

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.uint32]

HASH_BITS: Final = 17
"""Width of the table of n-gram weights; 2^17 rows of 5 int8 are 0.6 MB."""
SET_BITS: Final = 20
"""Width of the bit sets of words and word pairs."""
TRIGRAM_BITS: Final = 16
MAX_BYTES: Final = 1200
"""A text is judged by so many of its first bytes: what decides stands early, and time per text stays bounded."""
COUNTS: Final = 33 + 2 * len(GROUPS)
"""How many robust counts `Features` holds."""

_FOLD = bytes.maketrans(b"0123456789" + bytes(range(32)), b"0" * 10 + b" " * 32)
_WORD = re.compile(rb"[a-z\x80-\xff][a-z'\x80-\xff]*|0+")
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")
_LINK = re.compile(
    rb"https?:|www\.|\b[a-z0-]+\.(?:com|net|org|info|biz|co|ru|ly|io|tk|xyz|top|me|shop|club|link|click)\b"
)
_MONEY = re.compile("[$£€₹]\\s?\\d|\\d\\s?(?:[$£€₹]|p/m|usd\\b|eur\\b|gbp\\b|pounds?\\b|p\\b)", re.IGNORECASE)
_MIX: Final = np.uint32(2654435761)
_STEP: Final = np.uint32(16777619)
_BITS: Final = (1 << np.arange(len(GROUPS), dtype=np.int64)).astype(np.int64)


@dataclass(frozen=True)
class Vocabulary:
    """`words`, `pairs`, `abuse`: (2^20 / 8,) uint8 bit sets; `trigrams`: (2^16,) float32 log-probabilities of a
    character after two; `order`, `skip`: (256, 256) float32 log-odds of a word class after one, after the one before."""

    words: npt.NDArray[np.uint8]
    pairs: npt.NDArray[np.uint8]
    abuse: npt.NDArray[np.uint8]
    trigrams: Floats
    order: Floats
    skip: Floats


@dataclass(frozen=True)
class Words:
    """The words of a text: `hashes` (n,), `classes` (n + 2,) with 0 at both ends, `groups` (n,) bit sets."""

    hashes: Ints
    classes: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """`rows`: indices of n-grams, repeats included; `counts`: (COUNTS,) float32, each within about -3 to 3."""

    rows: Ints
    counts: Floats


def fold(text: str) -> bytes:
    """Lower-case bytes with digits as 0 and placeholders as one number, cut at `MAX_BYTES`."""
    if "<" in text:
        text = _PLACEHOLDER.sub("00", text)
    return text[:MAX_BYTES].lower().encode(errors="replace").translate(_FOLD)[:MAX_BYTES]


def read_words(folded: bytes) -> Words:
    """The words of a folded text; a run of digits is one word."""
    found = [word(w) for w in _WORD.findall(folded)]
    columns = np.array([(0, 0, 0), *found, (0, 0, 0)], dtype=np.int64).T
    return Words(columns[0, 1:-1].astype(np.uint32), columns[1], columns[2, 1:-1])


def pair_hashes(words: Ints) -> Ints:
    """(n - 1,) uint32, one for each word and its successor."""
    return (words[:-1] * _STEP) ^ (words[1:] * _MIX)


def trigram_rows(codes: Ints) -> Ints:
    """(n - 2,) indices into the trigram table."""
    packed = (codes[:-2] << np.uint32(16)) ^ (codes[1:-1] << np.uint32(8)) ^ codes[2:]
    return (packed * _MIX) >> np.uint32(32 - TRIGRAM_BITS)


def members(bits: npt.NDArray[np.uint8], hashes: Ints) -> int:
    """How many of the hashes are in the bit set."""
    at = hashes & np.uint32((1 << SET_BITS) - 1)
    return int(((bits[at >> np.uint32(3)] >> (at & np.uint32(7)).astype(np.uint8)) & np.uint8(1)).sum())


def extract(text: str, vocabulary: Vocabulary) -> Features:
    """The features of one text."""
    folded = fold(text)
    codes = np.frombuffer(b" " + folded + b" ", dtype=np.uint8).astype(np.uint32)
    words = read_words(folded)
    pairs = pair_hashes(words.hashes)
    grams = [words.hashes ^ np.uint32(0x5BD1E995), pairs]
    rolling = codes
    for n in range(2, 6):
        rolling = rolling[:-1] * _STEP + codes[n - 1 :]
        if not len(rolling):
            break
        if n > 2:  # noqa: PLR2004 - pairs of letters say little
            grams.append(rolling)
    rows = (np.concatenate(grams) * _MIX) >> np.uint32(32 - HASH_BITS)
    counts = [
        *_shape(text, folded, codes),
        *_fluency(codes, words, pairs, vocabulary),
        *_groups(words),
    ]
    return Features(rows, np.array(counts, dtype=np.float32))


def _shape(text: str, folded: bytes, codes: Ints) -> list[float]:
    """Length, casing, symbols, digits, links, money: what a text looks like."""
    length = max(1, len(folded))
    kinds: list[int] = np.bincount(_KIND[codes], minlength=6).tolist()
    letters = max(1, kinds[1] + kinds[5])
    head = text[:200]
    upper = sum(map(str.isupper, head)) / min(letters, 200)
    links = len(_LINK.findall(folded)) if b"." in folded or b":" in folded else 0
    long_number = b"00000" in folded
    money = bool(kinds[2] and _MONEY.search(text))
    digits, symbols = kinds[2] / length, kinds[3] / length
    return [
        min(3.0, float(np.log1p(length)) - 3.5), float(length < 16), float(length > 300),
        min(1.0, upper * 2), float(upper > 0.6 and letters > 12), float(head[:1].isupper()),
        min(1.0, digits * 4), float(digits > 0.33), min(1.0, symbols * 5), float(symbols > 0.25),
        min(2, links), float(long_number), float(money), float(links > 0 and (money or long_number)),
        1 - kinds[5] / length, len(set(folded)) / min(length, 30),
        min(1.0, folded.count(b"!") / 3), float(b"?" in folded), float(folded[-1:] in {b".", b"?", b"!"}),
    ]  # fmt: skip


def _fluency(codes: Ints, words: Words, pairs: Ints, vocabulary: Vocabulary) -> list[float]:
    """Whether letters make words, words are known, and follow each other as people put them."""
    n = max(1, len(words.hashes))
    known = members(vocabulary.words, words.hashes) / n if len(words.hashes) else 0.5
    paired = members(vocabulary.pairs, pairs) / len(pairs) if n > 3 else 0.6  # noqa: PLR2004 - two pairs say nothing
    letters = float(vocabulary.trigrams[trigram_rows(codes)].mean()) if len(codes) > 2 else 0.0  # noqa: PLR2004 - a trigram
    order = skip = 0.0
    if n > 3:  # noqa: PLR2004 - as above
        order = float(vocabulary.order[words.classes[:-1], words.classes[1:]].mean())
        skip = float(vocabulary.skip[words.classes[:-2], words.classes[2:]].mean())
    abusive = members(vocabulary.abuse, words.hashes)
    return [
        known, max(0.0, 0.5 - known) * 4, max(0.0, known - 0.85) * 6,
        paired, max(0.0, 0.4 - paired) * 4, letters, max(0.0, -0.3 - letters) * 2, max(0.0, -1.0 - letters) * 2,
        order, max(0.0, -0.1 - order) * 3, skip, min(2, abusive), min(1.0, abusive / n * 5), float(n < 4),
    ]  # fmt: skip


def _groups(words: Words) -> list[float]:
    """Of each group: whether it occurs, and its share of the words."""
    held = (words.groups[:, None] & _BITS) > 0
    counted = held.sum(axis=0)
    return [*np.minimum(counted, 3) / 2, *np.minimum(1.0, counted / max(1, len(words.hashes)) * 4)]


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
