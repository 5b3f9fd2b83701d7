"""Near copies: the same question with the same reply, give or take a few words that carry no fact.

Unit = last customer turn + reply. `bands` are the keys under which a caller files a unit, `signature` is what it keeps,
`similar` decides about two signatures, and `contradicts` finds a changed fact: nearly the same question, a reply that
differs in a number, date, amount, negation or name. Such a pair is never a near copy. Pure; near_copies_store.py keeps
them in Redis.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib.resources import files
from itertools import chain
from operator import add
from struct import pack, unpack
from typing import Any, Final, NamedTuple
from zlib import crc32

BANDS: Final = 20
"""Bands of `ROWS` rows: two units meet if they agree in one band, with probability 1 - (1 - J^3)^20 at Jaccard J."""
ROWS: Final = 3
HEADLINE: Final = 3
"""Capitals of a headline, at least; "Hi Bob" is none."""
SHORT: Final = 6
"""Units of fewer words are copies only when equal: one word of five is another answer."""
ASKED: Final = 4
"""Words of a question to which different replies are a matter of fact."""
BEGINS: Final = 5
"""Words in which a reply says yes or no: "I'm afraid not", "No, that is"."""
MOST_WORDS: Final = 600
"""Words of a question or a reply that a signature keeps."""

_VALUE: Final = 1 << 31
_MASK: Final = _VALUE - 1
_TOKEN = re.compile(
    r"[a-zA-Z]++(?![^\W\d_]|['’])"  # most words, in a third less time than the next line takes
    r"|[^\W\d_]+(?:['’][^\W\d_]+)*|[.!?:\n]|[#$£€₹]?\d+(?:[.,:/-]\d+)*|<[A-Z_]+_\d+>"
)
_ENDS = frozenset(".!?:\n")
_BAND: Final = tuple(bytes([at]) for at in range(BANDS))
_DIGEST: Final = f"<{BANDS * ROWS}I"
_ROWS: Final = f"{4 * ROWS}s" * BANDS
_SUMS: Final = f">{BANDS}I"
_KEYS: Final = "4s" * BANDS
_KEPT: Final = 1 << 16
_LONG_PIECE: Final = 40
"""Characters of what no other text will repeat, so that it is not kept."""
_GROUPS = {
    name: frozenset(listed.split())
    for name, _, listed in (
        line.partition(": ") for line in files("streams").joinpath("near_copies.txt").read_text().splitlines()[1:]
    )
}
VALUES: Final = _GROUPS["negation"] | _GROUPS["number"] | _GROUPS["time"]
"""Words that carry a fact: negations, numbers, times."""


@dataclass(frozen=True)
class Side:
    """The hashed words of a question or a reply, in order, values marked; what most comparisons never ask is lazy."""

    tokens: tuple[int, ...]

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Without marks."""
        return tuple([token & _MASK for token in self.tokens])

    @cached_property
    def values(self) -> frozenset[int]:
        """Those words that are values here: number, date, negation, name."""
        return frozenset([token & _MASK for token in self.tokens if token & _VALUE])

    @cached_property
    def plain(self) -> int:
        """How many of them are no values: the size of `rest`."""
        return sum([token < _VALUE for token in self.tokens])

    @cached_property
    def counted(self) -> frozenset[int]:
        """Every word with the number of its occurrence above bit 32: a set that is compared as a bag."""
        return _bag(self.words)

    @cached_property
    def rest(self) -> frozenset[int]:
        """The same of the words that are no values here."""
        return _bag([token for token in self.tokens if not token & _VALUE])


class Unit(NamedTuple):
    """A question and its reply."""

    question: Side
    reply: Side


def bands(question: str, reply: str) -> tuple[bytes, ...]:
    """Twenty bucket keys of 5 bytes: units that share one may be near copies or contradict each other."""
    asked, answered = _read(question), _read(reply)
    chosen = asked.telling | answered.telling or {str(token & _MASK) for token in (*asked.tokens, *answered.tokens)}
    if not chosen:
        return ()
    sketch = _sketch()(num_perm=BANDS * ROWS, seed=7)
    sketch.update(list(chosen))
    rows = unpack(_ROWS, pack(_DIGEST, *sketch.digest()))
    return tuple(map(add, _BAND, unpack(_KEYS, pack(_SUMS, *map(crc32, rows)))))


def signature(question: str, reply: str) -> bytes:
    """The unit as bytes: the number of question words, then 4 bytes a word (at most 600 words of each side)."""
    asked, answered = _read(question).tokens[:MOST_WORDS], _read(reply).tokens[:MOST_WORDS]
    return pack(f"<{len(asked) + len(answered) + 1}I", len(asked), *asked, *answered)


@lru_cache(maxsize=1 << 13)
def read(held: bytes) -> Unit:
    """A signature as hashed words. Raises ValueError if its length does not fit."""
    numbers = unpack(f"<{len(held) // 4}I", held) if len(held) % 4 == 0 else ()
    if not numbers or numbers[0] >= len(numbers):
        raise ValueError("no signature")
    split = numbers[0] + 1
    return Unit(Side(numbers[1:split]), Side(numbers[split:]))


def _bag(words: Sequence[int]) -> frozenset[int]:
    once = frozenset(words)
    if len(once) == len(words):
        return once
    again = [word | at << 32 for word, count in Counter(words).items() if count > 1 for at in range(1, count)]
    return once.union(again)


def related(a: bytes, b: bytes) -> bool:
    """False where neither can be a copy of the other, nor contradict it: most units that share a bucket."""
    one, other = read(a), read(b)
    return _equal(one, other) or _same_words(one.question, other.question)


def exact(a: bytes, b: bytes) -> bool:
    """True if question and reply are the same words, whatever their casing, spacing and punctuation."""
    return _equal(read(a), read(b))


def similar(a: bytes, b: bytes) -> bool:
    """True if one is a near copy of the other: up to a sixth of the words changed (three in a short unit), no value."""
    one, other = read(a), read(b)
    if _equal(one, other):
        return True
    if min(_size(one), _size(other)) < SHORT:
        return False
    if not _same_words(one.question, other.question) or not _same_words(one.reply, other.reply):
        return False
    return not _facts(one.question, other.question) and not _facts(one.reply, other.reply)


def contradicts(a: bytes, b: bytes) -> bool:
    """True if the question is the same, and the reply but for a number, date, negation or name, or yes for no."""
    one, other = read(a), read(b)
    if not one.question.tokens or not _same_words(one.question, other.question):
        return False
    if _facts(one.question, other.question):
        return False
    if _same_words(one.reply, other.reply, slack=2):
        return _facts(one.reply, other.reply)
    return min(len(one.question.tokens), len(other.question.tokens)) >= SHORT and _says(one) * _says(other) < 0


def asks(signature: bytes) -> bool:
    """True if there is a question to speak of: what is said to "Hi there" is no claim."""
    return len(read(signature).question.tokens) >= ASKED


def _says(unit: Unit) -> int:
    """1 for a reply that begins with yes, -1 with no, 0 with neither."""
    begins = unit.reply.words[:BEGINS]
    if not _DENIES.isdisjoint(begins):
        return -1
    return 1 if not _AFFIRMS.isdisjoint(begins[:2]) else 0


def same_facts(one: str, other: str) -> bool:
    """True if both texts name the same numbers, dates, names and negations, each as often."""
    return not _facts(*(Side(_read(text).tokens) for text in (one, other)))


def reply_key(reply: str) -> bytes:
    """Eight bytes that are the same for a macro repeated verbatim, whatever its casing and punctuation."""
    tokens = [token & _MASK for token in _read(reply).tokens]
    return blake2b(pack(f"<{len(tokens)}I", *tokens), digest_size=8).digest()


def template_weight(count: int) -> float:
    """Factor on the weight of a reply that occurred `count` times before: 1 / sqrt(1 + count), not below 0.1."""
    return float(max(0.1, (1 + max(0, count)) ** -0.5))


def _same_words(one: Side, other: Side, slack: int = 0) -> bool:
    """True if the words that carry no value differ in few places; values are compared by the caller."""
    size = max(one.plain, other.plain)
    most = max(min(3 + slack, (size + slack) // 2), size // 6)
    return size - min(one.plain, other.plain) <= most and size - len(one.rest & other.rest) <= most


def _size(unit: Unit) -> int:
    return len(unit.question.tokens) + len(unit.reply.tokens)


def _equal(one: Unit, other: Unit) -> bool:
    if len(one.question.tokens) != len(other.question.tokens) or _size(one) != _size(other):
        return False
    return one.reply.words == other.reply.words and one.question.words == other.question.words


def _facts(one: Side, other: Side) -> bool:
    """True if a value of one side is missing in the other, even as an ordinary word ("The Inn", "Inn")."""
    if one.tokens == other.tokens:
        return False
    values = one.values | other.values
    return bool(values) and any(word & _MASK in values for word in one.counted ^ other.counted)


class _Text(NamedTuple):
    """A text as hashed words, values marked, and those of them that tell texts apart."""

    tokens: tuple[int, ...]
    telling: AbstractSet[str]


@lru_cache(maxsize=1 << 11)
def _read(text: str) -> _Text:
    """The words of a text; a capital inside a sentence makes a name, unless all words have one."""
    found = [*chain.from_iterable(map(_PIECES.__getitem__, text.split(" ")))]
    words = [*filter(None, found)]
    if not words:
        return _Text((), set())
    codes, capital, names, telling = zip(*words, strict=True)
    told = set(telling)
    told.discard("")
    if True not in names:
        return _Text(codes, told)
    capitals = sum(capital)
    if capitals * 2 > len(words) and capitals >= HEADLINE:
        return _Text(codes, told)
    behind = zip([None, *found], found, strict=False)
    return _Text(tuple([word[0] | _VALUE if before and word[2] else word[0] for before, word in behind if word]), told)


class _Word(NamedTuple):
    """A word: its hash, marked if it is a value wherever it stands, and what it may be."""

    code: int
    capital: bool
    name: bool
    """Whether it is a name where it stands inside a sentence."""
    telling: str
    """Its name if it tells texts apart, else empty."""


class _Pieces(dict[str, tuple[_Word | None, ...]]):
    """What stands between two blanks -> its words, None for the end of a sentence: read once, emptied when grown."""

    def __missing__(self, piece: str) -> tuple[_Word | None, ...]:
        """The words of a piece that was not seen lately."""
        if len(self) >= _KEPT:
            self.clear()
        found = tuple([None if raw in _ENDS else _word(raw) for raw in _TOKEN.findall(piece)])
        if len(piece) <= _LONG_PIECE:
            self[piece] = found
        return found


_PIECES: Final = _Pieces()


def _word(raw: str) -> _Word:
    """Placeholders are numbered anew in each conversation: only their label says something."""
    placeholder = raw.startswith("<")
    word = raw.rsplit("_", 1)[0] if placeholder else raw.lower().replace("’", "'")
    number = raw[-1].isdigit() and not placeholder
    value = not placeholder and (number or word in VALUES)
    capital = raw[0].isupper()
    name = len(raw) > 1 and not placeholder and word not in _GROUPS["greeting"] and not word.startswith("i'")
    code = crc32(word.encode(errors="replace")) & _MASK | (_VALUE if value else 0)
    return _Word(code, capital, capital and name, "" if number or word in _GROUPS["stop"] else word)


_AFFIRMS: Final = frozenset(_word(word).code & _MASK for word in _GROUPS["yes"])
_DENIES: Final = frozenset(_word(word).code & _MASK for word in _GROUPS["no"])


@lru_cache(maxsize=1)
def _sketch() -> Any:
    from rensa import RMinHash  # noqa: PLC0415 - settings import this module

    return RMinHash
