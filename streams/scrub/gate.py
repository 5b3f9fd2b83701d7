"""The gate: one look at a text that says which detectors can possibly find something in it.

A detection text is ASCII, so its bytes are its characters, and `bytes.translate` classifies all of them in a
fraction of a microsecond. Each distinct word then gives a set of flags from one bounded table; their union
opens detectors. Every test is a superset of what its detectors need.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import reduce
from operator import or_
from typing import NamedTuple

from streams.scrub import contacts, keywords, persons, secrets, spelled, streets
from streams.scrub.lexicon import COMMON, NAME, OFTEN, lexicon
from streams.scrub.spans import Overflow
from streams.scrub.typos import intended

(
    UNUSUAL, KEYED, PASSWORD, SPELLED, STREET, STREET_ALONE, AT, DOMAIN, SQUASHED, LOGIN, MIXED, NAMED, STREET_SMALL,
    TRIGGER, AFTER,
) = (1 << i for i in range(15))  # fmt: skip
"""What a word can open: names, values behind key words, passwords, number words, streets with and without a
number, spelled-out addresses (two flags), addresses without signs, logins, ids, "name", streets in lower case,
and what stands before and after names."""


def _table(kept: str) -> bytes:
    """A translation that keeps ASCII letters, digits and `kept`, and makes everything else a space."""
    return bytes(b if b < 128 and (chr(b).isalnum() or chr(b) in kept) else 0x20 for b in range(256))  # ASCII


def _classes() -> bytes:
    """Letters to `a`, digits to `0`, the rest to spaces."""
    return bytes(
        ord("a" if chr(b).isalpha() else "0" if chr(b).isdigit() else " ") if b < 128 else 0x20 for b in range(256)
    )


def _solid() -> bytes:
    """Characters that keys, links and hardware addresses are made of to `a`, the rest to spaces."""
    return bytes(ord("a") if b < 128 and (chr(b).isalnum() or chr(b) in "-_./+=:@") else 0x20 for b in range(256))


NOT_DIGITS = bytes(b for b in range(256) if not 0x30 <= b <= 0x39)
_SIGNS = re.compile(r"[-_/']")
QUIET = bytes(b for b in range(0x20, 0x7F) if not chr(b).isdigit() and chr(b) != "@") + b"\n\t\r"
"""Characters that no number and no e-mail address is recognised by."""

WORDS = _table("'-_/\x01")
CLASSES = _classes()
SOLID = _solid()
_LONG_TOKEN = b"a" * 14
_LONG_TOKENS = re.compile(rb"a{14,}")
"""Shorter strings are no key, no hash and no hardware address."""

CACHE_WORDS = 100_000
"""Words whose flags are remembered; the table is emptied when it is full and never leaves memory."""


LONGEST_WORD = 40
"""Longer words are no words: they are not remembered."""

FEW_TOKENS = 1_000
"""Words and signs of a text up to which it may be as dense as it likes."""
DENSEST = 0.29
"""Words and signs per character of a longer one: English has 0.2, Vietnamese 0.26."""
_TOKEN = re.compile(r"[A-Za-z\x01]+|\d+|[^\sA-Za-z\d]")


class Look(NamedTuple):
    """What the gate saw of a detection text."""

    raw: bytes
    words: list[bytes]
    """Its words as written, in order."""
    each: list[int]
    """The flags of each word."""
    flags: int
    """What its words open together."""
    digits: int
    """How many digits it holds."""

    def count(self, flag: int) -> int:
        """How many words carry a flag."""
        return sum(each & flag > 0 for each in self.each)

    def marked(self, flag: int) -> list[bytes]:
        """The words that carry a flag."""
        return [w for w, flags in zip(self.words, self.each, strict=True) if flags & flag]

    def having(self, flag: int) -> set[str]:
        """The words, as written, that carry a flag."""
        return {w.decode() for w, flags in zip(self.words, self.each, strict=True) if flags & flag}

    def announced(self) -> set[str]:
        """The unusual words that stand behind a trigger of names, or before what follows a name."""
        words, each = self.words, self.each
        found = {
            w
            for w, flags, before in zip(words[1:], each[1:], each, strict=False)
            if flags & UNUSUAL and before & TRIGGER
        }
        if self.flags & AFTER:
            found.update(
                w for w, flags, behind in zip(words, each, each[1:], strict=False) if behind & AFTER and flags & UNUSUAL
            )
        return {w.decode() for w in found}

    def of(self, flag: int, table: Container[str]) -> dict[str, str]:
        """Words that carry a flag, compounds' parts included, in lower case -> the words of `table` that they mean."""
        found: dict[str, str] = {}
        for word in self.having(flag):
            lower = word.lower()
            for part in {lower, *_SIGNS.split(lower)}:
                meant = part if part in table else _meant(part)
                if meant in table:
                    found[part] = meant
        return found


class _Flags(dict[bytes, int]):
    """Flags of every word met, computed at its first appearance."""

    def __missing__(self, word: bytes) -> int:
        flags = flags_of(word.decode())
        if len(word) <= LONGEST_WORD:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[word] = flags
        return flags


_flags = _Flags()
_CONTRACTED = re.compile(r"(?:n't|'(?:s|m|d|ll|re|ve|t)?)$")


def look(text: str) -> Look:
    """Look at a detection text (ASCII). Raises Overflow for a flood of single characters and tiny words."""
    if len(text) > FEW_TOKENS:
        _refuse_flood(text)
    raw = text.encode()
    words = raw.translate(WORDS).split()
    each = list(map(_flags.__getitem__, words))
    return Look(raw, words, each, reduce(or_, each, 0), len(raw.translate(None, NOT_DIGITS)))


def _refuse_flood(text: str) -> None:
    """Raise Overflow if a long text has more words and signs than any language's has: their number bounds our time."""
    tokens = len(_TOKEN.findall(text))
    if tokens > FEW_TOKENS and tokens > DENSEST * len(text):
        raise Overflow


def is_quiet(text: str) -> bool:
    """Whether an ASCII text has too few digits for any number, and no `@`."""
    rest = text.encode().translate(None, QUIET)
    return len(rest) < 4 and b"@" not in rest  # the shortest IP address


def long_tokens(raw: bytes) -> list[tuple[int, int]]:
    """Where unbroken strings stand that are long enough for a key or a hardware address."""
    solid = raw.translate(SOLID)
    return [match.span() for match in _LONG_TOKENS.finditer(solid)] if _LONG_TOKEN in solid else []


def digit_count(text: str) -> int:
    """How many digits an ASCII text holds."""
    return len(text.encode().translate(None, NOT_DIGITS))


def flags_of(word: str) -> int:
    """What one word opens, the parts of a compound included."""
    parts = {part for part in _SIGNS.split(word) if part} - {word}
    flags = reduce(or_, (_flags[part.encode()] for part in parts), 0)
    if len(word) <= LONGEST_WORD:
        return flags | _word_flags(word, word.lower())
    digits = digit_count(word)
    return flags | UNUSUAL | (MIXED if 0 < digits < len(word) else 0)


def _word_flags(word: str, lower: str) -> int:
    flags = UNUSUAL if is_unusual(word, lower) else 0
    meant = _meant(lower)
    for words, flag in _SETS:
        if lower in words or meant in words:
            flags |= flag
    if lower in streets.EVIDENCE:
        strong = lower in streets.STRONG or (lower in streets.ANYWHERE and not _is_plain_way(lower))
        flags |= STREET if strong or not word.islower() else STREET_SMALL
        flags |= STREET_ALONE if lower in streets.STRONG or (lower in streets.SUFFIXES and not word.islower()) else 0
    if lower.endswith(streets.COMPOUNDS):
        flags |= STREET
    if lower.endswith(contacts.SQUASHED):
        flags |= SQUASHED
    digits = digit_count(word)
    return flags | (MIXED if digits and digits < len(word) else 0)


def _is_plain_way(lower: str) -> bool:
    """Whether another language's word for street is a very frequent English word ("so", "per")."""
    return lower in streets.WAYS and bool(lexicon().get(lower, 0) & OFTEN)


def _meant(lower: str) -> str:
    """The key word that a word which no list holds was meant to be."""
    return "" if lexicon().get(lower) else intended(lower)


_SETS = (
    (frozenset(keywords.KEYS), KEYED), (keywords.LOGINS, LOGIN),
    (secrets.PASSWORD_WORDS | secrets.ANSWER_WORDS, PASSWORD), (spelled.WORDS, SPELLED),
    (contacts.AT_WORDS, AT), (contacts.DOMAIN_WORDS, DOMAIN), (persons.NAME_WORDS, NAMED),
    (persons.TRIGGERS, TRIGGER), (persons.FOLLOWERS, AFTER),
)  # fmt: skip


def is_unusual(word: str, lower: str) -> bool:
    """Whether a word as written might be a name: unknown, capitalised, or known as one."""
    if not word[0].isalpha() and word[0] != "\x01":
        return False
    stem = _CONTRACTED.sub("", lower)
    if stem != lower:
        return is_unusual(word[: len(stem)], stem)
    if "-" in word or "/" in word or "'" in word:
        return any(is_unusual(part, part.lower()) for part in _SIGNS.split(word) if part)
    flags = lexicon().get(lower, 0)
    if word == lower:
        return not flags & COMMON
    return len(word) > 1 and not (flags & OFTEN and not flags & NAME)
