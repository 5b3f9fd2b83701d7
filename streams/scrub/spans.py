"""Spans and their union: what several detectors found becomes one list without overlaps."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int, str]
"""Start, end (code points) and label."""


class Overflow(Exception):
    """A text has more of something than any chat has: it is not searched on, and its turn is quarantined."""


PRIORITY = tuple(
    "CRYPTO IBAN SECRET EMAIL CARD NATIONAL_ID PASSPORT DRIVER_LICENSE IP MAC GEO DEVICE_ID VEHICLE TRACKING OTP "
    "CARD_SEC PHONE DOB ORDER_ID ACCOUNT_ID ADDRESS ZIP USERNAME PERSON LITERAL".split()
)
"""Which label an overlap of equally long spans gets: the earlier one."""

_RANK = {label: rank for rank, label in enumerate(PRIORITY)}
LABELS = frozenset(PRIORITY)

JOINED = frozenset(
    {"PERSON", "ADDRESS", "PHONE", "CARD", "SECRET", "EMAIL", "IBAN", "ORDER_ID", "ACCOUNT_ID", "NATIONAL_ID"}
)
"""Labels whose neighbours, a space apart, are parts of one value."""


def union(spans: Iterable[Span], text: str) -> list[Span]:
    """The spans sorted, overlapping or touching ones merged under the label of the longest."""
    merged: list[Span] = []
    longest = 0
    for start, end, label in sorted(spans):
        if merged and _one(merged[-1], start, label, text):
            first, last, other = merged[-1]
            wins = (end - start, -_RANK[label]) > (longest, -_RANK[other])
            longest = max(longest, end - start)
            merged[-1] = (first, max(last, end), label if wins else other)
        else:
            merged.append((start, end, label))
            longest = end - start
    return merged


def _one(before: Span, start: int, label: str, text: str) -> bool:
    """Whether a span that starts at `start` continues the one before."""
    gap = start - before[1]
    if gap <= 0:
        return True
    return gap == 1 and label == before[2] and label in JOINED and text[before[1]] == " "
