"""Near copies: the same question with the same reply, give or take a few words that carry no fact.

Unit = last customer turn + reply. `bands` are the keys under which a caller files a unit, `signature` is what it keeps,
`similar` decides about two signatures, and `contradicts` finds a changed fact: nearly the same question, a reply that
differs in a number, date, amount, negation or name. Such a pair is never a near copy. Pure; near_copies_store.py keeps
them in Redis.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from struct import pack, unpack
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from datasketch import MinHash

BANDS: Final = 20
"""Bands of `ROWS` rows: two units meet if they agree in one band, with probability 1 - (1 - J^3)^20 at Jaccard J."""
ROWS: Final = 3
HEADLINE: Final = 3
"""Capitals of a headline, at least; "Hi Bob" is none."""
SHORT: Final = 6
"""Units of fewer words are copies only when equal: one word of five is another answer."""

_MIX: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
"""Odd multipliers that mix the rows of a band."""
_VALUE: Final = 1 << 31
_MASK: Final = _VALUE - 1
_TOKEN = re.compile(r"<[A-Z_]+_\d+>|[#$£€₹]?\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_ENDS = frozenset(".!?:\n")
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
    """The hashed words of a question or a reply, in order; which of them are values (number, date, negation, name)."""

    words: tuple[int, ...]
    values: frozenset[int]
    counts: Counter[int]
    rest: Counter[int]
    """Counts of the words that are no values here."""


@dataclass(frozen=True)
class Unit:
    """A question and its reply."""

    question: Side
    reply: Side


@lru_cache(maxsize=1 << 10)
def bands(question: str, reply: str) -> tuple[bytes, ...]:
    """Twenty bucket keys of 6 bytes: units that share one may be near copies or contradict each other."""
    tokens = _words(question) + _words(reply)
    if not tokens:
        return ()
    chosen = {t for t in tokens if t not in _GROUPS["stop"] and not _is_number(t)} or set(tokens)
    sketch = _sketch().copy()
    sketch.update_batch([_hash(t) for t in chosen])
    rows = sketch.hashvalues.astype("<u8").reshape(BANDS, ROWS)
    mixed = (rows[:, 0] * _MIX[0] ^ rows[:, 1] * _MIX[1] ^ rows[:, 2] * _MIX[2]).tobytes()
    return tuple(bytes([at]) + mixed[8 * at + 3 : 8 * at + 8] for at in range(BANDS))


@lru_cache(maxsize=1 << 10)
def signature(question: str, reply: str) -> bytes:
    """The unit as bytes: the number of question words, then 4 bytes a word (at most 600 words of each side)."""
    asked, answered = _tokens(question)[:600], _tokens(reply)[:600]
    return pack(f"<{len(asked) + len(answered) + 1}I", len(asked), *asked, *answered)


@lru_cache(maxsize=1 << 13)
def read(held: bytes) -> Unit:
    """A signature as hashed words. Raises ValueError if its length does not fit."""
    numbers = unpack(f"<{len(held) // 4}I", held) if len(held) % 4 == 0 else ()
    if not numbers or numbers[0] >= len(numbers):
        raise ValueError("no signature")
    split = numbers[0] + 1
    return Unit(_side(numbers[1:split]), _side(numbers[split:]))


def _side(tokens: tuple[int, ...]) -> Side:
    words = tuple(token & _MASK for token in tokens)
    values = frozenset(token & _MASK for token in tokens if token & _VALUE)
    return Side(words, values, Counter(words), Counter(token for token in tokens if not token & _VALUE))


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
    """True if question and reply are the same, but the reply for a number, date, amount, negation or name."""
    one, other = read(a), read(b)
    if not one.question.words or not _same_words(one.question, other.question):
        return False
    if not _same_words(one.reply, other.reply, slack=2):
        return False
    return _facts(one.reply, other.reply) and not _facts(one.question, other.question)


def reply_key(reply: str) -> bytes:
    """Eight bytes that are the same for a macro repeated verbatim, whatever its casing and punctuation."""
    return blake2b(" ".join(_words(reply)).encode(errors="replace"), digest_size=8).digest()


def template_weight(count: int) -> float:
    """Factor on the weight of a reply that occurred `count` times before: 1 / sqrt(1 + count), not below 0.1."""
    return float(max(0.1, (1 + max(0, count)) ** -0.5))


def _same_words(one: Side, other: Side, slack: int = 0) -> bool:
    """True if the words that carry no value differ in few places; values are compared by the caller."""
    if one.rest == other.rest:
        return True
    size = max(one.rest.total(), other.rest.total())
    changed = size - (one.rest & other.rest).total()
    return changed <= max(min(3 + slack, (size + slack) // 2), size // 6)


def _size(unit: Unit) -> int:
    return len(unit.question.words) + len(unit.reply.words)


def _equal(one: Unit, other: Unit) -> bool:
    return one.reply.words == other.reply.words and one.question.words == other.question.words


def _facts(one: Side, other: Side) -> bool:
    """True if a value of one side is missing in the other, even as an ordinary word ("The Inn", "Inn")."""
    if one.words == other.words:
        return False
    return any(one.counts[value] != other.counts[value] for value in one.values | other.values)


def _words(text: str) -> list[str]:
    return [_label(t) for t in _TOKEN.findall(text.lower() if "<" not in text else text)]


def _label(token: str) -> str:
    """Placeholders are numbered anew in each conversation: only their label says something."""
    return token.rsplit("_", 1)[0] if token.startswith("<") else token.lower().replace("’", "'")


def _tokens(text: str) -> list[int]:
    """Hashed words of a text, values marked; a capital inside a sentence makes a name, unless all words have one."""
    found = list(_TOKEN.finditer(text))
    capitals = sum(m[0][:1].isupper() for m in found)
    shouted = capitals * 2 > len(found) and capitals >= HEADLINE
    tokens, end = [], 0
    for match in found:
        token, nameable = _token(match[0])
        if nameable and not shouted and end and not _ENDS.intersection(text[end : match.start()]):
            token |= _VALUE
        tokens.append(token)
        end = match.end()
    return tokens


@lru_cache(maxsize=1 << 15)
def _token(raw: str) -> tuple[int, bool]:
    """A word's hash, marked if it is a value wherever it stands, and whether it is a name inside a sentence."""
    word = _label(raw)
    placeholder = raw.startswith("<")
    value = not placeholder and (_is_number(raw) or word in VALUES)
    nameable = raw[0].isupper() and len(raw) > 1 and word not in _GROUPS["greeting"] and not word.startswith("i'")
    return _hash(word) & _MASK | (_VALUE if value else 0), nameable and not placeholder


def _is_number(token: str) -> bool:
    return token[-1].isdigit() and not token.startswith("<")


@lru_cache(maxsize=1 << 15)
def _hash(word: str) -> int:
    return crc32(word.encode(errors="replace"))


def _identity(value: int) -> int:
    return value


@lru_cache(maxsize=1)
def _sketch() -> MinHash:
    from datasketch import MinHash  # noqa: PLC0415 - brings scipy, 0.8 s; settings import this module

    return MinHash(num_perm=BANDS * ROWS, seed=7, hashfunc=_identity)
