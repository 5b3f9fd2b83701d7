"""A turn of a conversation as chat files have it: who spoke, and the text, whole or in parts beside pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEYS = ("turns", "messages", "conversations")
"""Under which a row holds its turns: ours, that of chat APIs, that of ShareGPT."""
MACHINES = frozenset({"tool", "function", "ipython", "observation"})
"""Roles of a program's answers: nobody says them in a chat."""


@dataclass(frozen=True)
class Said:
    """Who spoke, in the file's own word, the text, and what stood beside it and is no text.

    A turn without any text that is no mistake (a picture, the call of a tool) has an empty one.
    """

    role: str
    text: str
    left_out: tuple[str, ...] = ()


def turns_of(row: Mapping[str, Any]) -> str:
    """The key under which a row holds a conversation, empty for none."""
    return next((key for key in KEYS if isinstance(row.get(key), list)), "")


def event_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row itself, or the event that a line of a traffic file holds."""
    held = row.get("value")
    return held if isinstance(held, dict) and "text" not in row else row


def said(turn: object) -> Said | None:
    """What a turn says; None if it has neither text nor parts."""
    if not isinstance(turn, Mapping):
        return None
    role = str(turn.get("role", turn.get("from", "")))
    if role in MACHINES:
        return Said(role, "", (role,))
    held = next((turn[key] for key in ("text", "content", "value") if turn.get(key) is not None), None)
    if isinstance(held, str):
        return Said(role, held)
    if isinstance(held, list):
        return _joined(role, held)
    calls = next((key for key in ("tool_calls", "function_call") if turn.get(key)), None)
    return Said(role, "", (calls,)) if held is None and calls else None


def _joined(role: str, parts: list[Any]) -> Said:
    """The text of all parts; of others, what they call themselves."""
    texts, left_out = [], []
    for part in parts:
        found = _text(part)
        if found is not None:
            texts.append(found)
        else:
            left_out.append(str(part.get("type", "part")) if isinstance(part, Mapping) else "part")
    return Said(role, "\n".join(texts), tuple(left_out))


def _text(part: object) -> str | None:
    """A part is a string, or an object with its text under `text`, or under `refusal` where a model declined."""
    if isinstance(part, Mapping):
        part = part.get("text", part.get("refusal"))
    return part if isinstance(part, str) else None
