"""The functions for one text or one conversation: what scorers, dry runs and curious users call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering
from streams.scrub.detectors import detect, find_rules, find_structured, finish
from streams.scrub.expectation import expected_labels, find_answer
from streams.scrub.masking import know, mask_turn, render
from streams.scrub.normalise import normalise
from streams.scrub.spans import Overflow, Span, union

DRY = ScrubConfig()
_DRY_KEY = b"digests of a dry run never leave the process"

__all__ = ["find", "find_record", "find_rules", "find_structured", "scrub_conversation"]


def find(text: str) -> list[Span]:
    """Spans of all labels, by rules and tagger; the whole text if it is a flood."""
    plain = normalise(text)
    try:
        return finish(text, plain, detect(text, plain, DRY))
    except Overflow:
        return [(0, len(text), "SECRET")]


def find_record(record: Mapping[str, Any]) -> list[Span]:
    """Spans in `text`, with what the question `prev` makes us expect; the whole text if it is a flood."""
    text = str(record["text"])
    plain = normalise(text)
    try:
        found = union(detect(text, plain, DRY), plain.text)
    except Overflow:
        return [(0, len(text), "SECRET")]
    labels = expected_labels(normalise(str(record.get("prev") or "")).text)
    if labels:
        found = union(found + find_answer(plain.text, labels, found), plain.text)
    return [(*plain.original(start, end), label) for start, end, label in found]


find_record.wants_record = True  # type: ignore[attr-defined] # the scorers ask for it


def scrub_conversation(conversation: Mapping[str, Any], config: ScrubConfig = DRY) -> list[str]:
    """The masked texts of a conversation's turns, in order. Raises `Quarantined`."""
    numbering = Numbering(ConversationState(), _DRY_KEY)
    know(conversation.get("metadata"), numbering)
    masked = []
    for seq, turn in enumerate(conversation["turns"]):
        placed = mask_turn(turn["text"], turn["role"], seq, numbering, config)
        masked.append(render(turn["text"], placed))
    return masked
