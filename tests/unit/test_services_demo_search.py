from __future__ import annotations

import pytest

from services.demo.search import Needles


@pytest.mark.parametrize(
    "text",
    [
        "my card is 4929 1138 8870 2205", "card:4929113888702205.", "4929-1138-8870-2205 and 12 items",
        "12 4929 1138 8870 2205", "4 9 2 9 1 1 3 8 8 8 7 0 2 2 0 5",
    ],
)  # fmt: skip
def test_search_finds_a_number_however_it_is_grouped(text: str) -> None:
    """Spaces, hyphens and neighbouring numbers hide no planted number."""
    assert Needles(["4929 1138 8870 2205"]).within(text.encode()) == {"4929 1138 8870 2205"}


def test_search_takes_no_part_of_a_longer_number() -> None:
    """A time in milliseconds that happens to hold the digits of an order is no find; the order itself is."""
    needles = Needles(["AF-85817842"])
    assert needles.within(b"PEXPIREAT 1795885817842") == set()
    assert needles.within(b"order 85817842, please") == {"AF-85817842"}


def test_search_ignores_case() -> None:
    """An address is found in capitals too."""
    assert Needles(["mara@example.com"]).within(b"MARA@EXAMPLE.COM") == {"mara@example.com"}
