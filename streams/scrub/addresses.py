"""Postal addresses: an anchor (number and street, flat, box) that grows over town, state and code beside it.

Works on tokens of the detection text, so that English, European and Asian word order, one line or five,
capitals or none are the same code. Each token is looked at a bounded number of times.
"""

from __future__ import annotations

from streams.scrub.address_tokens import (
    BEHIND,
    CAPITAL,
    MAX_GROWTH,
    NUMBER,
    OPENER,
    SHORT,
    Token,
    grow_left,
    grow_right,
    is_capital,
    is_number,
    is_ordinal,
    next_word,
    number_after,
    tokenise,
)
from streams.scrub.lexicon import COMMON, NAME, OFTEN, PROPER
from streams.scrub.segments import find_segments
from streams.scrub.spans import Overflow, Span
from streams.scrub.streets import (
    COMPOUNDS,
    FLATS,
    HOUSES,
    LEAD_PAIRS,
    LEADS,
    MILITARY,
    NUMBERED,
    NUMBERED_PARTS,
    PARTICLES,
    PLACES,
    PREFIXES,
    STRONG,
    SUFFIXES,
    VAGUE,
)

MAX_ANCHORS = 1_000
"""Tokens of one turn at which an address could begin; more are a flood of numbers."""


def find_addresses(text: str, *, streets: bool = True) -> list[Span]:
    """Spans of addresses with town and code; `streets`: whether a word for street may be in the text."""
    tokens = tokenise(text)
    return (_by_street(tokens) if streets else []) + find_segments(tokens)


def _by_street(tokens: list[Token]) -> list[Span]:
    """Spans of the addresses whose core is a street, a flat or a box."""
    found: list[Span] = []
    at = 0
    tried = 0
    while at < len(tokens):
        anchor = None
        if _may_begin(tokens, at):
            tried += 1
            anchor = _anchor(tokens, at)
        if tried > MAX_ANCHORS:
            raise Overflow
        if anchor is None:
            at += 1
            continue
        led = _led(tokens, anchor[0]) or anchor
        first, last = grow_left(tokens, anchor[0]), max(grow_right(tokens, anchor[1]), led[1])
        found.append((tokens[first].start, tokens[last].end, "ADDRESS"))
        at = last + 1
    return found


def _may_begin(tokens: list[Token], at: int) -> bool:
    """Whether an address can begin here: the cheap test that most tokens fail."""
    kind = tokens[at].kind
    if kind & OPENER:
        return True
    return at > 0 and bool(
        tokens[at - 1].kind & BEHIND or (kind & CAPITAL and any(t.kind & NUMBER for t in tokens[at + 1 : at + 4]))
    )


def _anchor(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """First and last token of an address's core that begins at `at`."""
    word = tokens[at].lower
    if is_number(tokens, at):
        return _numbered(tokens, at) or _led(tokens, at)
    if word in PREFIXES and (street := _prefixed(tokens, at)):
        return street
    if word in FLATS and at + 1 < len(tokens) and (end := _unit(tokens, at)) is not None:
        return at, end
    if word in MILITARY and (end := _military(tokens, at)) is not None:
        return at, end
    if word.endswith(COMPOUNDS) and len(word) > 5 and not tokens[at].flags & OFTEN:  # "Hauptstrasse", not "weg"
        number = number_after(tokens, at)
        return None if number is None else (at, number)
    if word == "corner" and at + 2 < len(tokens) and tokens[at + 1].lower == "of":
        return _corner(tokens, at)
    if word in HOUSES:
        number = number_after(tokens, at)
        return None if number is None else (at, number)
    if word in NUMBERED_PARTS and (part := _part(tokens, at)):
        return part
    return _european(tokens, at) or _unnumbered(tokens, at) or _led(tokens, at)


def _european(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Name, number, code and town, without any word for street: "Lipova 41, 820 51 Zilina"."""
    i = at
    while (
        i < len(tokens)
        and i - at < 4
        and tokens[i].text[0].isalpha()
        and (is_capital(tokens[i]) or (i > at and tokens[i].lower in PARTICLES))
    ):
        i += 1
    if i == at or tokens[at].flags & OFTEN or not (i < len(tokens) and is_number(tokens, i)):
        return None
    code = i + 2 if i + 1 < len(tokens) and tokens[i + 1].text[0] in ",\n" else i + 1
    if (
        code < len(tokens)
        and code > i + 1
        and 4 <= sum(len(t.text) for t in tokens[code : code + 2] if t.text.isdigit()) <= SHORT
        and tokens[code].text.isdigit()
    ):
        return at, code
    return None


def _led(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Whatever stands behind "address:", "deliver to" or "moved to", if it holds a number and a name."""
    if at == 0 or tokens[at].lower in _STOPS:
        return None
    before = tokens[at - 1].lower
    pair = f"{tokens[at - 2].lower} {before}" if at > 1 else ""
    noun = tokens[at - 2].lower if before in {"is", ":", "at", "ist", "es"} and at > 1 else before
    if pair not in LEAD_PAIRS and noun not in LEADS:
        return None
    last = grow_right(tokens, at - 1)
    if last < at or last - at > MAX_GROWTH:
        return None
    inside = tokens[at : last + 1]
    numbers = [t for t in inside if t.text[0].isdigit()]
    named = [t for t in inside if t.text[0].isalpha() and len(t.text) > 2 and not t.flags & OFTEN]
    return (at, last) if numbers and named else None


def _numbered(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Number, then a street: "45 Oak Lane", "12 rue X", "8 Hauptstrasse", "20 Allika 46"."""
    begin = next_word(tokens, at)
    if begin is None:
        return None
    if is_number(tokens, begin):
        begin = next_word(tokens, begin) or begin
    if tokens[begin].lower in PREFIXES and (street := _prefixed(tokens, begin)):
        return at, street[1]
    for i in range(begin, min(begin + 5, len(tokens))):
        token = tokens[i]
        if i > begin and _is_suffix(tokens, i):
            return at, i
        if token.lower.endswith(COMPOUNDS) and len(token.lower) > 5:
            return at, i
        if (
            i > begin
            and is_number(tokens, i)
            and all(is_capital(t) and not t.flags & (COMMON | PROPER) for t in tokens[begin:i])
        ):
            return at, i
        if not (token.text[0].isalpha() or is_ordinal(tokens, i)) or token.lower in _STOPS:
            return None
    return None


def _is_suffix(tokens: list[Token], i: int) -> bool:
    """Whether token `i` makes the words from `begin` a street's name."""
    word, name = tokens[i].lower, tokens[i - 1]
    if word not in SUFFIXES:
        return False
    if is_capital(tokens[i]) and (is_capital(name) or name.text[0].isdigit() or is_ordinal(tokens, i - 1)):
        return True
    if i + 1 == len(tokens) or tokens[i + 1].text[0] in ",\n":
        return not name.flags & OFTEN or word in STRONG
    if word in STRONG:
        return name.lower not in _NO_STREET
    return word not in VAGUE and not name.flags & OFTEN


def _prefixed(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Street word first: "rue de la Paix 4", "Calle Mayor, 12", "ul. Prosta 3"."""
    i = at + 1
    while i < len(tokens) and (tokens[i].lower in PARTICLES or tokens[i].text in ".'"):
        i += 1
    first = i
    while (
        i < len(tokens)
        and i - first < 4
        and tokens[i].text[0].isalpha()
        and (is_capital(tokens[i]) or not tokens[i].flags & COMMON or tokens[i].lower in PARTICLES)
    ):
        i += 1
    if i == first:  # "Calle 85", "Carrera 43A"
        numbered = tokens[at].lower in NUMBERED and i < len(tokens) and is_number(tokens, i)
        return (at, i) if numbered else None
    number = number_after(tokens, i - 1)
    if number is not None:
        return at, number
    before = at > 0 and is_number(tokens, at - 1)
    if tokens[at].flags & OFTEN and not before:  # "so I"
        return None
    return (at, i - 1) if (before or tokens[at].lower not in _PREFIX_WORDS) and is_capital(tokens[first]) else None


def _unit(tokens: list[Token], at: int) -> int | None:
    """The value of "apt", "suite", "box" ... at `at`."""
    i = at + 1
    while (i < len(tokens) and tokens[i].text in ".#") or (
        i < len(tokens) and tokens[i].lower in {"no", "nr", "number"}
    ):
        i += 1
    if i < len(tokens) and tokens[i].text[0].isdigit() and len(tokens[i].text) <= SHORT:
        return i
    return None


def _part(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """A building or a road with its number, and another part of an address behind it: "Stand 441, Borrowdale"."""
    number = number_after(tokens, at)
    if number is None or number + 2 >= len(tokens) or tokens[number + 1].text != ",":
        return None
    after = tokens[number + 2]
    numbered = after.lower in NUMBERED_PARTS and number_after(tokens, number + 2) is not None
    named = is_capital(after) and not after.flags & (OFTEN | COMMON) and len(after.text) > _INITIAL
    return (at, number) if numbered or named else None


_INITIAL = 2
"""Letters of what may be the quarter of a town, or anything else in capitals."""


def _military(tokens: list[Token], at: int) -> int | None:
    """Military: "PSC 12, Box 34 APO AP 96501", "USS Name FPO AE 09501"."""
    for i in range(at + 1, min(at + 9, len(tokens))):
        if tokens[i].lower in {"apo", "fpo", "dpo"}:
            last = min(i + 2, len(tokens) - 1)
            return last if tokens[last].text[0].isdigit() else i
    return None


def _unnumbered(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """A street without number behind "on", "at", "corner of", "lives ...": "on Oak Parkway"."""
    before = tokens[at - 1].lower if at else ""
    if before not in PLACES or not tokens[at].text[0].isalpha() or tokens[at].lower in _STOPS:
        return None
    for i in range(at + 1, min(at + 4, len(tokens))):
        word = tokens[i].lower
        clear = word in STRONG or (is_capital(tokens[i]) and (word not in VAGUE or bool(tokens[i - 1].flags & NAME)))
        if word in SUFFIXES and clear and _named(tokens[at:i]):
            nxt = i + 1
            more = nxt < len(tokens) and tokens[nxt].lower in STRONG
            return at, nxt if more else i
        if not tokens[i].text[0].isalpha():
            return None
    return None


def _named(words: list[Token]) -> bool:
    """Whether words in front of a street's suffix are its name: capitals, or a name in lower case."""
    first = words[0]
    if first.flags & OFTEN and not first.flags & NAME:
        return False
    return all(is_capital(t) for t in words) or not first.flags & COMMON


def _corner(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """A crossing, "corner of X and Y": names, numbers and suffixes up to the end of the phrase."""
    last = at + 1
    for i in range(at + 2, min(at + 14, len(tokens))):
        token = tokens[i]
        if token.text[0].isdigit() or is_capital(token) or (token.lower in SUFFIXES and i > at + 2):
            last = i
        elif token.lower != "and" and token.text != ".":
            break
    return (at, last) if last > at + 1 else None


_STOPS = frozenset(
    "i you he she we they it is was are were am be been do does did have has had will would can could please thanks "
    "my your his her our their and or but if then when what why how who which that this these those to for from "
    "with not no yes minutes minute hours hour days day weeks week months month years year people persons items "
    "times am pm".split()
)
_NO_STREET = frozenset(
    "the a an in on at to by per for of my your this that same next other wrong right left main long one two three "
    "every each any".split()
) - {"main"}
_PREFIX_WORDS = frozenset(
    "via place av al bd quai corso plaza avenue boulevard passage square route cours villa cite jalan".split()
)
