"""Hostile texts: the work and the finds of any repeated pattern are bounded, counted in calls and not in seconds.

`driftline bench scrub` times the same patterns.
"""

import random
import re
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.scrub import Quarantined, find, find_record, find_structured, scrub_conversation
from streams.scrub.config import ScrubConfig
from streams.scrub.detectors import detect
from streams.scrub.normalise import normalise
from streams.scrub.spans import Overflow
from tests.bench.scrub import FIRING, HOSTILE

LARGE, SMALL = 8_192, 4_096
MOST_CALLS = 40_000
"""Calls of Python and C functions for a text of `SMALL` characters and the line that fires all detectors."""
MOST_SPANS = 512
LINEAR = 2.1
"""Calls for twice the text."""


def calls(text: str) -> tuple[int, int]:
    """Calls of functions while a text is searched, word caches warm, and the spans found."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    find(text)
    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        spans = find(text)
    finally:
        sys.setprofile(before)
    return count, len(spans)


@pytest.mark.parametrize("tail", ["", FIRING])
@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_work_is_linear_and_bounded(unit: str, tail: str) -> None:
    """Twice the text is at most twice the calls, and a flood gives few spans, all detectors fired or none."""
    (small, _), (large, spans) = (calls((unit * size)[:size] + tail) for size in (SMALL, LARGE))
    assert small <= MOST_CALLS
    assert large <= LINEAR * small
    assert spans <= MOST_SPANS


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=8), st.sampled_from(["", FIRING]))
def test_hostile_any_unit_is_bounded(unit: str, tail: str) -> None:
    """Whatever is repeated, no function raises and spans stay apart in the text; too many of them quarantine a turn."""
    text = (unit * SMALL)[:SMALL] + tail
    for found in (find(text), find_structured(text), find_record({"text": text, "prev": "Your name and number?"})):
        edges = [edge for start, end, _ in found for edge in (start, end)]
        assert edges == sorted(set(edges))
        assert all(0 <= edge <= len(text) for edge in edges)
    with suppress(Quarantined):
        (masked,) = scrub_conversation({"turns": [{"role": "customer", "text": text}]})
        assert len(re.findall(r"<[A-Z_]+_\d+>", masked)) <= MOST_SPANS


def test_hostile_flood_is_refused_not_cut_short() -> None:
    """A limit that a text runs into quarantines the turn; none ends the search in silence."""
    rng = random.Random(5)
    numbers = " one two" * 200
    floods = (" a@b.co" * 400, " at gmail dot com" * 500, " 12 Oak St" * 400, " password: x9!k" * 300, "a-" * 4_000)
    for flood in (*floods, numbers):
        text = flood + f" my card is 4000 0012 3456 {rng.randrange(1000, 9999)}"
        with pytest.raises(Overflow):
            detect(text, normalise(text), ScrubConfig())
        assert find(text) == [(0, len(text), "SECRET")]
        with pytest.raises(Quarantined, match="too_many_values"):
            scrub_conversation({"turns": [{"role": "customer", "text": text}]})
