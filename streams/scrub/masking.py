"""One turn of a conversation: what is in it, numbered, masked, and looked at once more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering, Placed, forms, is_plain_word
from streams.scrub.detectors import detect, literals
from streams.scrub.expectation import expected_labels
from streams.scrub.fragments import ask, find_answers
from streams.scrub.known import find_known, learn_metadata
from streams.scrub.ner import NerBackend
from streams.scrub.normalise import Plain, normalise
from streams.scrub.residual import residue
from streams.scrub.spans import Overflow, Span, union

_NAMES = frozenset({"PERSON", "ADDRESS"})
"""Labels that are guessed from how words look; the company's own names look the same."""

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]{1,20})_(\d{1,6})>")


class Quarantined(Exception):  # the contract's name
    """A turn that may not pass: `reason` is a code, `event_id` its cleaned id; no text, ever."""

    def __init__(self, reason: str, event_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.event_id = event_id


def know(metadata: Mapping[str, Any] | None, numbering: Numbering) -> None:
    """Make the values of an event's own metadata known to its conversation. Raises `Quarantined` for a flood."""
    try:
        learn_metadata(metadata, numbering)
    except Overflow:
        raise Quarantined("too_many_values") from None


def mask_turn(
    text: str, role: str, seq: int, numbering: Numbering, config: ScrubConfig, *, ner: NerBackend | None = None
) -> list[Placed]:
    """The numbered spans of one turn; changes the state behind `numbering`. Raises `Quarantined`."""
    state = numbering.state
    if len(text) > config.max_chars:
        raise Quarantined("too_long")
    plain = normalise(text)
    try:
        found = detect(text, plain, config)
    except Overflow:
        raise Quarantined("too_many_values") from None
    found += _recognised(plain.text, ner, config) if ner else []
    if role == "assistant":
        found = [s for s in found if not (s[2] == "LITERAL" and _is_ours(plain.text[s[0] : s[1]], state))]
    known_text, _ = literals(plain.text)
    found += find_known(known_text, numbering)
    if role == "customer":
        found += find_answers(plain.text, seq, union(found, plain.text), state)
    else:
        ask(expected_labels(plain.text), seq, state)
    found, public = _without_public(union(found, plain.text), plain.text, config)
    for start, end, label in found:
        numbering.learn(label, plain.text[start:end])
    spans = union(found + find_known(known_text, numbering), plain.text)
    if len(spans) > config.max_spans:
        raise Quarantined("too_many_values")
    placed = _place(spans, plain, numbering)
    if len(state.entities) > config.max_entities:
        raise Quarantined("conversation_overflow")
    check(render(text, placed), numbering, config, public)
    return placed


def _without_public(found: list[Span], text: str, config: ScrubConfig) -> tuple[list[Span], list[str]]:
    """The spans but those of the company's own names and contacts, and how its contacts are spelled here."""
    if config.public_names and any(label in _NAMES for _, _, label in found):
        own = [name.span() for name in _any_of(config.public_names).finditer(text)]
        found = [s for s in found if s[2] not in _NAMES or not any(a <= s[0] and s[1] <= b for a, b in own)]
    if not config.public_contacts:
        return found, []
    allowed = {form for contact in config.public_contacts for form in forms("PHONE", normalise(contact).text)}
    public = [
        s for s in found if s[2] in {"EMAIL", "PHONE"} and not allowed.isdisjoint(forms("PHONE", text[s[0] : s[1]]))
    ]
    return [s for s in found if s not in public], [text[start:end] for start, end, _ in public]


@cache
def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first), re.IGNORECASE)


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
    return match is not None and 1 <= int(match[2]) <= state.counters.get(match[1], 0)


def _place(spans: list[Span], plain: Plain, numbering: Numbering) -> list[Placed]:
    placed: list[Placed] = []
    for start, end, label in spans:
        known, number = numbering.place(label, plain.text[start:end])
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


def check(masked: str, numbering: Numbering, config: ScrubConfig, public: Sequence[str] = ()) -> None:
    """Look at the masked text once more, `public` contacts aside. Raises `Quarantined` with the rule that it breaks."""
    canaries = [c.casefold() for c in config.canaries]
    rule = residue(masked, lambda word: _is_known(word, numbering), canaries, public)
    if rule is not None:
        raise Quarantined(rule.value)


def _is_known(word: str, numbering: Numbering) -> bool:
    if len(word) < 4 or is_plain_word(word):  # shorter words are no evidence
        return False
    return numbering.known_label(word) is not None
