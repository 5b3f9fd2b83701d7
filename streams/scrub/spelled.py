"""Digits written as words: "four one one two", "double seven", "oh", mixed with figures."""

from __future__ import annotations

import re

from streams.scrub.numbers import label_of_digits
from streams.scrub.spans import Overflow, Span

_DIGIT_WORDS = {
    word: str(digit)
    for words in (
        "zero one two three four five six seven eight nine",
        "null eins zwei drei vier funf sechs sieben acht neun",
        "cero uno dos tres cuatro cinco seis siete ocho nueve",
        "nought un deux trois quatre cinq six sept huit neuf",
        "naught uno due tre quattro cinque sei sette otto nove",
        "oh um dois tres quatro cinco seis sete oito nove",
        "nul een twee drie vier vijf zes zeven acht negen",
        "o ein zwo drei vier funf sechs sieben acht neun",
        "nil jeden dwa trzy cztery piec szesc siedem osiem dziewiec",
        "noll ett tva tre fyra fem sex sju atta nio",
        "nul en to tre fire fem seks syv otte ni",
        "nolla yksi kaksi kolme nelja viisi kuusi seitseman kahdeksan yhdeksan",
        "nula jedna dva tri ctyri pet sest sedm osm devet",
        "nulla egy ketto harom negy ot hat het nyolc kilenc",
        "zerou unu doi trei patru cinci sase sapte opt noua",
        "sifir bir iki uc dort bes alti yedi sekiz dokuz",
        "nol satu dua tiga empat lima enam tujuh delapan sembilan",
        "nol' odin dva tri cetyre pat' sest' sem' vosem' devat'",
        "shunya ek do teen chaar paanch chhe saat aath nau",
        "khong mot hai ba bon nam sau bay tam chin",
    )
    for digit, word in enumerate(words.split())
}
_REPEATS = {"double": 2, "triple": 3, "treble": 3, "doppel": 2, "doble": 2, "doppio": 2, "dubbel": 2, "duplo": 2}
_TENS = {
    **{
        word: str(10 + i)
        for i, word in enumerate(
            "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
        )
    },
    **{word: str(2 + i) for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())},
    "hundred": "00",
}
_SHORT = {
    "o",
    "un",
    "um",
    "due",
    "sei",
    "null",
    "oh",
    "en",
    "to",
    "ni",
    "ot",
    "hat",
    "het",
    "do",
    "ek",
    "sex",
    "bon",
    "nam",
}
WORDS = frozenset(_DIGIT_WORDS) - _SHORT
"""Words that open the gate of this module; the short ones only count inside a run."""

_RAW_WORDS = frozenset(w.encode() for w in (*_DIGIT_WORDS, *_REPEATS, *_TENS))
_TOKEN = re.compile(r"[a-z]+'?|\d+|[^a-z\d\s,\-.]")
MAX_RUN = 128
"""Number words in a row; more are a flood."""
MIN_RUN = 4
"""Fewer number words in a row are ordinary speech ("one of the three")."""


def is_spelled(words: list[bytes], digits: int) -> bool:
    """Whether a text has number words enough in a row for a run, figures and compounds among them."""
    run = longest = 0
    for word in words:
        if word.lower() in _RAW_WORDS:
            run += 1
        elif b"-" in word and (count := _compound(word)):
            run += count
        elif not word.isdigit():
            longest, run = max(longest, run), 0
    longest = max(longest, run)
    return longest >= MIN_RUN - 1 or (longest > 1 and digits > 2)  # half typed, half spelled


def digits_of(value: str) -> str:
    """The digits that a lower-case value of number words stands for, empty if it holds anything else."""
    digits, repeat = "", 1
    for token in _TOKEN.finditer(value):
        word = token[0]
        if word in _REPEATS:
            repeat = _REPEATS[word]
            continue
        meant = _DIGIT_WORDS.get(word) or _TENS.get(word) or (word if word.isdigit() else "")
        if not meant:
            return ""
        digits, repeat = digits + meant * repeat, 1
    return digits


def _compound(word: bytes) -> int:
    """How many number words a word joined by hyphens holds."""
    return sum(part in _RAW_WORDS for part in word.lower().split(b"-"))


def find_spelled(lower: str) -> list[Span]:
    """Spans of runs of at least four number words, typed like the digits they stand for."""
    found: list[Span] = []
    run: list[tuple[int, int, str, bool]] = []
    repeat = 1
    for token in _TOKEN.finditer(lower):
        word = token[0]
        if word in _REPEATS:
            repeat = _REPEATS[word]
            run.append((*token.span(), "", True))
            continue
        digits = _DIGIT_WORDS.get(word) or _TENS.get(word) or (word if word.isdigit() else "")
        if digits:
            run.append((*token.span(), digits * repeat, not word.isdigit()))
            if len(run) > MAX_RUN and not word.isdigit():
                raise Overflow
        else:
            _flush(run, lower, found)
        repeat = 1
    _flush(run, lower, found)
    return found


def _flush(run: list[tuple[int, int, str, bool]], lower: str, found: list[Span]) -> None:
    """Judge one run of number words, and start the next."""
    while run and not run[-1][2]:
        run.pop()
    digits = "".join(part[2] for part in run)
    spelled = sum(part[3] for part in run)
    if spelled >= MIN_RUN or (spelled >= 2 and len(digits) >= 7):  # half typed, half spelled phone
        start, end = run[0][0], run[-1][1]
        found.append((start, end, label_of_digits(lower, start, digits)))
    run.clear()
