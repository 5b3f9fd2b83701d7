"""The packaged word list: which words are ordinary, which are first names, which are surnames."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files

COMMON, FIRST, LAST, OFTEN, PROPER, FOREIGN, GERMAN = (1 << i for i in range(7))
"""Flags of a word: ordinary, first name, surname, very frequent, other proper name, ordinary only outside English,
ordinary in German (where every noun has a capital); "will" has several."""

NAME = FIRST | LAST


@cache
def lexicon() -> dict[str, int]:
    """Word -> flags, lower case and without accents; read once from the package."""
    packed = files("streams.scrub").joinpath("data/lexicon.txt.gz").read_bytes()
    table: dict[str, int] = {}
    for line in gzip.decompress(packed).decode("ascii").splitlines():
        flags, _, words = line.partition(" ")
        table.update(dict.fromkeys(words.split(" "), int(flags)))
    return table


def is_common(word: str) -> bool:
    """Whether a lower-case word is ordinary English (names that are words included)."""
    return bool(lexicon().get(word, 0) & COMMON)


def is_foreign(word: str) -> bool:
    """Whether a lower-case word is ordinary in another language and not in English."""
    return bool(lexicon().get(word, 0) & FOREIGN)


def is_frequent(word: str) -> bool:
    """Whether a lower-case word is among the commonest of English, or is ordinary in another language."""
    return bool(lexicon().get(word, 0) & (OFTEN | FOREIGN))


def is_name(word: str) -> bool:
    """Whether a lower-case word is a known first name or surname."""
    return bool(lexicon().get(word, 0) & NAME)
