"""Scrubbing of a user's own files: one JSON line in, the same line with masks and spans out."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from streams.scrub import ner
from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering, Placed
from streams.scrub.expectation import expected_labels
from streams.scrub.masking import Quarantined, know, mask_turn, render
from streams.scrub.normalise import normalise
from streams.sources.chats import role_of
from streams.sources.turns import event_of, said, turns_of


class DryRun:
    """Holds the conversations of one file, under a key that is never written anywhere."""

    def __init__(self, config: ScrubConfig) -> None:
        self._config = config
        self._ner = ner.load(config.ner, config.ner_deadline_s) if config.ner else None
        self._key = secrets.token_bytes(32)
        self._conversations: dict[str, ConversationState] = {}

    def line(self, raw: bytes, number: int) -> dict[str, Any]:
        """The result for one line; of an unreadable one its number and a reason code."""
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            return {"line": number, "error": "not_json"}
        if not isinstance(row, dict):
            return {"line": number, "error": "wrong_type"}
        try:
            return self._row(row)
        except Quarantined as reason:
            return {**row, "masked": None, "spans": [], "quarantined": reason.reason}
        except (KeyError, TypeError, AttributeError, ValueError):
            return {"line": number, "error": "wrong_shape"}

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(row.get("conversation_id"), str) and isinstance(row.get("type"), str):
            return self._event(row)
        event = event_of(row)
        if event is not row:
            return {**row, "value": self._event(event)}
        if key := turns_of(row):
            return self._conversation(row, key)
        numbering = Numbering(ConversationState(), self._key)
        numbering.state.expected = expected_labels(normalise(str(row.get("prev") or "")).text)
        return {**row, **self._masked(row["text"], str(row.get("role", "customer")), 0, numbering)}

    def _conversation(self, row: dict[str, Any], key: str) -> dict[str, Any]:
        numbering = Numbering(ConversationState(), self._key)
        know(row.get("metadata"), numbering)
        turns = []
        for seq, turn in enumerate(row[key]):
            found = said(turn)
            if found is None:
                raise TypeError("a turn without text")
            turns.append({**turn, **self._masked(found.text, role_of(found.role) or "customer", seq, numbering)})
        return {**row, key: turns}

    def _event(self, row: Mapping[str, Any]) -> dict[str, Any]:
        numbering = Numbering(self._conversations.setdefault(row["conversation_id"], ConversationState()), self._key)
        customer = row.get("customer")
        know(customer if isinstance(customer, Mapping) else None, numbering)
        text = row.get("text", row.get("corrected_text"))
        if text is None:
            return {**row, "masked": None, "spans": []}
        return {**row, **self._masked(text, str(row.get("role", "agent")), int(row["seq"]), numbering)}

    def _masked(self, text: str, role: str, seq: int, numbering: Numbering) -> dict[str, Any]:
        """`masked` and `spans` of a text, or why it was quarantined."""
        if not isinstance(text, str):
            raise TypeError("text")
        try:
            placed = mask_turn(text, role, seq, numbering, self._config, ner=self._ner)
        except Quarantined as reason:
            return {"masked": None, "spans": [], "quarantined": reason.reason}
        except Exception:  # noqa: BLE001 - whatever went wrong, its message may hold text
            return {"masked": None, "spans": [], "quarantined": "scrub_failed"}
        return {"masked": render(text, placed), "spans": [_span(span) for span in placed]}


def _span(placed: Placed) -> dict[str, Any]:
    start, end, label, number = placed
    return {"start": start, "end": end, "label": label, "placeholder": f"<{label}_{number}>"}
