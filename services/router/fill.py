"""Placeholders of an answer become the customer's own values again, also when a stream cuts them in two."""

from __future__ import annotations

import re
from collections.abc import Mapping

PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_[0-9]{1,6}>")
_BEGUN = re.compile(r"<(?:[A-Z][A-Z_]*(?:_[0-9]{0,6})?)?\Z")


RUNS = 24
"""An answer of fewer 4-word runs than this may repeat itself: it is a list, or a greeting."""


class Filler:
    """Fills one answer. `cut` counts placeholders that the conversation does not know: they are left out."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._held = ""
        self.cut = 0

    def feed(self, piece: str) -> str:
        """The text that is certain after this piece; what may become a placeholder is held back."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        at = begun.start() if begun else len(text)
        self._held = text[at:]
        return PLACEHOLDER.sub(self._value, text[:at])

    def end(self) -> str:
        """What was held back when the answer ended."""
        rest, self._held = self._held, ""
        return rest

    def _value(self, found: re.Match[str]) -> str:
        value = self._values.get(found.group())
        if value is None:
            self.cut += 1
            return ""
        return value


def looped(text: str) -> bool:
    """True when an answer says the same few words again and again: of its 4-word runs less than a third differ."""
    words = text.split()
    runs = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    return len(runs) >= RUNS and len(set(runs)) * 3 < len(runs)
