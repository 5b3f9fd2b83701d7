"""Postal addresses: an anchor (number and street, flat, box) that grows over town, state and code beside it.

Works on tokens of the detection text, so that English, European and Asian word order, one line or five,
capitals or none are the same code. Each token is looked at a bounded number of times.
"""

from __future__ import annotations

import re

from streams.scrub.lexicon import COMMON, NAME, OFTEN, PROPER, lexicon
from streams.scrub.spans import Span
from streams.scrub.streets import (
    CODES,
    COMPOUNDS,
    FLATS,
    HOUSE,
    HOUSES,
    LEAD_PAIRS,
    LEADS,
    MILITARY,
    PARTICLES,
    PLACES,
    PREFIXES,
    STATES,
    STRONG,
    SUFFIXES,
    UNITS,
    VAGUE,
)

_TOKEN = re.compile(
    r"[A-Za-z\x01](?:[A-Za-z\x01'\-]*[A-Za-z\x01])?|\d+(?:[A-Za-z](?![A-Za-z]))?(?:[\-/]\d+[A-Za-z]?(?![A-Za-z]))?|"
    r"\n+|[^\sA-Za-z\d]"
)
MAX_GROWTH = 24
"""Tokens that an address grows to one side."""
MAX_ANCHORS = 40
"""Anchors in one turn; the rest of a flood of numbers is left to the other detectors."""
_SHORT = 6
"""Digits of the longest house number or postal code; longer runs are other numbers."""


class Token:
    """A word, number or sign, and where it stands."""

    __slots__ = ("end", "lower", "start", "text")

    def __init__(self, match: re.Match[str]) -> None:
        self.start, self.end = match.span()
        self.text = match[0]
        self.lower = self.text.lower()

    @property
    def flags(self) -> int:
        """The word's lexicon flags."""
        return lexicon().get(self.lower, 0)


def find_addresses(text: str, lower: str) -> list[Span]:
    """Spans of addresses, each with the town and code that follow it."""
    tokens = list(map(Token, _TOKEN.finditer(text)))
    found: list[Span] = []
    at = 0
    while at < len(tokens) and len(found) < MAX_ANCHORS:
        anchor = _anchor(tokens, at) if _may_begin(tokens, at) else None
        if anchor is None:
            at += 1
            continue
        led = _led(tokens, anchor[0]) or anchor
        first, last = _left(tokens, anchor[0]), max(_right(tokens, anchor[1]), led[1])
        found.append((tokens[first].start, tokens[last].end, "ADDRESS"))
        at = last + 1
    return found


def _may_begin(tokens: list[Token], at: int) -> bool:
    """Whether an address can begin here: the cheap test that most tokens fail."""
    word = tokens[at].lower
    if word[0].isdigit() or word in _OPENERS or word.endswith(COMPOUNDS):
        return True
    return at > 0 and (tokens[at - 1].lower in PLACES or tokens[at - 1].lower in _BEHIND or _capital(tokens[at]))


_BEHIND = frozenset({"to", "is", ":", *LEADS})


_OPENERS = PREFIXES | FLATS | MILITARY | HOUSES | {"corner"}


def _anchor(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """First and last token of an address's core that begins at `at`."""
    word = tokens[at].lower
    if _is_number(tokens, at):
        return _numbered(tokens, at) or _led(tokens, at)
    if word in PREFIXES and (street := _prefixed(tokens, at)):
        return street
    if word in FLATS and at + 1 < len(tokens) and (end := _unit(tokens, at)) is not None:
        return at, end
    if word in MILITARY and (end := _military(tokens, at)) is not None:
        return at, end
    if word.endswith(COMPOUNDS) and len(word) > 5 and not tokens[at].flags & OFTEN:  # noqa: PLR2004 - "Hauptstrasse", not "weg"
        number = _next(tokens, at)
        return (at, number) if number is not None and _is_number(tokens, number) else None
    if word == "corner" and at + 2 < len(tokens) and tokens[at + 1].lower == "of":
        return _corner(tokens, at)
    if word in HOUSES:
        number = _number_after(tokens, at)
        return None if number is None else (at, number)
    return _european(tokens, at) or _unnumbered(tokens, at) or _led(tokens, at)


def _european(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Name, number, code and town, without any word for street: "Lipova 41, 820 51 Zilina"."""
    i = at
    while (
        i < len(tokens)
        and i - at < 4
        and tokens[i].text[0].isalpha()
        and (_capital(tokens[i]) or (i > at and tokens[i].lower in PARTICLES))
    ):  # noqa: PLR2004
        i += 1
    if i == at or tokens[at].flags & OFTEN or not (i < len(tokens) and _is_number(tokens, i)):
        return None
    code = i + 2 if i + 1 < len(tokens) and tokens[i + 1].text[0] in ",\n" else i + 1
    if (
        code < len(tokens)
        and code > i + 1
        and 4 <= sum(len(t.text) for t in tokens[code : code + 2] if t.text.isdigit()) <= _SHORT
        and tokens[code].text.isdigit()
    ):  # noqa: PLR2004
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
    last = _right(tokens, at - 1)
    if last < at or last - at > MAX_GROWTH:
        return None
    inside = tokens[at : last + 1]
    numbers = [t for t in inside if t.text[0].isdigit()]
    named = [t for t in inside if t.text[0].isalpha() and len(t.text) > 2 and not t.flags & OFTEN]  # noqa: PLR2004
    return (at, last) if numbers and named else None


def _numbered(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """Number, then a street: "45 Oak Lane", "12 rue X", "8 Hauptstrasse", "20 Allika 46"."""
    begin = _next(tokens, at)
    if begin is None:
        return None
    if _is_number(tokens, begin):
        begin = _next(tokens, begin) or begin
    if tokens[begin].lower in PREFIXES and (street := _prefixed(tokens, begin)):
        return at, street[1]
    for i in range(begin, min(begin + 5, len(tokens))):
        token = tokens[i]
        if i > begin and _is_suffix(tokens, begin, i):
            return at, i
        if token.lower.endswith(COMPOUNDS) and len(token.lower) > 5:  # noqa: PLR2004
            return at, i
        if (
            i > begin
            and _is_number(tokens, i)
            and all(_capital(t) and not t.flags & (COMMON | PROPER) for t in tokens[begin:i])
        ):
            return at, i
        if not (token.text[0].isalpha() or _is_ordinal(tokens, i)) or token.lower in _STOPS:
            return None
    return None


def _is_suffix(tokens: list[Token], begin: int, i: int) -> bool:
    """Whether token `i` makes the words from `begin` a street's name."""
    word, name = tokens[i].lower, tokens[i - 1]
    if word not in SUFFIXES:
        return False
    if _capital(tokens[i]) and (_capital(name) or name.text[0].isdigit() or _is_ordinal(tokens, i - 1)):
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
        and (_capital(tokens[i]) or not tokens[i].flags & COMMON or tokens[i].lower in PARTICLES)
    ):  # noqa: PLR2004
        i += 1
    if i == first:
        return None
    number = _number_after(tokens, i - 1)
    if number is not None:
        return at, number
    before = at > 0 and _is_number(tokens, at - 1)
    return (at, i - 1) if (before or tokens[at].lower not in _PREFIX_WORDS) and _capital(tokens[first]) else None


def _unit(tokens: list[Token], at: int) -> int | None:
    """The value of "apt", "suite", "box" ... at `at`."""
    i = at + 1
    while i < len(tokens) and tokens[i].text in ".#" or (i < len(tokens) and tokens[i].lower in {"no", "nr", "number"}):
        i += 1
    if i < len(tokens) and tokens[i].text[0].isdigit() and len(tokens[i].text) <= _SHORT:
        return i
    return None


def _military(tokens: list[Token], at: int) -> int | None:
    """ "PSC 12, Box 34 APO AP 96501", "USS Name FPO AE 09501"."""
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
        clear = word in STRONG or (_capital(tokens[i]) and (word not in VAGUE or bool(tokens[i - 1].flags & NAME)))
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
    return all(_capital(t) for t in words) or not first.flags & COMMON


def _corner(tokens: list[Token], at: int) -> tuple[int, int] | None:
    """ "corner of X and Y": names, numbers and suffixes up to the end of the phrase."""
    last = at + 1
    for i in range(at + 2, min(at + 14, len(tokens))):
        token = tokens[i]
        if token.text[0].isdigit() or _capital(token) or (token.lower in SUFFIXES and i > at + 2):  # noqa: PLR2004
            last = i
        elif token.lower != "and" and token.text != ".":
            break
    return (at, last) if last > at + 1 else None


def _left(tokens: list[Token], first: int) -> int:
    """The anchor's first token, with the number, "no" and "corner of" that stand before it."""
    while first > 0:
        before = tokens[first - 1]
        if before.text == "." and first > 3 and tokens[first - 2].lower == "o" and tokens[first - 4].lower == "p":  # noqa: PLR2004 - "P.O."
            first -= 4
        elif before.text == "." and first > 1 and tokens[first - 2].lower in HOUSE:
            first -= 2
        elif (_is_number(tokens, first - 1) and first and tokens[first].text[0] != "\n") or before.lower in HOUSE:
            first -= 1
        elif (
            before.text == ","
            and first > 1
            and tokens[first - 2].text[0].isdigit()
            and len(tokens[first - 2].text) <= _SHORT
        ):
            first -= 2
        elif before.lower in {"the", "po"} and tokens[first].lower in {"corner", "box"}:
            first -= 1
        else:
            break
    return first


def _right(tokens: list[Token], last: int) -> int:
    """The last token that still belongs: units, town, state, country, code, over commas and line breaks."""
    at = last + 1
    small = last < 1 or tokens[last].lower in LEADS or not any(_capital(t) for t in tokens[max(0, last - 3) : last + 1])
    while at < len(tokens) and at - last < MAX_GROWTH:
        token = tokens[at]
        if token.text in {",", ">", "(", ")", "-", "?", "."} or token.text[0] == "\n":
            if token.text in {".", "?"} and not _continues(tokens, at):
                break
            at += 1
            continue
        if not _belongs(tokens, at, small):
            break
        last = at
        at += 1
    return last


def _continues(tokens: list[Token], at: int) -> bool:
    """Whether a full stop only ends an abbreviation, or a question mark is a broken letter before a line."""
    if tokens[at].text == "?":
        return at + 1 < len(tokens) and tokens[at + 1].text in "?\n"
    return (
        len(tokens[at - 1].text) <= 4
        and at + 1 < len(tokens)
        and tokens[at + 1].start > tokens[at].end
        and _belongs(tokens, at + 1, small=False)
    )  # noqa: PLR2004


def _belongs(tokens: list[Token], at: int, small: bool) -> bool:
    """Whether the token at `at` can be part of an address that goes on."""
    token = tokens[at]
    if token.text[0].isdigit():
        glued = (
            at + 1 < len(tokens)
            and tokens[at + 1].start == token.end
            and tokens[at + 1].text[0].isalpha()
            and not CODES.match(token.text + tokens[at + 1].text)
        )
        return len(token.text) <= _SHORT + 1 and not glued
    if token.text[0] == "\x01":
        return True
    if not token.text[0].isalpha():
        return False
    if (
        len(token.text) == 1
        and at + 2 < len(tokens)
        and tokens[at + 1].text == "."
        and tokens[at + 2].text[0].isdigit()
    ):
        return True
    if token.lower in UNITS or (
        token.lower in SUFFIXES and (_capital(token) or small or tokens[at - 1].text[0].isalpha())
    ):
        return True
    if token.lower in PARTICLES or token.lower == "and" and at + 1 < len(tokens):
        return at + 1 < len(tokens) and _capital(tokens[at + 1]) and not tokens[at + 1].flags & OFTEN
    if (
        CODES.fullmatch(token.text)
        or (token.text.isupper() and len(token.text) == 2)
        or token.lower in STATES
        and small
    ):  # noqa: PLR2004
        return True
    if _capital(token):
        return (
            not token.flags & OFTEN
            or bool(token.flags & PROPER)
            and not token.flags & COMMON
            or _before_code(tokens, at)
        )
    if len(token.text) <= 3 and not token.flags & OFTEN and at + 1 < len(tokens) and tokens[at + 1].text[0].isdigit():  # noqa: PLR2004 - a state
        return True
    return small and (not token.flags & COMMON or bool(token.flags & PROPER) or token.lower in STRONG)


def _before_code(tokens: list[Token], at: int) -> bool:
    """An ordinary word in capitals that a town's rest or a code follows: "New Hope", "East Rock 4411"."""
    if tokens[at - 1].lower in _TOWN_WORDS and tokens[at].flags & NAME:
        return True
    return (
        at + 1 < len(tokens)
        and tokens[at].lower in _TOWN_WORDS
        and (_capital(tokens[at + 1]) or tokens[at + 1].text[0].isdigit())
    )


def _is_number(tokens: list[Token], at: int) -> bool:
    """Whether the token is a house number: short, not glued to letters, no decimal, no amount."""
    token = tokens[at]
    if (
        not token.text[0].isdigit()
        or len(token.text.rstrip("abcdABCD")) > _SHORT + 4
        or sum(c.isdigit() for c in token.text) > _SHORT + 2
    ):
        return False
    glued = (
        at + 1 < len(tokens)
        and tokens[at + 1].start == token.end
        and (tokens[at + 1].text[0].isalpha() or tokens[at + 1].text in "%:$")
    )
    behind = at > 0 and tokens[at - 1].end == token.start and tokens[at - 1].text in "$:.-"
    return not glued and not behind


def _is_ordinal(tokens: list[Token], at: int) -> bool:
    token = tokens[at]
    return token.text[0].isdigit() or token.lower in {"st", "nd", "rd", "th"}


def _number_after(tokens: list[Token], at: int) -> int | None:
    """The number right behind `at`, a comma, full stop, "no" or "#" between allowed."""
    i = at + 1
    while i < len(tokens) and i - at <= 3 and (tokens[i].text in ",.#:\x02" or tokens[i].lower in {"no", "nr", "n"}):  # noqa: PLR2004
        i += 1
    return i if i < len(tokens) and _is_number(tokens, i) else None


def _next(tokens: list[Token], at: int) -> int | None:
    i = at + 1
    if i < len(tokens) and tokens[i].text == ",":
        i += 1
    return i if i < len(tokens) and tokens[i].text[0] != "\n" else None


def _capital(token: Token) -> bool:
    return token.text[0].isupper() or token.text[0] == "\x01"


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
_TOWN_WORDS = frozenset(
    "new old east west north south port lake saint san santa great little upper lower fort mount united republic".split()
)
_PREFIX_WORDS = frozenset(
    "via place av al bd quai corso plaza avenue boulevard passage square route cours villa cite jalan".split()
)
