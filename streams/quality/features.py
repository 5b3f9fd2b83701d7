"""Texts as numbers: hashed character and word n-grams and robust counts; the same at training and at run time.

Texts are taken in batches: they are joined with a separator, and every array runs over all of them, so that the cost of
a call is shared. `Vocabulary` holds what is counted against: bit sets of hashed words, word pairs and abusive words,
tables of character trigrams and of word order. They are hashes and classes; the package data holds nobody's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.quality.words import CLASS_SHIFT, GROUP_SHIFT, GROUPS, SEPARATOR, WordCodes

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]

HASH_BITS: Final = 17
"""Width of the table of n-gram weights; 2^17 rows of 5 int8 are 0.6 MB. Row 2^17 stands for no n-gram."""
SET_BITS: Final = 20
"""Width of the bit sets of words and word pairs."""
TRIGRAM_BITS: Final = 16
MAX_BYTES: Final = 1200
"""A text is judged by so many of its first bytes: what decides stands early, and time per text stays bounded."""
SHAPES: Final = 19
FLUENCIES: Final = 14
COUNTS: Final = SHAPES + FLUENCIES + 2 * len(GROUPS)
"""How many robust counts a text has."""

_FOLD = bytes.maketrans(b"0123456789" + bytes(range(32)), b"0" * 10 + b" " * 32)
_WORD = re.compile(rb"[a-z\x80-\xff][a-z'\x80-\xff]*|0+|\x00")
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")
_DOMAIN = rb"\.(?:com|net|org|info|biz|co|ru|ly|io|tk|xyz|top|me|shop|club|link|click)\b"
_ENDING = re.compile(_DOMAIN)
_LINK = re.compile(rb"https?:|www\.|(?<=[a-z0-])" + _DOMAIN)
_CAPITALS: Final = bytes(range(ord("A"), ord("Z") + 1))
_MONEY = re.compile("[$£€₹]\\s?\\d|\\d\\s?(?:[$£€₹]|p/m|usd\\b|eur\\b|gbp\\b|pounds?\\b|p\\b)", re.IGNORECASE)
_MIX: Final = np.uint32(2654435761)
_STEP: Final = np.uint32(16777619)
SHORTEST, LONGEST = 3, 5
"""Characters of an n-gram; pairs of letters say little."""
_GROUP_BITS: Final = 1 << np.arange(len(GROUPS), dtype=np.int64)
_CODES: Final = WordCodes()

UPPER, FEW_LETTERS, LONG_TEXT, SHORT_TEXT, FEW_WORDS = 0.6, 12, 300, 16, 4
"""Where counts bend: share of capitals that is shouting and letters it takes, bytes of a long and a short text, words
without order."""


@dataclass(frozen=True)
class Vocabulary:
    """What texts are counted against.

    `words`, `pairs`, `abuse`: (2^20 / 8,) uint8 bit sets; `trigrams`: (2^16,) float32 log-probabilities of a character
    after two; `order`, `skip`: (256, 256) float32 log-odds of a word class after one, after the one before.
    """

    words: npt.NDArray[np.uint8]
    pairs: npt.NDArray[np.uint8]
    abuse: npt.NDArray[np.uint8]
    trigrams: Floats
    order: Floats
    skip: Floats


@dataclass(frozen=True)
class Features:
    """Of n texts: `rows` of their n-grams (2^17 = none) with `starts` (n,), how many they are, counts (n, COUNTS).

    `words` are those of all texts, with where each text's begin (n,).
    """

    rows: Ints
    starts: Numbers
    sizes: Numbers
    counts: Floats
    words: Sequence[bytes]
    word_starts: Numbers


@dataclass(frozen=True)
class Joined:
    """Texts as one: `codes` of bytes (0 between texts), `at` the separators, one more than texts."""

    folded: Sequence[bytes]
    codes: Ints
    at: Numbers


@dataclass(frozen=True)
class Words:
    """All words of the texts, separators included: `at` (n + 1,) the separators, `counted` (n,) words of each."""

    found: Sequence[bytes]
    hashes: Ints
    classes: Numbers
    groups: Numbers
    at: Numbers
    counted: Numbers


def fold(text: str) -> bytes:
    """Lower-case bytes with digits as 0 and placeholders as one number, cut at `MAX_BYTES`."""
    if "<" in text:
        text = _PLACEHOLDER.sub("00", text)
    return text[:MAX_BYTES].lower().encode(errors="replace").translate(_FOLD)[:MAX_BYTES]


def join(folded: Sequence[bytes]) -> Joined:
    """Folded texts with a blank and a separator around each."""
    raw = b"\x00 " + b" \x00 ".join(folded) + b" \x00"
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.uint32)
    return Joined(folded, codes, np.flatnonzero(codes == 0))


def read_words(folded: Sequence[bytes]) -> Words:
    """The words of folded texts; a run of digits is one word."""
    found = _WORD.findall(SEPARATOR + SEPARATOR.join(folded) + SEPARATOR)
    codes = np.fromiter(map(_CODES.__getitem__, found), np.int64, len(found))
    classes = (codes >> CLASS_SHIFT) & 255
    at = np.flatnonzero(classes == 0)
    hashes = (codes & 0xFFFFFFFF).astype(np.uint32)
    return Words(found, hashes, classes, codes >> GROUP_SHIFT, at, np.diff(at) - 1)


def pair_hashes(hashes: Ints) -> Ints:
    """(n - 1,) uint32, one for each word and its successor."""
    return (hashes[:-1] * _STEP) ^ (hashes[1:] * _MIX)


def trigram_rows(codes: Ints) -> Ints:
    """(n - 2,) indices into the trigram table."""
    return trigram_hashes((codes[:-2] << np.uint32(16)) ^ (codes[1:-1] << np.uint32(8)) ^ codes[2:])


def trigram_hashes(packed: Ints) -> Ints:
    """(n,) indices into the trigram table of three bytes packed into 24 bits."""
    return (packed * _MIX) >> np.uint32(32 - TRIGRAM_BITS)


def members(bits: npt.NDArray[np.uint8], hashes: Ints) -> npt.NDArray[np.uint8]:
    """(n,) 1 where the hash is in the bit set."""
    at = hashes & np.uint32((1 << SET_BITS) - 1)
    found: npt.NDArray[np.uint8] = (bits[at >> np.uint32(3)] >> (at & np.uint32(7)).astype(np.uint8)) & np.uint8(1)
    return found


def extract(texts: Sequence[str], vocabulary: Vocabulary) -> Features:
    """The features of some texts (at least one)."""
    joined = join([fold(text) for text in texts])
    words = read_words(joined.folded)
    pairs = pair_hashes(words.hashes)
    counts = np.concatenate(
        [_shape(texts, joined), _fluency(joined, words, pairs, vocabulary), _groups(words)], axis=1, dtype=np.float32
    )
    return Features(*_rows(joined, words, pairs), counts, words.found, words.at[:-1])


def _rows(joined: Joined, words: Words, pairs: Ints) -> tuple[Ints, Numbers, Numbers]:
    """Rows of characters (3 to 5), words and pairs of words, text after text; those across a border are no n-gram.

    Every position of a text has one row a kind, so a text's rows are `kinds * positions` long, borders included.
    """
    none = np.uint32(1 << HASH_BITS)
    shift = np.uint32(32 - HASH_BITS)
    length, kinds = len(joined.codes), []
    rolling = joined.codes
    for n in range(2, LONGEST + 1):
        rolling = rolling[:-1] * _STEP + joined.codes[n - 1 :]
        if n >= SHORTEST:
            rows = np.full(length, none)
            rows[: length - n + 1] = (rolling * _MIX) >> shift
            across = joined.at[:, None] - np.arange(n)
            rows[across[across >= 0]] = none
            kinds.append(rows)
    single = ((words.hashes ^ np.uint32(0x5BD1E995)) * _MIX) >> shift
    double = np.append((pairs * _MIX) >> shift, none)
    single[words.at] = none
    double[words.at] = none
    double[words.at[1:] - 1] = none
    # characters of all texts first, then words: each text is five stretches, summed separately by `sums`
    rows = np.concatenate([*kinds, single, double])
    offsets = [0, length, 2 * length]
    borders = [joined.at[:-1] + offset for offset in offsets]
    borders += [words.at[:-1] + 3 * length, words.at[:-1] + 3 * length + len(single)]
    characters = np.diff(joined.at) - 1
    sizes = sum(np.maximum(0, characters - n + 1) for n in (3, 4, 5)) + words.counted + np.maximum(0, words.counted - 1)
    return rows, np.concatenate(borders), sizes


def sums(values: npt.NDArray[Any], starts: Numbers) -> npt.NDArray[Any]:
    """Sums of consecutive stretches of `values` along axis 0, each from its start to the next."""
    exact = np.int32 if values.dtype.kind in "biu" else values.dtype
    result: npt.NDArray[Any] = np.add.reduceat(values, starts, axis=0, dtype=exact)
    return result


def _shape(texts: Sequence[str], joined: Joined) -> Floats:
    """(n, 19) length, casing, symbols, digits, links, money: what a text looks like."""
    starts = joined.at[:-1]
    length = np.maximum(1, np.diff(joined.at) - 3).astype(np.float32)
    kind = _KIND[joined.codes]
    letters, digits, symbols, foreign, shouts = (
        sums(kind == k, starts).astype(np.float32) for k in (_IS_LETTER, _IS_DIGIT, _IS_SYMBOL, _IS_FOREIGN, _IS_SHOUT)
    )
    own = np.array([_own_shape(text, folded) for text, folded in zip(texts, joined.folded, strict=True)])
    upper = own[:, 0] / np.maximum(1, np.minimum(letters + foreign, 200))
    links, long_number, money = own[:, 2], own[:, 3], own[:, 4]
    digit_share, symbol_share = digits / length, symbols / length
    return np.stack(
        [
            np.minimum(3.0, np.log1p(length) - 3.5), length < SHORT_TEXT, length > LONG_TEXT,
            np.minimum(1.0, upper * 2), (upper > UPPER) & (letters + foreign > FEW_LETTERS), own[:, 1],
            np.minimum(1.0, digit_share * 4), digit_share > 1 / 3,
            np.minimum(1.0, symbol_share * 5), symbol_share > 1 / 4,
            np.minimum(2, links), long_number, money, (links > 0) & ((money > 0) | (long_number > 0)),
            1 - foreign / length, own[:, 5] / np.minimum(length, 30),
            np.minimum(1.0, shouts / 3), own[:, 6], own[:, 7],
        ],
        axis=1,
    ).astype(np.float32)  # fmt: skip


def _own_shape(text: str, folded: bytes) -> tuple[float, ...]:
    """What has to be looked at text by text: capitals, links, numbers, money, distinct bytes, how it ends."""
    head = text[:200]
    capitals = (
        len(head) - len(head.encode().translate(None, _CAPITALS)) if head.isascii() else sum(map(str.isupper, head))
    )
    # what every link has is found in a fifth of the time
    linked = b"http" in folded or b"www." in folded or (b"." in folded and _ENDING.search(folded))
    links = len(_LINK.findall(folded)) if linked else 0
    money = b"0" in folded and _MONEY.search(text) is not None
    return (
        capitals, head[:1].isupper(), links, b"00000" in folded, money, len(set(folded)),
        b"?" in folded, folded[-1:] in {b".", b"?", b"!"},
    )  # fmt: skip


def _fluency(joined: Joined, words: Words, pairs: Ints, vocabulary: Vocabulary) -> Floats:
    """(n, 14) whether letters make words, words are known, and follow each other as people put them."""
    starts, n = words.at[:-1], np.maximum(1, words.counted).astype(np.float32)
    few = n < FEW_WORDS
    known = np.where(words.counted > 0, _share(members(vocabulary.words, words.hashes), words.at, n), 0.5)
    pair = members(vocabulary.pairs, pairs)
    pair[words.at[1:] - 1] = 0
    paired = np.where(few, 0.6, _share(np.append(pair, np.uint8(0)), words.at, np.maximum(1, n - 1)))
    order = np.append(vocabulary.order[words.classes[:-1], words.classes[1:]], 0)
    skip: Floats = np.zeros(len(words.classes), dtype=np.float32)
    skip[:-2] = vocabulary.skip[words.classes[:-2], words.classes[2:]]
    skip[words.at[1:] - 1] = 0
    ordered = np.where(few, 0.0, sums(order, starts) / (n + 1))
    skipped = np.where(few, 0.0, sums(skip, starts) / n)
    abusive = _share(members(vocabulary.abuse, words.hashes), words.at, np.ones_like(n))
    fluent = np.zeros(len(joined.codes), dtype=np.float32)
    fluent[:-2] = vocabulary.trigrams[trigram_rows(joined.codes)]
    across = joined.at[:, None] - np.arange(3)
    fluent[across[across >= 0]] = 0
    letters = sums(fluent, joined.at[:-1]) / np.maximum(1, np.diff(joined.at) - 3).astype(np.float32)
    return np.stack(
        [
            known, np.maximum(0.0, 0.5 - known) * 4, np.maximum(0.0, known - 0.85) * 6,
            paired, np.maximum(0.0, 0.4 - paired) * 4,
            letters, np.maximum(0.0, -0.3 - letters) * 2, np.maximum(0.0, -1.0 - letters) * 2,
            ordered, np.maximum(0.0, -0.1 - ordered) * 3, skipped,
            np.minimum(2, abusive), np.minimum(1.0, abusive / n * 5), few,
        ],
        axis=1,
    ).astype(np.float32)  # fmt: skip


def _share(values: npt.NDArray[np.uint8], at: Numbers, of: Floats) -> Floats:
    """Sum of the values of each text, its leading separator left out, over `of`."""
    values[at] = 0
    shared: Floats = sums(values, at[:-1]).astype(np.float32) / of
    return shared


def _groups(words: Words) -> Floats:
    """(n, 2 * groups) of each group: how often it occurs (capped), and its share of the words."""
    held = (words.groups[:, None] & _GROUP_BITS) > 0
    counted = sums(held, words.at[:-1]).astype(np.float32)
    share = np.minimum(1.0, counted / np.maximum(1, words.counted)[:, None] * 4)
    return np.concatenate([np.minimum(counted, 3) / 2, share], axis=1)


_IS_BLANK, _IS_LETTER, _IS_DIGIT, _IS_SYMBOL, _IS_PROSE, _IS_FOREIGN, _IS_SHOUT = range(7)


def _kinds() -> npt.NDArray[np.uint8]:
    """(256,) what a byte is: blank, letter, digit, technical symbol, punctuation of prose, not ASCII, shout."""
    kind = np.full(256, _IS_SYMBOL, dtype=np.uint8)
    kind[128:] = _IS_FOREIGN
    kind[ord("a") : ord("z") + 1] = _IS_LETTER
    kind[ord("0")] = _IS_DIGIT
    kind[[ord(c) for c in ".,;?'\"-()"]] = _IS_PROSE
    kind[[0, ord(" ")]] = _IS_BLANK
    kind[ord("!")] = _IS_SHOUT
    return kind


_KIND = _kinds()
