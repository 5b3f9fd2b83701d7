"""Words of scripts without a Latin reading (Han, Arabic, Devanagari ...) inside text that is otherwise Latin.

Somebody who writes English and drops four characters of another script gives a name or an address. In text
that is mostly of such a script the triggers of scripts.py decide instead.
"""

from __future__ import annotations

import re

from streams.scrub.normalise import LETTER
from streams.scrub.spans import Span

_RUN = re.compile(rf"{LETTER}+(?:(?:[ .,'()/\-\d]{{1,8}}|[ ]?[A-Za-z]\.?[ ]?){LETTER}+)*")
_LATIN = re.compile(r"[A-Za-z]")
_NEAR_NUMBER = re.compile(r"\d[\w/\-]{0,8}[ ,.]{0,3}$")
MOSTLY = 0.8
"""Share of such letters from which a text counts as written in their script."""


def find_foreign(text: str) -> list[Span]:
    """Spans of the runs of foreign letters, persons unless a number stands beside them."""
    foreign = text.count(LETTER)
    if foreign >= MOSTLY * (foreign + len(_LATIN.findall(text))):
        return []
    found: list[Span] = []
    for match in _RUN.finditer(text):
        start, end = match.span()
        beside = (
            any(c.isdigit() for c in match[0])
            or bool(_NEAR_NUMBER.search(text, max(0, start - 12), start))
            or text[end : end + 4].strip(" ,.")[:1].isdigit()
        )
        if beside:
            start, end = _numbers_around(text, start, end)
        found.append((start, end, "ADDRESS" if beside else "PERSON"))
    return found


def _numbers_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The run with the numbers that touch it."""
    before = re.search(r"[\d/\-]{1,8}[ ,.]{0,3}$", text[max(0, start - 12) : start])
    after = re.match(r"(?:[ ,.\-]{0,3}[\d/\-]{1,8}[A-Za-z]?){1,4}", text[end : end + 40])
    return start - (len(before[0]) if before else 0), end + (len(after[0]) if after else 0)
