"""Tokens of a text as addresses see them, and how an address grows to both sides of its core."""

from __future__ import annotations

import re

from streams.scrub.lexicon import COMMON, FOREIGN, NAME, OFTEN, PROPER, lexicon
from streams.scrub.streets import (
    CODES,
    COMPOUNDS,
    DETAILS,
    FLATS,
    HOUSE,
    HOUSES,
    LEADS,
    MILITARY,
    NUMBERED_PARTS,
    PARTICLES,
    PLACES,
    PREFIXES,
    STATES,
    STRONG,
    SUFFIXES,
    UNITS,
    WAYS,
)

_TOKEN = re.compile(
    r"[A-Za-z\x01](?:[A-Za-z\x01'\-]*[A-Za-z\x01])?|\d+(?:[oa]?[A-Za-z](?![A-Za-z]))?(?:[\-/]\d+[A-Za-z]?(?![A-Za-z]))?|"
    r"\n+|[^\sA-Za-z\d]"
)
MAX_GROWTH = 24
"""Tokens that an address grows to one side."""
SHORT = 6
"""Digits of the longest house number or postal code; longer runs are other numbers."""


NUMBER, JOINER, CAPITAL, MEMBER, SMALL, PART, OPENER, BEHIND, HOUSE_NUMBER = (1 << i for i in range(9))
"""Kinds of a token: a number, a sign between parts, a word with a capital; may be part of an address, may be one in a
text without capitals, is a part's or a street's own word; may begin a street, may stand in front of one; is short
enough for a house number."""
CACHE_WORDS = 20_000
"""Words whose kinds are remembered; the table is emptied when it is full and never leaves memory."""
LONGEST_WORD = 40
_NOT_DIGITS = bytes(b for b in range(256) if not 0x30 <= b <= 0x39)
JOINERS = frozenset(",.#-/()'\x02")


class Token:
    """A word, number or sign, what it is, and where it stands."""

    __slots__ = ("end", "flags", "kind", "lower", "start", "text")

    def __init__(self, match: re.Match[str]) -> None:
        self.start, self.end = match.span()
        self.text = text = match[0]
        self.lower, self.flags, self.kind = _words[text]
        """Text in lower case, lexicon flags, kinds."""


class _Words(dict[str, tuple[str, int, int]]):
    """What is looked up once of a word; numbers are too many to remember."""

    def __missing__(self, text: str) -> tuple[str, int, int]:
        lower = text.lower()
        flags = lexicon().get(lower, 0)
        word = lower, flags, _kind(text, lower, flags)
        if not text[0].isdigit() and len(text) <= LONGEST_WORD:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[text] = word
        return word


_words = _Words()


def _kind(text: str, lower: str, flags: int) -> int:
    first = text[0]
    if first.isdigit():
        digits = len(text.encode().translate(None, _NOT_DIGITS))
        short = len(text) <= SHORT + 5 and digits <= SHORT + 2
        return NUMBER | OPENER | MEMBER * (len(text) <= 2 * SHORT) | HOUSE_NUMBER * short
    if first == "\n" or text in JOINERS:
        return JOINER | MEMBER | BEHIND * (lower in _BEHIND)
    kind = BEHIND * (lower in _BEHIND) | OPENER * (lower in OPENERS or lower.endswith(COMPOUNDS))
    kind |= CAPITAL * (first.isupper() or first == "\x01") | PART * (lower in DETAILS or lower in WAYS)
    if first == "\x01":
        return kind | MEMBER
    if not first.isalpha() or lower in MONTHS:
        return kind
    return kind | _membership(text, lower, flags, kind)


def _membership(text: str, lower: str, flags: int, kind: int) -> int:
    """Whether a word may be part of an address: anywhere, or in a text without capitals."""
    often = bool(flags & OFTEN)
    if len(text) == 1 and kind & CAPITAL:  # "H-8133", "Ruta T-84"
        return MEMBER * (text != "I")
    if kind & PART:
        return MEMBER if kind & CAPITAL or not often else SMALL
    if kind & CAPITAL:
        return MEMBER * (not often or bool(flags & (PROPER | NAME)) or lower in SUFFIXES)
    if lower in PARTICLES or lower.endswith(COMPOUNDS):
        return MEMBER * (not often or lower in {"of", "the", "de", "la"})
    rare = not flags & (COMMON | FOREIGN) or bool(flags & (PROPER | NAME))
    return SMALL * (len(text) > 1 and not often and rare)


OPENERS = PREFIXES | FLATS | MILITARY | HOUSES | NUMBERED_PARTS | {"corner"}
"""Words that an address may begin with."""
_BEHIND = PLACES | LEADS | {"to", "is", ":"}
MONTHS = frozenset(
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec januar februar marz mai juni juli oktober dezember enero febrero marzo abril mayo junio "
    "julio agosto septiembre octubre noviembre diciembre janvier fevrier avril juin juillet aout septembre octobre "
    "novembre decembre monday tuesday wednesday thursday friday saturday sunday".split()
)


def tokenise(text: str) -> list[Token]:
    """The tokens of a detection text."""
    return list(map(Token, _TOKEN.finditer(text)))


def grow_left(tokens: list[Token], first: int) -> int:
    """The anchor's first token, with the number, "no" and "corner of" that stand before it."""
    while first > 0:
        before = tokens[first - 1]
        if (
            before.text == "." and first > 3 and tokens[first - 2].lower == "o" and tokens[first - 4].lower == "p"
        ):  # "P.O."
            first -= 4
        elif before.text == "." and first > 1 and tokens[first - 2].lower in HOUSE:
            first -= 2
        elif (is_number(tokens, first - 1) and first and tokens[first].text[0] != "\n") or before.lower in HOUSE:
            first -= 1
        elif (
            before.text == ","
            and first > 1
            and tokens[first - 2].text[0].isdigit()
            and len(tokens[first - 2].text) <= SHORT
        ):
            first -= 2
        elif before.lower in {"the", "po"} and tokens[first].lower in {"corner", "box"}:
            first -= 1
        else:
            break
    return first


def grow_right(tokens: list[Token], last: int) -> int:
    """The last token that still belongs: units, town, state, country, code, over commas and line breaks."""
    at = last + 1
    small = (
        last < 1 or tokens[last].lower in LEADS or not any(is_capital(t) for t in tokens[max(0, last - 3) : last + 1])
    )
    while at < len(tokens) and at - last < MAX_GROWTH:
        token = tokens[at]
        if token.text in {",", ">", "(", ")", "-", "?", "."} or token.text[0] == "\n":
            if token.text in {".", "?"} and not _continues(tokens, at):
                break
            at += 1
            continue
        if not _belongs(tokens, at, small=small):
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
    )


def _belongs(tokens: list[Token], at: int, *, small: bool) -> bool:
    """Whether the token at `at` can be part of an address that goes on."""
    token = tokens[at]
    if token.text[0].isdigit():
        glued = (
            at + 1 < len(tokens)
            and tokens[at + 1].start == token.end
            and tokens[at + 1].text[0].isalpha()
            and not CODES.match(token.text + tokens[at + 1].text)
        )
        return len(token.text) <= SHORT + 1 and not glued
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
        token.lower in SUFFIXES and (is_capital(token) or small or tokens[at - 1].text[0].isalpha())
    ):
        return True
    if token.lower in PARTICLES or (token.lower == "and" and at + 1 < len(tokens)):
        return at + 1 < len(tokens) and is_capital(tokens[at + 1]) and not tokens[at + 1].flags & OFTEN
    if (
        CODES.fullmatch(token.text)
        or (token.text.isupper() and len(token.text) == 2)
        or (token.lower in STATES and small)
    ):
        return True
    if is_capital(token):
        return (
            not token.flags & OFTEN
            or (bool(token.flags & PROPER) and not token.flags & COMMON)
            or _before_code(tokens, at)
        )
    if (
        len(token.text) <= 3 and not token.flags & OFTEN and at + 1 < len(tokens) and tokens[at + 1].text[0].isdigit()
    ):  # a state
        return True
    return small and (not token.flags & COMMON or bool(token.flags & PROPER) or token.lower in STRONG)


def _before_code(tokens: list[Token], at: int) -> bool:
    """An ordinary word in capitals that a town's rest or a code follows: "New Hope", "East Rock 4411"."""
    if tokens[at - 1].lower in _TOWN_WORDS and tokens[at].flags & NAME:
        return True
    return (
        at + 1 < len(tokens)
        and tokens[at].lower in _TOWN_WORDS
        and (is_capital(tokens[at + 1]) or tokens[at + 1].text[0].isdigit())
    )


def is_number(tokens: list[Token], at: int) -> bool:
    """Whether the token is a house number: short, not glued to letters, no decimal, no amount."""
    token = tokens[at]
    if not token.kind & HOUSE_NUMBER:
        return False
    glued = (
        at + 1 < len(tokens)
        and tokens[at + 1].start == token.end
        and (tokens[at + 1].text[0].isalpha() or tokens[at + 1].text in "%:$")
    )
    behind = at > 0 and tokens[at - 1].end == token.start and tokens[at - 1].text in "$:.-"
    return not glued and not behind


def is_ordinal(tokens: list[Token], at: int) -> bool:
    """Whether the token is a number or the rest of an ordinal ("3 rd")."""
    token = tokens[at]
    return token.text[0].isdigit() or token.lower in {"st", "nd", "rd", "th"}


def number_after(tokens: list[Token], at: int) -> int | None:
    """The number right behind `at`, a comma, full stop, "no" or "#" between allowed."""
    i = at + 1
    while i < len(tokens) and i - at <= 3 and (tokens[i].text in ",.#:\x02" or tokens[i].lower in {"no", "nr", "n"}):
        i += 1
    return i if i < len(tokens) and is_number(tokens, i) else None


def next_word(tokens: list[Token], at: int) -> int | None:
    """The token behind `at` on the same line, over a comma."""
    i = at + 1
    if i < len(tokens) and tokens[i].text == ",":
        i += 1
    return i if i < len(tokens) and tokens[i].text[0] != "\n" else None


def is_capital(token: Token) -> bool:
    """Whether the token begins with a capital, or with a letter of a script that has none."""
    return bool(token.kind & CAPITAL)


_TOWN_WORDS = frozenset(
    "new old east west north south port lake saint san santa great little upper lower fort mount united "
    "republic".split()
)
