"""Detection text: the ASCII form that detectors read, with the way back to the original characters.

Every detector runs on printable ASCII. Digits of every script and every compatibility form become 0-9,
accents are dropped, Cyrillic and Greek letters are transliterated, dashes and spaces of every kind become
`-` and ` `, format characters and other ignorables vanish. Letters of scripts without a Latin reading
become `LETTER`, every other symbol `SYMBOL`, so that positions in scripts stay visible.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from streams.scrub.remembered import Remembered

LETTER = "\x01"
"""Stands for a letter that has no Latin reading (Han, Arabic, Devanagari ...)."""

SYMBOL = "\x02"
"""Stands for an emoji or another symbol without an ASCII form."""

_KEPT = bytes(range(0x20, 0x7F)) + b"\n\t\r"
_TWO_SCRIPTS = re.compile("[\u0370-\u052f]")
_LETTERS = re.compile(r"[^\W\d_]+")

_CYRILLIC = dict(
    zip("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґўјљњћђџ", "abvgdejziiklmnoprstufhccss'i'euaeiieguilnhdj", strict=True)
)
_GREEK = dict(zip("αβγδεζηθικλμνξοπρσςτυφχψω", "abgdeziuiklmnxoprsstifhpo", strict=True))
_LATIN = dict(
    zip("ßøłđæœþðıħŋəŧĸ", ("ss", "o", "l", "d", "ae", "oe", "th", "d", "i", "h", "n", "e", "t", "k"), strict=True)
)
_LOOKALIKE = dict(zip("авеkкмнорстухіјѕԁԛԝһαβγεηικνορτυχωἐ", "abekkmhopctyxijsdqwhabyenikvoptuxwe", strict=True))
"""What a Cyrillic or Greek letter looks like beside Latin ones (a disguise), not how it sounds."""

_MARKS = dict(zip("’‘‛ʼ´“”„«»·•‧。、،⁄∕×№", "'''''\"\"\"\"\".*..,,//x#", strict=True))
_IGNORED = frozenset("\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0\u034f")


class Plain(NamedTuple):
    """Detection text and, unless it is the original itself, the source index of each of its characters."""

    text: str
    source: list[int] | None
    """One index per character, and the length of the original at the end."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that [start, end) of the detection text came from."""
        if self.source is None:
            return start, end
        return self.source[start], max(self.source[end - 1] + 1, self.source[end])


def normalise(text: str) -> Plain:
    """The detection text of `text`; the identity for printable ASCII."""
    if text.isascii() and not text.encode().translate(None, _KEPT):
        return Plain(text, None)
    folded = list(map(_folded.__getitem__, text))
    for i in _disguised(text):
        folded[i] = _LOOKALIKE_CASED.get(text[i], folded[i])
    plain = "".join(folded)
    if len(plain) == len(text) and "" not in folded:  # one character for each
        return Plain(plain, list(range(len(text) + 1)))
    return Plain(plain, [i for i, produced in enumerate(folded) for _ in produced] + [len(text)])


def _disguised(text: str) -> set[int]:
    """Positions of Cyrillic and Greek letters inside words that also hold Latin ones."""
    if not _TWO_SCRIPTS.search(text):
        return set()
    found: set[int] = set()
    for word in _LETTERS.finditer(text):
        if any(c < "\u0250" for c in word[0]) and _TWO_SCRIPTS.search(word[0]):
            found.update(range(*word.span()))
    return found


def _fold(char: str) -> str:
    """The ASCII that stands for one character; empty for ignorables, marks and control characters."""
    if " " <= char <= "~" or char in "\n\t\r":
        return char
    category = unicodedata.category(char)
    if category in {"Cc", "Zs", "Zl", "Zp"}:
        return _space(char, category)
    if category[0] == "M" or category == "Cf" or char in _IGNORED:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return _symbol(char, category) if category[0] in "PS" else _letter(char)


def _space(char: str, category: str) -> str:
    if category == "Cc" and char not in "\x0b\x0c\x1c\x1d\x1e\x1f\x85":
        return ""
    return "\n" if category in {"Zl", "Zp"} or char == "\x85" else " "


def _symbol(char: str, category: str) -> str:
    if category == "Pd" or char in "−⁃➖":
        return "-"
    if char in _MARKS:
        return _MARKS[char]
    return "$" if category == "Sc" else _compatible(char) or SYMBOL


def _letter(char: str) -> str:
    lower = char.lower()
    for table in (_LATIN, _CYRILLIC, _GREEK):
        if lower in table:
            found = table[lower]
            return found if lower == char else found.upper()
    return _compatible(char) or (LETTER if char.isalpha() or char.isnumeric() else SYMBOL)


def _compatible(char: str) -> str:
    """The folding of the character's compatibility form, empty if it has none but itself."""
    form = unicodedata.normalize("NFKD", char)
    return "" if form == char else "".join(_fold(c) for c in form)


_folded = Remembered[str, str](_fold, 4_096)


_LOOKALIKE_CASED = {**_LOOKALIKE, **{k.upper(): v.upper() for k, v in _LOOKALIKE.items() if len(k.upper()) == 1}}
