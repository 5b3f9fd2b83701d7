"""The second look: a small pass of its own over masked text that must find nothing.

It shares no pattern with the detectors. Whatever it finds is a bug of theirs, and the turn is quarantined.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from enum import StrEnum

LONG_NUMBER = 7
"""Digits in a row, single separators allowed, that no sentence needs."""

HEX_DIGITS = 8
"""Digits of an error code such as 0x80070057."""
_SEPARATORS = frozenset(" -./()_+")
_AMOUNT_WORDS = ("$", "€", "£", "¥", "₹", "%", "usd", "eur", "gbp", "rs", "inr")


class Rule(StrEnum):
    """What the second look found; names the metric and the quarantine reason."""

    DIGITS = "residual_digits"
    AT_SIGN = "residual_at_sign"
    KNOWN = "residual_known_value"
    CANARY = "residual_canary"


def residue(
    masked: str, is_known: Callable[[str], bool], canaries: Collection[str], allowed: Collection[str] = ()
) -> Rule | None:
    """The rule that the masked text breaks, None if it is clean.

    `is_known` tells whether a word is a value of the conversation; `canaries` are casefolded planted values,
    `allowed` the public contacts that may stay.
    """
    text = unicodedata.normalize("NFKC", "".join(c for c in masked if unicodedata.category(c) != "Cf"))
    for contact in allowed:
        text = text.replace(contact, " ")
    if _has_address(text):
        return Rule.AT_SIGN
    if any(c.isdigit() for c in text) and _has_number(text):
        return Rule.DIGITS
    folded = text.casefold()
    if any(c in folded for c in canaries):
        return Rule.CANARY
    if any(is_known(word.strip(".,!?;:\"'()<>")) for word in text.split() if not word.startswith("<")):
        return Rule.KNOWN
    return None


def _has_address(text: str) -> bool:
    at = text.find("@")
    while at >= 0:
        if text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum():
            return True
        at = text.find("@", at + 1)
    return False


def _has_number(text: str) -> bool:
    """Whether a run of digits is long enough, and no date, time or amount."""
    start = 0
    while start < len(text):
        if not text[start].isdecimal():
            start += 1
            continue
        end = _run_end(text, start)
        if sum(c.isdecimal() for c in text[start:end]) >= LONG_NUMBER and not _harmless(text, start, end):
            return True
        start = end
    return False


def _run_end(text: str, start: int) -> int:
    end = start + 1
    while end < len(text):
        if text[end].isdecimal():
            end += 1
        elif text[end] in _SEPARATORS and text[end + 1 : end + 2].isdecimal():
            end += 2
        else:
            break
    return end


def _harmless(text: str, start: int, end: int) -> bool:
    if text[max(0, start - 2) : start] in {"0x", "0X"} and end - start <= HEX_DIGITS and text[start:end].isdecimal():
        return not text[end : end + 1].isalnum()
    groups = "".join(c if c.isdecimal() else " " for c in text[start:end]).split()
    if text[end : end + 1].isalnum() or text[max(0, start - 1) : start].isalnum():
        return False
    around = text[max(0, start - 4) : start].casefold() + " " + text[end : end + 4].casefold()
    if any(word in around for word in _AMOUNT_WORDS):
        return True
    short = all(len(g) <= 2 for g in groups)  # days, hours, sizes
    years = [g for g in groups if len(g) == 4 and g[:2] in {"19", "20"}]
    dates = all(len(g) <= 2 or g in years for g in groups) and len(years) <= 1 + len(groups) // 3
    return (
        short
        or dates
        or len(years) == len(groups)
        or ("." in text[start:end] and len(groups) > 2)
        or groups[-1].endswith("000")
    )
