"""Values that come in pieces over several turns, and answers to the question before.

A piece is a short customer turn rich in digits. It is masked when a number was asked for, when the turn before
was a piece, or when it is hardly anything but digits; one that is none of these is held for the next turn
(`hold_s`) or, without holding, masked at once. What stays readable of a value is at most its first two digits.
"""

from __future__ import annotations

import re

from streams.scrub.conversation import ConversationState
from streams.scrub.expectation import find_answer
from streams.scrub.spans import Span

PIECE_CHARS = 40
"""Longest turn that can be a piece of a value."""
PIECE_SHARE, BARE_SHARE = 0.3, 0.6
"""Digits among letters and digits: of a piece, and of a turn that is hardly anything but a number."""
FIRST_DIGITS = 3
"""Digits of a first piece; fewer are a quantity until another piece follows."""
REACH = 4
"""Turns after which a piece is forgotten: acknowledgments stand between two pieces."""
SHORT_TURN = 3
"""Words of a turn that may go on with an answer already given ("okafor" after "ines")."""

_NUMBER = re.compile(r"[A-Za-z]{0,4}\d(?:[ \-./]{0,2}[A-Za-z]?\d){0,30}[A-Za-z]?")
_NUMBERS = frozenset(
    "CARD PHONE NATIONAL_ID ACCOUNT_ID ORDER_ID OTP SECRET IBAN TRACKING ZIP CARD_SEC DOB DEVICE_ID PASSPORT "
    "DRIVER_LICENSE".split()
)


def find_answers(text: str, seq: int, covered: list[Span], state: ConversationState) -> list[Span]:
    """Spans of what answers the open question, or is a piece of a value; changes the state's expectation."""
    found: list[Span] = []
    asked = is_open(text, seq, state)
    if asked:
        found = find_answer(text, state.expected, covered)
    pieces = _pieces(text, seq, state, asked=asked)
    if pieces:
        found += pieces
    elif asked and (found or {s[2] for s in covered} & set(state.expected)):
        state.answered_seq = seq
    return found


def is_open(text: str, seq: int, state: ConversationState) -> bool:
    """Whether a question waits for this turn: not answered yet, or answered just before by a part of the value."""
    if not state.expected or seq <= state.expected_seq:
        return False
    if state.answered_seq < 0 or state.answered_seq == seq:
        return True
    if seq == state.answered_seq + 1 and len(text.split()) <= SHORT_TURN:
        return True
    state.expected = ()
    return False


def ask(labels: tuple[str, ...], seq: int, state: ConversationState) -> None:
    """Remember what a question asks for; it replaces the one before, which a plain remark ends if it was answered."""
    if labels:
        state.expected, state.expected_seq, state.answered_seq = labels, seq, -1
    elif state.answered_seq >= 0:
        state.expected = ()


def may_be_piece(text: str, seq: int, state: ConversationState) -> bool:
    """Whether a customer's turn can only be judged with the next: rich in digits, but neither asked for nor bare."""
    follows = state.fragment is not None and seq - state.fragment[2] <= REACH
    return is_rich(text) and not follows and _digits(text)[1] < BARE_SHARE and not is_open(text, seq, state)


def is_rich(text: str) -> bool:
    """Whether a turn is short and rich in digits."""
    digits, share = _digits(text)
    return len(text) < PIECE_CHARS and digits > 0 and share >= PIECE_SHARE


def _pieces(text: str, seq: int, state: ConversationState, *, asked: bool) -> list[Span]:
    """The numbers of a turn that is a piece of a value."""
    if not is_rich(text):
        return []
    digits, _ = _digits(text)
    before = state.fragment
    follows = before is not None and seq - before[2] <= REACH
    label = next((x for x in state.expected if x in _NUMBERS), "ACCOUNT_ID") if asked else "ACCOUNT_ID"
    if before is not None and follows:
        label = before[0]
    state.fragment = (label, digits + (before[1] if before is not None and follows else 0), seq)
    if not follows and digits < FIRST_DIGITS:
        return []
    return [(*m.span(), label) for m in _NUMBER.finditer(text)]


def _digits(text: str) -> tuple[int, float]:
    """How many digits, and their share of letters and digits."""
    digits = sum(c.isdigit() for c in text)
    return digits, digits / (sum(c.isalnum() for c in text) or 1)
