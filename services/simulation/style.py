"""How customers write: terse, chatty, angry, with typos, without capitals, with a phrase of their own language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from services.simulation.draw import pick
from services.simulation.grammar import Slot

Parts = list[str | Slot]
"""A message under construction: literal text, and slots that no style may touch."""


@dataclass(frozen=True)
class Style:
    """One way of writing: rules that are added before and after the opening, and what happens to its letters."""

    name: str
    before: str = ""
    """Rule drawn in front of the first message, if any."""
    after: str = ""
    """Rule drawn behind the first message, if any."""
    letters: Callable[[str, Random], str] | None = None
    patience: float = 0.92
    """Share of chats that end well."""


def typos(text: str, rng: Random) -> str:
    """Swap, drop or double a letter about every thirty characters."""
    for _ in range(len(text) // 30 + 1):
        at = int(rng.random() * max(1, len(text) - 1))
        pair = text[at : at + 2]
        if pair.isalpha():
            wrong = pick(rng, (pair[::-1], pair[0], pair[0] + pair))
            text = text[:at] + wrong + text[at + 2 :]
    return text


def _lower(text: str, _: Random) -> str:
    return text.lower()


def _bare(text: str, _: Random) -> str:
    return text.lower().replace(".", "").replace(",", "").replace("'", "").replace("?", "")


def _shout(text: str, _: Random) -> str:
    return text.upper().replace(".", "!")


PLAIN = Style("plain")
STYLES: tuple[Style, ...] = (
    PLAIN, PLAIN, PLAIN,
    Style("polite", before="hello"),
    Style("chatty", before="hello", after="chatter"),
    Style("terse", letters=_bare),
    Style("lower", letters=_lower),
    Style("typos", letters=typos),
    Style("angry", after="frustration", patience=0.7),
    Style("shouting", after="frustration", letters=_shout, patience=0.6),
    Style("foreign", after="foreign"),
)  # fmt: skip
"""The mix of customers; plain writers are the most frequent."""


def written(parts: Parts, style: Style, rng: Random) -> Parts:
    """The parts as this customer writes them; slots are left as they are."""
    change = style.letters
    if change is None:
        return parts
    return [change(part, rng) if isinstance(part, str) else part for part in parts]
