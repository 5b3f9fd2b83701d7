"""What a reply states: the numbers of a sentence, of which kind they are, and the words around them. Torch-free.

Two statements are about the same thing when they hold the same kinds of values and are alike in the words of the
sentence and of the question before it. Words are kept as hashes: no chat text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any
from zlib import crc32

from streams.events import Sample

LEAST_WORDS = 2
"""Words of sentence and question together: fewer say nothing by themselves."""

MOST_WORDS = 40
"""Words of a sentence: longer ones are lists or legal text, in which a number cannot be told from its neighbours."""

ALIKE_SENTENCE = 0.25
"""Least overlap (Dice) of two sentences' words: the same question alone is asked about many numbers."""

ALIKE = 0.8
"""Least sum of the overlaps of sentences and of questions, of 2."""

ALIKE_QUESTION = 0.6
"""Least overlap of the questions when a sentence is its value alone ("30 days.")."""

ALIKE_ALONE = 0.5
"""Least overlap of two sentences where a question says nothing."""

_UNITS = {
    name: kind
    for kind, names in {
        "span": "minute hour day week month year",
        "money": "euro eur dollar usd pound gbp cent",
        "clock": "am pm o'clock",
        "percent": "percent",
    }.items()
    for name in names.split()
}
_SIGNS = {"$": "dollar", "€": "euro", "£": "pound", "₹": "rupee", "%": "percent"}
_DAYS = {"week": 7.0, "day": 1.0, "hour": 1 / 24}
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {word: at for at, word in enumerate(_COUNTED.split())} | {
    word: 10 * at for at, word in enumerate(_TENS.split(), start=2)
}
_VALUE = re.compile(
    r"(?P<sign>[$€£₹])?\s?(?:(?P<digits>\d+(?:[.,:]\d+)*)|\b(?P<word>" + "|".join(_NUMBERS) + r")\b)"
    r"(?:[\s-]?(?P<unit>%|[^\W\d_]+(?:'[^\W\d_]+)?))?(?:\s(?P<second>[^\W\d_]+))?"
)
_SENTENCE = re.compile(r"(?:[^.!?\n]|[.](?=\d))+")
_PLACEHOLDER = re.compile(r"<[a-z_]+_\d+>")
_WORD = re.compile(r"[^\W\d_]{2,}")
_GROUPS = {
    name: frozenset(listed.split())
    for name, _, listed in (
        line.partition(": ") for line in files("streams").joinpath("near_copies.txt").read_text().splitlines()[1:]
    )
}
_ASKING = "when where which who why whose much many long often far soon per each every get got know"
_EMPTY = _GROUPS["stop"] | _GROUPS["greeting"] | frozenset(_ASKING.split()) | frozenset(_UNITS)
"""Words that stand beside any number."""

Words = frozenset[int]


@dataclass(frozen=True)
class Statement:
    """The values of one sentence in one conversation."""

    kind: str
    """Of its values, as in `span`: values of other kinds never contradict it."""
    value: str
    words: Words
    """Hashes of the sentence's other words."""
    question: Words
    """Hashes of the words of the customer's turn before."""


def alike(one: Statement, other: Statement) -> bool:
    """Whether two statements are about the same thing, whatever their values."""
    if one.kind != other.kind:
        return False
    asked = _overlap(one.question, other.question)
    if len(one.words) < 2 or len(other.words) < 2:
        return asked >= ALIKE_QUESTION
    said = _overlap(one.words, other.words)
    if not one.question or not other.question:
        return said >= ALIKE_ALONE
    return said >= ALIKE_SENTENCE and said + asked >= ALIKE


def stated(sample: Sample, *, by_people: bool = False) -> list[Statement]:
    """What the target replies of a sample state; those of people alone are evidence of what is true."""
    found, question = list[Statement](), ""
    for turn in sample.turns:
        if turn.role == "customer":
            question = turn.text
        elif turn.is_target and (turn.role == "agent" or not by_people):
            found += statements(question, turn.text)
    return found


@lru_cache(maxsize=1 << 10)
def statements(question: str, reply: str) -> tuple[Statement, ...]:
    """What a reply to a question states, sentence by sentence."""
    asked = _content(question.casefold())
    return tuple(
        Statement(kind, value, words, asked)
        for match in _SENTENCE.finditer(_PLACEHOLDER.sub(" ", reply.casefold()))
        for kind, value, words in _read(match[0])
        if len(words) + len(asked) >= LEAST_WORDS and len(words) <= MOST_WORDS
    )


def row_of(what: Statement) -> list[Any]:
    """A statement as JSON."""
    return [what.kind, what.value, sorted(what.words), sorted(what.question)]


def read_row(row: Sequence[Any]) -> Statement:
    """A statement from `row_of`. Raises ValueError or TypeError for anything else."""
    kind, value, words, question = row
    return Statement(str(kind), str(value), frozenset(words), frozenset(question))


def encode_statements(named: Iterable[Statement]) -> bytes:
    """Statements for another process."""
    return json.dumps([row_of(what) for what in named]).encode()


def decode_statements(raw: bytes) -> list[Statement]:
    """Statements from `encode_statements`. Raises ValueError for anything else."""
    try:
        return [read_row(row) for row in json.loads(raw)]
    except TypeError as error:
        raise ValueError("statements: not a list of rows") from error


def _read(sentence: str) -> Iterator[tuple[str, str, Words]]:
    """Kinds, values and other words of a sentence that states a value."""
    kinds, values, spans = list[str](), list[str](), list[tuple[int, int]]()
    for match in _VALUE.finditer(sentence):
        unit, end = _unit(match)
        kind = _UNITS.get(unit, unit)
        if match["word"] and unit not in _UNITS:  # "one of us": a number word counts things only before a unit
            continue
        number = float(_NUMBERS[match["word"]]) if match["word"] else _number(match["digits"])
        if unit in _DAYS and number is not None:
            number, unit = number * _DAYS[unit], "day"
        kinds.append(kind)
        values.append(f"{match['digits'] if number is None else f'{number:g}'} {unit}".strip())
        spans.append((match.start(), end))
    if values:
        rest = "".join(c for at, c in enumerate(sentence) if not any(start <= at < end for start, end in spans))
        yield "+".join(kinds), "+".join(values), _content(rest)


def _unit(match: re.Match[str]) -> tuple[str, int]:
    """The unit of a number and where it ends: its sign, the word behind it, or the one after ("30 business days")."""
    for name in ("sign", "unit", "second"):
        unit = _SIGNS.get(match[name] or "", _stem(match[name] or ""))
        if unit in _UNITS or (name == "sign" and unit):
            return unit, match.end("digits" if match["digits"] else "word") if name == "sign" else match.end(name)
    unit = _stem(match["unit"] or "")
    if not unit or unit in _EMPTY:
        return "", match.end("digits" if match["digits"] else "word")
    return unit, match.end("unit")


def _number(digits: str) -> float | None:
    """The number, thousands joined; None for times and what else has two marks."""
    plain = re.sub(r"(?<=\d)[.,](?=\d{3}(?!\d))", "", digits).replace(",", ".")
    return float(plain) if re.fullmatch(r"\d+(\.\d+)?", plain) else None


def _content(text: str) -> Words:
    """Hashes of the words that say something."""
    words = (_stem(match[0]) for match in _WORD.finditer(text) if match[0] not in _EMPTY)
    return frozenset(crc32(word.encode(errors="replace")) for word in words if word not in _EMPTY)


def _stem(word: str) -> str:
    """The word without a plural's or a past's ending."""
    word = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    return word[:-2] if len(word) > 5 and word.endswith("ed") else word


def _overlap(one: Words, other: Words) -> float:
    return 2 * len(one & other) / max(len(one) + len(other), 1)
