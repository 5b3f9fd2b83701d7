"""The gate: one look at a text that says which detectors can possibly find something in it.

A detection text is ASCII, so its bytes are its characters, and `bytes.translate` classifies all of them in a
fraction of a microsecond. What stands between two spaces gives a set of flags from one bounded table, made of those of
its words at its first appearance; their union opens detectors. Every test is a superset of what its detectors need.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import reduce
from operator import or_
from typing import NamedTuple

from streams.scrub import contacts, keyed, keywords, persons, secrets, separated, spelled, streets
from streams.scrub.lexicon import COMMON, NAME, OFTEN, lexicon
from streams.scrub.numbers import MIN_DIGITS
from streams.scrub.remembered import LONGEST_WORD, Remembered
from streams.scrub.spans import Overflow
from streams.scrub.typos import intended

(
    UNUSUAL, KEYED, PASSWORD, SPELLED, STREET, STREET_ALONE, AT, DOMAIN, SQUASHED, LOGIN, MIXED, ID, NAMED,
    STREET_SMALL, TRIGGER, LAST, BUT_LAST, AFTER, PLACE, WAY, DIGIT, LONG, CAPITALS, BRACKET, ODD,
    WORDLESS,
) = (1 << i for i in range(26))  # fmt: skip
"""What a word can open: names, values behind key words, passwords, number words, streets with and without a
number, spelled-out addresses (two flags), addresses without signs, logins, letters with digits, such with digits enough
for an id, "name", streets in lower case, what stands before names (a word alone, the last of several, the last but one)
and after them, what stands before a street without a number, or is its first word. Of pieces between spaces: that they
hold a digit, a string long enough for a key, capitals that may be a code, a bracket that may hold an at-sign, an odd
separator, no word."""


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

HARMLESS = re.compile("[ -~\n\t\r\u00a3\u20ac\u00c0-\u00ff\u2010-\u201f]*")
"""ASCII, currencies, Latin letters, dashes and quotation marks: nothing that becomes a digit, an `@`, `.` or `:`."""

WORDS = _table("'-_/\x01")
CLASSES = _classes()
SOLID = _solid()
_LONG_TOKENS = re.compile(rb"a{14,}")
"""Shorter strings are no key, no hash and no hardware address."""

CACHE_WORDS = 100_000
"""Words whose flags are remembered; the table is emptied when it is full and never leaves memory."""

FEW_MEANINGS = 4_096
"""Pieces with key words whose meanings are remembered."""

ID_DIGITS = 5
"""Digits of the shortest id that shows by its form alone."""

FEW_TOKENS = 1_000
"""Words and signs of a text up to which it may be as dense as it likes."""
DENSEST = 0.29
"""Words and signs per character of a longer one: English has 0.2, Vietnamese 0.26."""
_TOKEN = re.compile(r"[A-Za-z\x01]+|\d+|[^\sA-Za-z\d]")


class Look(NamedTuple):
    """What the gate saw of a detection text."""

    text: str
    pieces: list[str]
    """What stands between its spaces."""
    each: list[int]
    """The flags of each piece."""
    flags: int
    """What they open together."""
    digits: int
    """How many digits it holds."""

    def words(self) -> list[bytes]:
        """Its words as written, in order."""
        return _words(self.text)

    def marked(self, flag: int) -> list[bytes]:
        """The words that carry a flag; those of a piece that comes again once."""
        pieces = {piece for piece, flags in zip(self.pieces, self.each, strict=True) if flags & flag}
        return [word for piece in pieces for word in _words(piece) if _flags[word] & flag]

    def several(self, flag: int) -> bool:
        """Whether two words or more carry a flag."""
        return sum(flags & flag > 0 for flags in self.each) > 1 or len(self.marked(flag)) > 1

    def standing(self, flag: int) -> list[tuple[int, str]]:
        """The pieces that carry a flag, and where they stand."""
        found, at = [], 0
        for piece, flags in zip(self.pieces, self.each, strict=True):
            if flags & flag:
                found.append((at, piece))
            at += len(piece) + 1
        return found

    def long_tokens(self) -> list[tuple[int, int]]:
        """Where unbroken strings stand that may be a key or a hardware address."""
        return [(at + a, at + b) for at, piece in self.standing(LONG) for a, b in _long_runs(piece)]

    def having(self, flag: int) -> set[str]:
        """The words, as written, that carry a flag."""
        return {word.decode() for word in self.marked(flag)}

    def announced(self) -> set[str]:
        """The unusual words that stand behind a trigger of names, or before what follows a name."""
        pieces, each = self.pieces, self.each
        if self.flags & WORDLESS:  # signs of their own part no words
            pieces = [piece for piece, flags in zip(pieces, each, strict=True) if not flags & WORDLESS]
            each = [flags for flags in each if not flags & WORDLESS]
        found: set[str] = set()
        around = [0, 0, *each, 0]
        for i in [i for i, flags in enumerate(each) if flags & UNUSUAL]:
            before = around[i + 1] | around[i + 2]
            if (
                before & TRIGGER
                or (before & LAST and (before | around[i]) & BUT_LAST)
                or (around[i + 2] | around[i + 3]) & AFTER
            ):
                found |= _announced(_words(" ".join(pieces[max(0, i - 2) : i + 3])))
        return found

    def unnumbered(self) -> bool:
        """Whether a street may be told without a number: "on Oak Lane"."""
        if self.flags & WAY:
            return True
        words = self.words()
        each = list(map(_flags.__getitem__, words))
        for at in [i for i, flags in enumerate(each) if flags & STREET_ALONE]:
            for i in range(max(1, at - 3), at):
                if each[i - 1] & PLACE and (each[i] & UNUSUAL or len(words[i]) == 1 or not words[i].isalpha()):
                    return True
        return False

    def of(self, flag: int, table: Container[str]) -> dict[str, str]:
        """Words that carry a flag, compounds' parts included, in lower case -> the words of `table` that they mean."""
        found: dict[str, str] = {}
        for piece, flags in zip(self.pieces, self.each, strict=True):
            if flags & flag:
                for part, intent in _meanings[piece]:
                    if (meant := part if part in table else intent) in table:
                        found[part] = meant
        return found


def _words(text: str) -> list[bytes]:
    """The words of a text or a piece as written, in order."""
    return text.encode().translate(WORDS).split()


def _announced(words: list[bytes]) -> set[str]:
    around = [0, 0, *map(_flags.__getitem__, words), 0]
    return {
        word.decode()
        for i, word in enumerate(words)
        if around[i + 2] & UNUSUAL
        and (
            around[i + 1] & TRIGGER
            or (around[i + 1] & LAST and around[i] & BUT_LAST)
            or (around[i + 3] & AFTER and (words[i + 1] != b"on" or b"".join(words[i + 2 : i + 3]).lower() == b"the"))
        )
    }


def _flags_of_piece(piece: str) -> int:
    """What the words of a piece open together, and what the piece itself holds."""
    words = _words(piece)
    flags = reduce(or_, map(_flags.__getitem__, words), 0 if words else WORDLESS)
    if len(words) == 1 and piece[-1] in _ENDS:  # no name stands behind "your name, please"
        flags &= ~NAMED
    flags |= DIGIT * (digit_count(piece) > 0) | LONG * any(not _is_plain(piece[a:b]) for a, b in _long_runs(piece))
    flags |= CAPITALS * (keyed.LETTERS_ONLY.search(piece) is not None)
    flags |= BRACKET * (not _BRACKETS.isdisjoint(piece)) | ODD * (not _ODD.isdisjoint(piece))
    return _same.setdefault(flags, flags)


_ENDS = frozenset(",.;?!)")
"""Signs that a name does not begin with."""
_BRACKETS = frozenset(contacts.OPENING)
_ODD = frozenset(separated.SIGNS)
_same: dict[int, int] = {}
"""One object for each of the few sums of flags: equal numbers far apart cost the processor's caches."""
_CONTRACTED = re.compile(r"(?:n't|'(?:s|m|d|ll|re|ve|t)?)$")


def look(text: str) -> Look:
    """Look at a detection text (ASCII). Raises Overflow for a flood of single characters and tiny words."""
    if len(text) > FEW_TOKENS:
        _refuse_flood(text)
    pieces = text.split(" ")
    each = list(map(_pieces.__getitem__, pieces))
    flags = reduce(or_, filter(None, each), 0)
    return Look(text, pieces, each, flags, digit_count(text) if flags & DIGIT else 0)


def _refuse_flood(text: str) -> None:
    """Raise Overflow if a long text has more words and signs than any language's has: their number bounds our time."""
    tokens = len(_TOKEN.findall(text))
    if tokens > FEW_TOKENS and tokens > DENSEST * len(text):
        raise Overflow


def is_quiet(text: str) -> bool:
    """Whether a text of ASCII and harmless characters has too few digits for any number, and no `@`."""
    rest = text.encode("ascii", "ignore").translate(None, QUIET)
    if len(rest) < 4:  # the shortest address of a machine
        return b"@" not in rest
    return len(rest) < MIN_DIGITS and b"@" not in rest and text.count(".") < 3 and text.count(":") < 2


def _long_runs(text: str) -> list[tuple[int, int]]:
    """Where unbroken strings stand that are long enough for a key or a hardware address."""
    return [match.span() for match in _LONG_TOKENS.finditer(text.encode().translate(SOLID))]


def _is_plain(run: str) -> bool:
    """Whether such a string is a word in small letters, but for its first: no key, no address."""
    return run.isalpha() and run[1:].islower()


def digit_count(text: str) -> int:
    """How many digits an ASCII text holds."""
    return len(text.encode().translate(None, NOT_DIGITS))


def flags_of(word: str) -> int:
    """What one word opens, the parts of a compound included."""
    parts = {part for part in _SIGNS.split(word) if part} - {word}
    flags = reduce(or_, (_flags[part.encode()] for part in parts), 0)
    if len(word) <= LONGEST_WORD:
        return flags | _word_flags(word, word.lower())
    return flags | UNUSUAL | _mixed(word)


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
    if lower in streets.FIRST or (lower in streets.PREFIXES and not lexicon().get(lower, 0) & OFTEN):
        flags |= WAY
    if lower.endswith(streets.COMPOUNDS):
        flags |= STREET
    if lower.endswith(contacts.SQUASHED):
        flags |= SQUASHED
    return flags | _mixed(word)


def _mixed(word: str) -> int:
    """The flags of a word that holds digits, and not them alone."""
    digits = digit_count(word)
    return MIXED | ID * (digits >= ID_DIGITS - 2) if 0 < digits < len(word) else 0  # dots between its parts hide some


def _is_plain_way(lower: str) -> bool:
    """Whether another language's word for street is a very frequent English word ("so", "per")."""
    return lower in streets.WAYS and bool(lexicon().get(lower, 0) & OFTEN)


def _meanings_of(piece: str) -> tuple[tuple[str, str], ...]:
    """The parts of compounds and the words with a meaning in a piece, in lower case, each with the key word meant."""
    words = [word.decode().lower() for word in _words(piece) if _flags[word] & (KEYED | LOGIN | PASSWORD)]
    return tuple((part, _meant(part)) for word in words for part in {word, *_SIGNS.split(word)})


def _meant(lower: str) -> str:
    """The key word that a word which no list holds was meant to be."""
    return "" if lexicon().get(lower) else intended(lower)


_flags = Remembered[bytes, int](lambda word: flags_of(word.decode()), CACHE_WORDS)
_pieces = Remembered[str, int](_flags_of_piece, CACHE_WORDS)
_meanings = Remembered[str, tuple[tuple[str, str], ...]](_meanings_of, FEW_MEANINGS)
_SETS = (
    (frozenset(keywords.KEYS), KEYED), (keywords.LOGINS, LOGIN),
    (secrets.PASSWORD_WORDS | secrets.ANSWER_WORDS, PASSWORD), (spelled.WORDS, SPELLED),
    (contacts.AT_WORDS, AT), (contacts.DOMAIN_WORDS, DOMAIN), (persons.NAME_WORDS, NAMED),
    (streets.PLACES, PLACE), (persons.TRIGGERS, TRIGGER), (persons.LAST, LAST),
    (persons.BUT_LAST, BUT_LAST), (persons.FOLLOWERS, AFTER),
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
