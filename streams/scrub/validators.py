"""Checksums and calendars: they choose a label, never whether a value is masked."""

from __future__ import annotations

import re

_CARD_STARTS = re.compile(r"4|5[0-8]|2[2-7]|3[0-9]|6")
_PARTS = re.compile(r"\d+")


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of those before (ISO/IEC 7812-1)."""
    total = 0
    for i, char in enumerate(reversed(digits)):
        value = int(char) * (1 + i % 2)
        total += value - 9 * (value > 9)  # digit sum of a two-digit number
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Whether 13 to 19 digits have the start and check digit of a payment card."""
    return 13 <= len(digits) <= 19 and bool(_CARD_STARTS.match(digits)) and is_luhn(digits)


def is_iban(text: str) -> bool:
    """Whether an IBAN, spaces and dashes ignored, has remainder 1 modulo 97 (ISO 13616)."""
    plain = text.replace(" ", "").replace("-", "").upper()
    if not plain.isalnum() or not plain.isascii():
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def is_date(text: str) -> bool:
    """Whether three numbers can be day, month and year in some order."""
    a, b, c = (int(part) for part in _PARTS.findall(text))
    year, rest = (a, (b, c)) if a > 31 else (c, (a, b))  # longer than any month
    plausible = 1900 <= year <= 2100 or year <= 99
    return plausible and min(rest) >= 1 and min(rest) <= 12 and max(rest) <= 31
