"""Words of scripts without a Latin reading (Han, Arabic, Devanagari ...) inside text that is otherwise Latin.

Somebody who writes English and drops four characters of another script gives a name or an address. In text
that is mostly of such a script the triggers of scripts.py decide instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from streams.scrub.normalise import LETTER
from streams.scrub.spans import Span

_RUN = re.compile(rf"{LETTER}+(?:(?:[ .,'()/\-\d]{{1,8}}|[ ]?[A-Za-z]\.?[ ]?){LETTER}+)*")
_LATIN = re.compile(r"[A-Za-z]")
_NEAR_NUMBER = re.compile(r"\d[\w/\-]{0,8}[ ,.]{0,3}$")
_KANA = re.compile("[\u3041-\u309f]")
_HAN = re.compile("[\u4e00-\u9fff]+")
LONGEST_HAN, LONGEST_NAME, MOST_WORDS = 6, 24, 4
"""Signs of the longest name in Chinese, letters of the longest in one word, and its words."""
MOSTLY = 0.8
"""Share of such letters from which a text counts as written in their script."""


def find_foreign(text: str, original: Sequence[str]) -> list[Span]:
    """Spans of the runs of foreign letters, persons unless a number stands beside them, or they are a sentence.

    `original` holds the source of each character of the text.
    """
    foreign = text.count(LETTER)
    if foreign >= MOSTLY * (foreign + len(_LATIN.findall(text))):
        return []
    found: list[Span] = []
    for match in _RUN.finditer(text):
        start, end = match.span()
        beside = (
            any(c.isdigit() for c in match[0])
            or bool(_NEAR_NUMBER.search(text, max(0, start - 12), start))
            or text[end : end + 4].strip(" ,.")[:1].isdigit()
        )
        if not beside and _is_sentence("".join(original[start:end])):
            continue
        if beside:
            start, end = _numbers_around(text, start, end)
        found.append((start, end, "ADDRESS" if beside else "PERSON"))
    return found


def _is_sentence(run: str) -> bool:
    """Whether a run is longer than names are, in its script."""
    words = run.split()
    if len(words) > MOST_WORDS or any(len(word) > LONGEST_NAME for word in words):
        return True
    return any(len(w) > LONGEST_HAN and bool(_KANA.search(w) or _HAN.fullmatch(w)) for w in words)


def _numbers_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The run with the numbers that touch it."""
    before = re.search(r"[\d/\-]{1,8}[ ,.]{0,3}$", text[max(0, start - 12) : start])
    after = re.match(r"(?:[ ,.\-]{0,3}[\d/\-]{1,8}[A-Za-z]?){1,4}", text[end : end + 40])
    return start - (len(before[0]) if before else 0), end + (len(after[0]) if after else 0)
