"""The gate: one look at a text that says which detectors can possibly find something in it.

A detection text is ASCII, so its bytes are its characters, and `bytes.translate` classifies all of them in a
fraction of a microsecond. Sets of words do the rest. Every test is a superset of what its detectors need.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from streams.scrub.lexicon import COMMON, NAME, OFTEN, lexicon


def _table(kept: str, fold: bool) -> bytes:
    """A translation that keeps ASCII letters, digits and `kept`, and makes everything else a space."""
    out = bytearray(b" " * 256)
    for code in range(128):
        char = chr(code)
        if char.isalnum() or char in kept:
            out[code] = ord(char.lower() if fold else char)
    return bytes(out)


def _classes() -> bytes:
    """Letters to `a`, digits to `0`, the signs inside ids to `-`, the rest to spaces."""
    out = bytearray(b" " * 256)
    for code in range(128):
        char = chr(code)
        out[code] = ord("a" if char.isalpha() else "0" if char.isdigit() else "-" if char in "-_/.#" else " ")
    return bytes(out)


def _solid() -> bytes:
    """Characters that keys, links and hardware addresses are made of to `a`, the rest to spaces."""
    allowed = "-_./+=:@"
    return bytes(ord("a") if chr(b).isalnum() and b < 128 or chr(b) in allowed else 0x20 for b in range(256))  # noqa: PLR2004 - ASCII


NOT_DIGITS = bytes(b for b in range(256) if not 0x30 <= b <= 0x39)
FOLDED = _table("'", fold=True)
CASED = _table("'-\x01", fold=False)
CLASSES = _classes()
SOLID = _solid()
LONG_TOKEN = b"a" * 16
"""Shorter strings are no key, no hash and no hardware address."""


class Look(NamedTuple):
    """What the gate saw of a detection text."""

    raw: bytes
    words: set[bytes]
    """Its words in lower case."""
    digits: int
    """How many digits it holds."""
    classes: bytes
    """Its characters by class."""


def look(text: str) -> Look:
    """Look at a detection text (ASCII)."""
    raw = text.encode()
    return Look(raw, set(raw.translate(FOLDED).split()), len(raw.translate(None, NOT_DIGITS)), raw.translate(CLASSES))


def has_long_token(raw: bytes) -> bool:
    """Whether an unbroken string is long enough for a key or a hardware address."""
    return LONG_TOKEN in raw.translate(SOLID)


def digit_count(text: str) -> int:
    """How many digits an ASCII text holds."""
    return len(text.encode().translate(None, NOT_DIGITS))


@cache
def ordinary() -> frozenset[bytes]:
    """Words as written that are never scored as names: ordinary ones, and frequent ones with a capital."""
    table: set[bytes] = set()
    for word, flags in lexicon().items():
        if flags & COMMON:
            table.add(word.encode())
            if flags & OFTEN and not flags & NAME:
                table.update((word.capitalize().encode(), word.upper().encode()))
    table.update(bytes([b]) for b in range(0x21, 0x7F))
    return frozenset(table)


def unusual(raw: bytes) -> set[bytes]:
    """The words as written that might be names: unknown, capitalised or known as such."""
    return {w for w in set(raw.translate(CASED).split()).difference(ordinary()) if not w.isdigit()}
