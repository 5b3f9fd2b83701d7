"""Mistyped key words: an unknown word that is one edit away from a word that announces a value means that word."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from streams.scrub.keywords import KEYS
from streams.scrub.secrets import PASSWORD_WORDS

MIN_LENGTH = 5
"""Letters of the shortest key word that is recognised mistyped; shorter ones are near too many words."""


def intended(word: str) -> str:
    """The key word that an unknown lower-case word was meant to be, empty if none is one edit away.

    An edit is a letter left out, added, replaced, or two neighbours exchanged; the first letter stands.
    """
    if len(word) < MIN_LENGTH - 1 or len(word) > MAX_LENGTH or not word.isalpha():
        return ""
    shorter = _by_shorter()
    for candidate in (word, *_shortened(word)):
        for key in shorter.get(candidate, ()):
            if key[0] == word[0] and _is_one_edit(word, key):
                return key
    return ""


MAX_LENGTH = 24
"""Letters of the longest word that is looked at."""


@cache
def _by_shorter() -> dict[str, tuple[str, ...]]:
    """Every key word, and it with any one letter left out, -> the key words it may stand for."""
    found: dict[str, list[str]] = {}
    for key in sorted({*KEYS, *PASSWORD_WORDS}):
        if len(key) >= MIN_LENGTH and key.isalpha():
            for form in (key, *_shortened(key)):
                found.setdefault(form, []).append(key)
    return {form: tuple(keys) for form, keys in found.items()}


def _shortened(word: str) -> Iterable[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


def _is_one_edit(word: str, key: str) -> bool:
    """Whether two words that share a form with at most one letter left out are one edit apart."""
    if abs(len(word) - len(key)) == 1:
        return True
    wrong = [i for i, (a, b) in enumerate(zip(word, key, strict=True)) if a != b]
    return len(wrong) == 1 or (len(wrong) == 2 and _exchanged(word, key, *wrong))  # two neighbours


def _exchanged(word: str, key: str, first: int, second: int) -> bool:
    return second == first + 1 and word[first] == key[second] and word[second] == key[first]
