"""Texts of chats as a terminal may show them."""

from __future__ import annotations

import re

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters and changes of direction spelled out: a chat must not steer a terminal."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
