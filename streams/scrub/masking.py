"""One turn of a conversation: what is in it, numbered, masked, and looked at once more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering, Placed, is_plain_word
from streams.scrub.detectors import detect
from streams.scrub.expectation import expected_labels, find_answer
from streams.scrub.ner import NerBackend
from streams.scrub.normalise import Plain, normalise
from streams.scrub.residual import residue
from streams.scrub.spans import Span, union

_WORD = re.compile(r"[A-Za-z0-9\x01@#](?:[A-Za-z0-9\x01@_.+#/\-]{0,80}[A-Za-z0-9\x01])?")
_DIGIT_RUN = re.compile(r"\d(?:[ ./()_+\-]{0,2}\d){2,24}")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]{1,20})_(\d{1,6})>")
_FRAGMENT = re.compile(r"\d")
FRAGMENT_CHARS = 40
"""Longest turn that can be a piece of a value."""
FRAGMENT_SHARE, BARE_SHARE = 0.3, 0.6
"""Digits among letters and digits: of a piece that was asked for or follows another, and of one that stands alone."""

METADATA_LABELS = {
    "customer_name": "PERSON", "name": "PERSON", "first_name": "PERSON", "last_name": "PERSON", "agent_name": "PERSON", "full_name": "PERSON",
    "email": "EMAIL", "phone": "PHONE", "mobile": "PHONE", "account_id": "ACCOUNT_ID", "id": "ACCOUNT_ID", "customer_id": "ACCOUNT_ID",
    "order_ids": "ORDER_ID", "order_id": "ORDER_ID", "address": "ADDRESS", "username": "USERNAME", "zip": "ZIP", "dob": "DOB", "ssn": "NATIONAL_ID",
}  # fmt: skip
_NOT_NAMES = frozenset("guest test customer user unknown anonymous none null admin n/a na visitor client".split())


class Quarantined(Exception):  # noqa: N818 - the contract's name
    """A turn that may not pass: `reason` is a code, `event_id` its cleaned id; no text, ever."""

    def __init__(self, reason: str, event_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.event_id = event_id


def learn_metadata(metadata: Mapping[str, Any] | None, numbering: Numbering) -> None:
    """Make the values of an event's own metadata known to the conversation."""
    for name, value in (metadata or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        label = METADATA_LABELS.get(name, "ACCOUNT_ID")
        for item in values:
            if isinstance(item, str | int) and not isinstance(item, bool):
                _learn(label, normalise(str(item)).text.strip(), numbering)


def _learn(label: str, value: str, numbering: Numbering) -> None:
    if len(value) < 3 or value.lower() in _NOT_NAMES or (label != "PERSON" and is_plain_word(value)):  # noqa: PLR2004 - no variant
        return
    numbering.learn(label, value)


def mask_turn(
    text: str, role: str, seq: int, numbering: Numbering, config: ScrubConfig, ner: NerBackend | None = None
) -> list[Placed]:
    """The numbered spans of one turn; changes the state behind `numbering`. Raises `Quarantined`."""
    state = numbering.state
    if len(text) > config.max_chars:
        raise Quarantined("too_long")
    plain = normalise(text)
    found = detect(plain, config) + (_recognised(plain.text, ner, config) if ner else [])
    if role == "assistant":
        found = [s for s in found if not (s[2] == "LITERAL" and _is_ours(plain.text[s[0] : s[1]], state))]
    found += find_known(plain.text, numbering)
    if role == "customer":
        found += _answer(plain.text, seq, union(found, plain.text), state)
    else:
        asked = expected_labels(plain.text)
        if asked:
            state.expected, state.expected_seq = asked, seq
    for start, end, label in union(found, plain.text):
        numbering.learn(label, plain.text[start:end])
    spans = union(found + find_known(plain.text, numbering), plain.text)
    if len(spans) > config.max_spans:
        raise Quarantined("too_many_values")
    placed = _place(spans, plain, numbering, config)
    if len(state.entities) > config.max_entities:
        raise Quarantined("conversation_overflow")
    check(render(text, placed), numbering, config)
    return placed


def _recognised(text: str, ner: NerBackend, config: ScrubConfig) -> list[Span]:
    """What the recogniser finds. Raises `Quarantined` if it fails and is required."""
    try:
        return ner.entities([text])[0]
    except Exception:  # noqa: BLE001 - third-party code may raise anything, with text in it
        if config.ner_required:
            raise Quarantined("recogniser_failed") from None
        return []


def _is_ours(literal: str, state: ConversationState) -> bool:
    match = _PLACEHOLDER.fullmatch(literal)
    return bool(match) and 1 <= int(match[2]) <= state.counters.get(match[1], 0)


def find_known(text: str, numbering: Numbering) -> list[Span]:
    """Spans of words and numbers that the conversation knows already."""
    if not numbering.state.known:
        return []
    found: list[Span] = []
    for match in _WORD.finditer(text):
        word = match[0]
        if word.islower() and len(word) < 3:  # noqa: PLR2004 - no variant
            continue
        if is_plain_word(word) and (word.islower() or match.start() == 0) and not _in_name_position(text, match):
            continue
        for part in _parts(match):
            label = numbering.known_label(part[2])
            if label:
                found.append((part[0], part[1], label))
                break
    for match in _DIGIT_RUN.finditer(text):
        label = numbering.known_label(match[0])
        if label:
            found.append((*match.span(), label))
    return found


def _in_name_position(text: str, match: re.Match[str]) -> bool:
    """A surname that is a word counts at the start of a turn when "speaking" or "here" follows."""
    return match[0][:1].isupper() and text[match.end() : match.end() + 9].strip().startswith(
        ("speaking", "here", "again")
    )


def _parts(match: re.Match[str]) -> list[Span]:
    """The word itself, and its pieces when signs join several."""
    start, end = match.span()
    found = [(start, end, match[0])]
    if not match[0].isalnum():
        found += [(start + m.start(), start + m.end(), m[0]) for m in re.finditer(r"[A-Za-z0-9\x01]{3,80}", match[0])]
    return found


def _answer(text: str, seq: int, covered: list[Span], state: ConversationState) -> list[Span]:
    """What answers the open question, or is a piece of a value that comes in several turns."""
    found: list[Span] = []
    if state.expected and seq > state.expected_seq:
        found = find_answer(text, text.lower(), state.expected, covered)
    labels = {s[2] for s in covered} & set(state.expected)
    piece = _fragment(text, seq, state)
    if piece:
        found.append(piece)
    elif found or labels:
        state.expected, state.fragment = (), None
    return found


def _fragment(text: str, seq: int, state: ConversationState) -> Span | None:
    """The span of a piece of a number: a short turn, rich in digits, asked for or behind another piece."""
    digits = sum(c.isdigit() for c in text)
    alnum = sum(c.isalnum() for c in text) or 1
    before = state.fragment
    follows = before is not None and seq - before[2] <= 4  # noqa: PLR2004 - acknowledgments may stand between
    if len(text) >= FRAGMENT_CHARS or digits < (2 if follows else 3) or digits < FRAGMENT_SHARE * alnum:
        return None
    if not (follows or state.expected or digits >= BARE_SHARE * alnum):
        return None
    label = before[0] if before and follows else next((x for x in state.expected if x in _NUMBERS), "ACCOUNT_ID")
    state.fragment = (label, digits + (before[1] if before and follows else 0), seq)
    hits = list(_FRAGMENT.finditer(text))
    return hits[0].start(), hits[-1].end(), label


_NUMBERS = frozenset(
    {
        "CARD",
        "PHONE",
        "NATIONAL_ID",
        "ACCOUNT_ID",
        "ORDER_ID",
        "OTP",
        "SECRET",
        "IBAN",
        "TRACKING",
        "ZIP",
        "CARD_SEC",
        "DOB",
        "DEVICE_ID",
        "PASSPORT",
        "DRIVER_LICENSE",
    }
)


def _place(spans: list[Span], plain: Plain, numbering: Numbering, config: ScrubConfig) -> list[Placed]:
    placed: list[Placed] = []
    public = {normalise(c).text.lower() for c in config.public_contacts}
    for start, end, label in spans:
        value = plain.text[start:end]
        if label in {"EMAIL", "PHONE"} and value.lower() in public:
            continue
        known, number = numbering.place(label, value)
        placed.append((*plain.original(start, end), known, number))
    return placed


def render(text: str, placed: list[Placed]) -> str:
    """The text with a placeholder for every span."""
    out: list[str] = []
    at = 0
    for start, end, label, number in placed:
        out += [text[at:start], f"<{label}_{number}>"]
        at = end
    return "".join([*out, text[at:]])


def check(masked: str, numbering: Numbering, config: ScrubConfig) -> None:
    """Look at the masked text once more. Raises `Quarantined` with the rule that it breaks."""
    canaries = [c.casefold() for c in config.canaries]
    rule = residue(masked, lambda word: _is_known(word, numbering), canaries, config.public_contacts)
    if rule is not None:
        raise Quarantined(rule.value)


def _is_known(word: str, numbering: Numbering) -> bool:
    if len(word) < 4 or is_plain_word(word):  # noqa: PLR2004 - shorter words are no evidence
        return False
    return numbering.known_label(word) is not None
