"""Digits written as words: "four one one two", "double seven", "oh", mixed with figures."""

from __future__ import annotations

import re

from streams.scrub.numbers import label_of_digits
from streams.scrub.spans import Span

_DIGIT_WORDS = {
    "zero": "0", "oh": "0", "o": "0", "nought": "0", "naught": "0", "null": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "eins": "1", "zwei": "2", "zwo": "2", "drei": "3", "vier": "4", "funf": "5", "sechs": "6", "sieben": "7", "acht": "8", "neun": "9",
    "cero": "0", "uno": "1", "dos": "2", "tres": "3", "cuatro": "4", "cinco": "5", "seis": "6", "siete": "7", "ocho": "8", "nueve": "9",
    "un": "1", "deux": "2", "trois": "3", "quatre": "4", "cinq": "5", "sept": "7", "huit": "8", "neuf": "9",
    "due": "2", "tre": "3", "quattro": "4", "cinque": "5", "sei": "6", "sette": "7", "otto": "8", "nove": "9",
    "um": "1", "dois": "2", "quatro": "4", "sete": "7", "oito": "8",
    "een": "1", "twee": "2", "drie": "3", "vijf": "5", "zes": "6", "zeven": "7", "negen": "9", "nul": "0",
}  # fmt: skip
_REPEATS = {"double": 2, "triple": 3, "treble": 3, "doppel": 2, "doble": 2}
_TENS = {"ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16",
         "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "2", "thirty": "3", "forty": "4", "fifty": "5", "sixty": "6",
         "seventy": "7", "eighty": "8", "ninety": "9", "hundred": "00"}  # fmt: skip
WORDS = frozenset(_DIGIT_WORDS) - {"o", "un", "um", "due", "sei", "null", "oh"}
"""Words that open the gate of this module; the short ones only count inside a run."""

_RAW_WORDS = frozenset(w.encode() for w in (*_DIGIT_WORDS, *_REPEATS, *_TENS))
_TOKEN = re.compile(r"[a-z]+|\d+|[^a-z\d\s,\-.]")
MIN_RUN = 4
"""Fewer number words in a row are ordinary speech ("one of the three")."""


def is_spelled(words: list[bytes], digits: int) -> bool:
    """Whether a text has number words enough for a run."""
    spelled = sum(w.lower() in _RAW_WORDS for w in words)
    return spelled >= MIN_RUN - 1 or (spelled > 1 and digits > 2)  # noqa: PLR2004 - half typed, half spelled


def find_spelled(text: str, lower: str) -> list[Span]:
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
    if spelled >= MIN_RUN or (spelled >= 2 and len(digits) >= 7):  # noqa: PLR2004 - half typed, half spelled phone
        start, end = run[0][0], run[-1][1]
        found.append((start, end, label_of_digits(lower, start, digits)))
    run.clear()
