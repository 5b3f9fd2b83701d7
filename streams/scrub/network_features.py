"""What the network sees of a token: its letters, its shape, what lexicon and address vocabulary call it."""

from __future__ import annotations

import re

from streams.scrub import streets
from streams.scrub.address_tokens import MONTHS
from streams.scrub.lexicon import COMMON, FOREIGN, NAME, OFTEN, PROPER
from streams.scrub.persons import STRONG, WEAK
from streams.scrub.token_kinds import flags_of, shape_of

TOKEN = re.compile(
    r"[A-Za-z\x01]+(?:-[A-Za-z\x01]+|'(?!s\b)[A-Za-z]+)*|'s\b|\d+(?:[A-Za-z]{1,2}(?![A-Za-z\d]))?|\n+|[^\sA-Za-z\d]"
)
"""A word, a number with the one or two letters behind it, a line break, a sign."""
GLUED = "\x03"
"""Stands in front of a token that no space parts from the one before it."""
HIDDEN = "\x04"
"""Stands in front of a word that training shows as if no list held it."""
EDGE = "\x02"
"""What stands before the first token and behind the last."""

_VOCABULARY = {
    "suffix": streets.SUFFIXES,
    "strong": streets.STRONG,
    "vague": streets.VAGUE,
    "prefix": streets.PREFIXES,
    "tail": streets.TAILS,
    "unit": streets.UNITS,
    "detail": streets.DETAILS,
    "house": streets.HOUSE | streets.HOUSES,
    "lead": streets.LEADS | streets.LEAD_VERBS,
    "place": streets.PLACES,
    "particle": streets.PARTICLES,
    "state": streets.STATES,
    "month": MONTHS,
    "strongname": frozenset(word for phrase in STRONG for word in phrase.split()[-1:]),
    "weakname": frozenset(word for phrase in WEAK for word in phrase.split()[-1:]),
}
NUMERAL = frozenset(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred oh double".split()
)
_VOCABULARY["numeral"] = NUMERAL
_YEARS = range(1900, 2100)
_MONTH_DAYS = 31


def features_of(surface: str) -> list[str]:
    """The names of the rows that a token sums up; `surface` may begin with marks."""
    token = surface.lstrip(GLUED + HIDDEN)
    found = ["glued"] if surface[:1] == GLUED else []
    if not token or token == EDGE:
        return [f"edge{token}"]
    if token[0].isdigit():
        return found + _number(token)
    if not (token[0].isalpha() or token[0] == "\x01"):
        return [*found, f"sign{token[0]}"] + (["glued" + token[0]] if found else [])
    return found + _word(token, hidden=HIDDEN in surface)


def _number(token: str) -> list[str]:
    digits = token.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    tail = token[len(digits) :]
    found = ["number", f"digits{min(len(digits), 9)}"]
    if tail:
        found += ["lettered", f"tail{tail.lower()}" if len(tail) > 1 or tail.islower() else "tailcapital"]
    if digits[0] == "0":
        found.append("zero")
    if len(digits) == len("2000") and int(digits) in _YEARS:
        found.append("year")
    if len(digits) < len("100"):
        found.append("day" if int(digits) <= _MONTH_DAYS else "pair")
    if len(digits) > 1 and digits[-1] == "0":
        found.append("round00" if digits.endswith("00") else "round")
    return found


def _word(token: str, *, hidden: bool) -> list[str]:
    lower = token.lower()
    flags = 0 if hidden else flags_of(token)
    shape = shape_of(token)
    found = ["word", f"shape{shape}", f"length{min(len(token), 12)}"]
    bits = [bit for bit in range(7) if flags >> bit & 1]
    found += [f"flag{bit}" for bit in bits] + [f"flag{bit}shape{min(shape, 3)}" for bit in bits]
    if not bits:
        found += ["unknown", f"unknown{min(shape, 3)}"]
    vocabulary = [name for name, words in _VOCABULARY.items() if lower in words]
    found += [f"in {name}" for name in vocabulary]
    if len(lower) > _SHORTEST_COMPOUND and lower.endswith(streets.COMPOUNDS):
        found.append("compound")
    if vocabulary or is_plain(flags) or len(lower) <= _SHORT:
        found.append(f"={lower}")
    if not flags & OFTEN:
        padded = f"<{lower[:24]}>"
        found += [f"3{padded[i : i + 3]}" for i in range(len(padded) - 2)]
        found += [f"4{padded[:4]}", f"4{padded[-4:]}", f"5{padded[-5:]}"]
    return found


_SHORT = 3
_SHORTEST_COMPOUND = 5


def is_plain(flags: int) -> bool:
    """Whether a word is ordinary and no name: the network may know it by itself."""
    return bool(flags & (COMMON | FOREIGN)) and not (flags & (NAME | PROPER) and not flags & OFTEN)
