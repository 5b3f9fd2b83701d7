"""Mistyped key words: an unknown word that is one edit away from a word that announces a value means that word."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

from streams.scrub.keywords import KEYS
from streams.scrub.lexicon import OFTEN, lexicon
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


def is_slip(word: str) -> bool:
    """Whether an unknown word is a frequent one with a letter left out, doubled, or exchanged with the next."""
    if not MIN_LENGTH <= len(word) <= MAX_LENGTH or not word.isalpha():
        return False
    if any(a == b and _is_frequent(word[:i] + word[i + 1 :]) for i, (a, b) in enumerate(pairwise(word))):
        return True
    if any(_is_frequent(word[:i] + word[i + 1] + word[i] + word[i + 2 :]) for i in range(1, len(word) - 1)):
        return True
    return word in _cut()


def _is_frequent(word: str) -> bool:
    return bool(lexicon().get(word, 0) & OFTEN)


@cache
def _cut() -> frozenset[str]:
    """Every frequent word of some length with one letter left out, none of the first."""
    words = (word for word, flags in lexicon().items() if flags & OFTEN and len(word) > MIN_LENGTH and word.isalpha())
    return frozenset(word[:i] + word[i + 1 :] for word in words for i in range(2, len(word)))


def _is_one_edit(word: str, key: str) -> bool:
    """Whether two words that share a form with at most one letter left out are one edit apart."""
    if abs(len(word) - len(key)) == 1:
        return True
    wrong = [i for i, (a, b) in enumerate(zip(word, key, strict=True)) if a != b]
    return len(wrong) == 1 or (len(wrong) == 2 and _exchanged(word, key, *wrong))  # two neighbours


def _exchanged(word: str, key: str, first: int, second: int) -> bool:
    return second == first + 1 and word[first] == key[second] and word[second] == key[first]
