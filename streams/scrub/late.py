"""The conversation pass: what a conversation knows at its end, searched for in the turns that were masked before.

A name that a customer gives in the tenth turn may stand unmasked in the second, and a number may have come in pieces
that only together are one. The pass reads masked turns and the conversation's digests; it needs no raw text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from streams.scrub.conversation import ConversationState, Numbering
from streams.scrub.detectors import literals
from streams.scrub.fragments import REACH, is_rich
from streams.scrub.known import find_known
from streams.scrub.masking import render
from streams.scrub.normalise import normalise
from streams.scrub.spans import Span, union

JOINED_DIGITS = 6
"""Digits from which pieces left in neighbouring turns are a value."""


class MaskedTurn(NamedTuple):
    """A turn as it left the scrubber."""

    seq: int
    role: str
    text: str


def late_finds(turns: Sequence[MaskedTurn], state: ConversationState, key: bytes) -> dict[int, str]:
    """Place in `turns` -> new text, of those in which something is found now; changes the state's numbers."""
    numbering = Numbering(state, key)
    pieces = _pieces(turns)
    found: dict[int, str] = {}
    for place, turn in enumerate(turns):
        plain = normalise(turn.text)
        text, _ = literals(plain.text)
        spans = union(find_known(text, numbering) + pieces.get(place, []), text)
        if spans:
            placed = [
                (*plain.original(start, end), *numbering.place(label, text[start:end])) for start, end, label in spans
            ]
            found[place] = render(turn.text, placed)
    return found


def _pieces(turns: Iterable[MaskedTurn]) -> dict[int, list[Span]]:
    """Place -> spans of digits in customer's turns that are hardly anything else and follow each other closely."""
    bare: list[tuple[int, int, list[Span], int]] = []
    for place, turn in sorted(enumerate(turns), key=lambda pair: pair[1].seq):
        text, _ = literals(normalise(turn.text).text)
        if turn.role == "customer" and is_rich(text):
            spans = [(i, i + 1, "ACCOUNT_ID") for i, char in enumerate(text) if char.isdigit()]
            bare.append((turn.seq, place, union(spans, text), len(spans)))
    runs: list[list[tuple[int, int, list[Span], int]]] = [bare[:1]] if bare else []
    for before, after in pairwise(bare):
        if after[0] - before[0] <= REACH:
            runs[-1].append(after)
        else:
            runs.append([after])
    long = [run for run in runs if len(run) > 1 and sum(count for *_, count in run) >= JOINED_DIGITS]
    return {place: spans for run in long for _, place, spans, _ in run}
