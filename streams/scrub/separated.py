"""Numbers and ids cut by signs that nobody puts into a number: bars, stars, tildes, tabs, bullets, commas."""

from __future__ import annotations

import re

from streams.scrub.normalise import SYMBOL
from streams.scrub.numbers import context_of, label_of_digits
from streams.scrub.spans import Span

SIGNS = f"|*~;\t{SYMBOL}"
"""Signs between groups; commas and spaced dashes need more evidence."""

_ODD = re.compile(
    rf"(?<![A-Za-z0-9])[A-Za-z0-9]{{1,6}}( ?[{re.escape(SIGNS)}]{{1,2}} ?|, ?| - |\.{{3}})[A-Za-z0-9]{{1,6}}"
    r"(?:\1[A-Za-z0-9]{1,6}){1,38}(?![A-Za-z0-9])"
)
LONG_SPACED = 22
"""Shorter texts hold no account number of single characters."""
MIN_DIGITS = 6
"""Digits of the shortest value that is recognised by its signs alone."""
_SPACED = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z0-9] {1,2}){11,40}[A-Za-z0-9](?![A-Za-z0-9])")
"""Single characters, a space apart: an account number spelled out."""
_COUNTRY = re.compile(r"[A-Za-z]{2}(?:\d{0,2})$")


def may_hold(text: str) -> bool:
    """Whether a text beside a key word has commas, dashes, dots or spaces between groups."""
    return text.count(", ") > 2 or " - " in text or "..." in text or bool(_SINGLES.search(text))


_SINGLES = re.compile(r"\d(?<= \d) {1,2}\d {1,2}\d ")


def find_separated(text: str, lower: str) -> list[Span]:
    """Spans of values whose groups all stand the same odd sign apart."""
    found: list[Span] = []
    for match in _ODD.finditer(text):
        groups = match[0].split(match[1])
        digits = "".join(c for c in match[0] if c.isdigit())
        numbered = sum(any(c.isdigit() for c in group) for group in groups)
        context = context_of(lower, match.start())
        country = bool(_COUNTRY.match(groups[0])) and numbered >= len(groups) // 2
        single = len(groups) >= 2 * MIN_DIGITS - 4 and all(len(group) == 1 for group in groups)
        if len(digits) < MIN_DIGITS - single or not (country or single or 3 * numbered >= 2 * len(groups)):
            continue
        if match[1].strip() in {",", "-"} and not (country or context):
            continue
        pure = len(digits) == sum(map(len, groups))
        label = label_of_digits(lower, match.start(), digits) if pure else "IBAN" if country else context
        found.append((*match.span(), label or "ACCOUNT_ID"))
    if len(text) > LONG_SPACED:
        found += [
            (*m.span(), "IBAN") for m in _SPACED.finditer(text) if 2 * sum(c.isdigit() for c in m[0]) >= MIN_DIGITS + 4
        ]
    return found
