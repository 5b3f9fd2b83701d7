"""Where in a text an address may stand: around words for streets with a number near them, and around postal codes.

Only these windows are tokenised, so that a long text pays for its addresses and not for its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from streams.scrub import streets
from streams.scrub.addresses import find_addresses
from streams.scrub.spans import Overflow, Span

MIN_CODED = 5
"""Digits of a postal code and a house number."""
WHOLE = 160
"""Characters up to which a text is one window."""
BEFORE, BEHIND = 90, 220
"""Characters of an address on both sides of what shows it."""
MAX_SPOTS = 200
"""Spots looked at in one turn; more are a flood of street names."""

_CODE_AND_TOWN = re.compile(
    r"\d(?<![\w.,:$\-]\d)(?:\d{3,5}|\d{2} \d{2}|\d{3,4}-\d{3,4}|\d{3} ?[A-Z]{2})[ ,\n]{1,3}[A-Za-z\x01]{3}",
    re.ASCII,
)
"""What begins with a digit, and looks behind it afterwards, is tried at digits only, not at every character."""
_HOUSE_NUMBER = re.compile(
    r"\d(?<![\d:.,$]\d)\d{0,5}(?![\d:%]| ?[ap]m\b| (?:minutes?|mins?|hours?|days?|weeks?|months?|years?|times|people|"
    r"credits|points|dollars|euros|pounds|percent|items|stars|miles|km)\b)",
    re.ASCII,
)
_REACH = 48
"""Characters between the words of a street and its number."""


def find_places(text: str, words: Iterable[str]) -> list[Span]:
    """Spans of addresses around `words`, as they stand in the text."""
    return _in_windows(text, sorted(_spots(text, words)), streets_known=True)


def find_coded(text: str) -> list[Span]:
    """Spans of addresses around postal codes that a town follows."""
    spots = [match.start() for match in _CODE_AND_TOWN.finditer(text)]
    return _in_windows(text, spots[:MAX_SPOTS], streets_known=False)


def _spots(text: str, words: Iterable[str]) -> set[int]:
    """Where words stand that have a house number where they would have it; few, in any order."""
    found: set[int] = set()
    for word in words:
        lower = word.lower()
        ends = lower in streets.SUFFIXES and lower not in streets.PREFIXES
        leads, follows = not ends or lower in streets.STRONG, ends or lower in streets.WAYS
        at = text.find(word)
        while at >= 0:
            if len(found) >= MAX_SPOTS:
                raise Overflow
            end = at + len(word)
            if (leads and _HOUSE_NUMBER.search(text, end, end + _REACH)) or (
                follows and _HOUSE_NUMBER.search(text, max(0, at - _REACH), at)
            ):
                found.add(at)
            at = text.find(word, end)
    return found


def _in_windows(text: str, spots: list[int], *, streets_known: bool) -> list[Span]:
    if not spots:
        return []
    if len(text) <= WHOLE:
        return find_addresses(text, streets=streets_known)
    found: list[Span] = []
    for start, end in _windows(text, spots):
        inside = find_addresses(text[start:end], streets=streets_known)
        found += [(start + a, start + b, label) for a, b, label in inside]
    return found


def _windows(text: str, spots: list[int]) -> list[tuple[int, int]]:
    """Stretches of text around spots, cut at spaces where there are any; they do not overlap."""
    windows: list[tuple[int, int]] = []
    for spot in spots:
        start, end = max(0, spot - BEFORE), min(len(text), spot + BEHIND)
        start = max(text.rfind(" ", 0, start) + 1, start - _REACH, 0) if start else 0
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows
