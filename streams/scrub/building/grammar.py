"""Turns made from the grammars of data/turns.txt: with addresses and names, and with all that only looks like them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from streams.scrub.building.corpus import lines, name, own_lists_cached
from streams.scrub.building.postal import (
    SLOT,
    address,
    code,
    expand,
    fragment,
    languages,
    made,
    part,
    slipped,
    small,
    words_of,
)
from streams.scrub.building.vocabulary import COUNTRIES, DAYS, GOODS, HOURS, WORDY
from streams.scrub.lexicon import COMMON, FIRST, NAME, PROPER, lexicon

Piece = tuple[str, str]
"""A stretch of text and its label: PERSON, ADDRESS, empty, or ? for what is not trained on."""


@cache
def turns() -> tuple[list[str], list[str]]:
    """The grammars of turns with an address, and of turns without one."""
    found = [line.replace("\\n", "\n") for line in lines("turns.txt")]
    placed = [line for line in found if "{A}" in line or "{a}" in line]
    return placed, [line for line in found if line not in placed]


@cache
def people() -> list[str]:
    """The grammars of turns about people, with a name and without one."""
    return [line.replace("\\n", "\n") for line in lines("people.txt")]


def turn(grammar: str, rng: random.Random) -> list[Piece]:
    """A turn of a grammar as labelled pieces."""
    pieces: list[Piece] = []
    at = 0
    text = expand(grammar, rng)
    for match in SLOT.finditer(text):
        pieces += [(text[at : match.start()], ""), _filled(match[1], rng)]
        at = match.end()
    return [*pieces, (text[at:], "")]


def _filled(slot: str, rng: random.Random) -> Piece:
    """A slot of a turn with its label."""
    if slot in _MAKERS:
        return _MAKERS[slot](rng), _LABELS.get(slot, "")
    return part(slot, rng), ""


def _contact(slot: str, rng: random.Random) -> str:
    """A telephone number (Y) or an e-mail address."""
    if slot == "Y":
        return code("+## ### #### ###" if rng.random() < 0.5 else "0### ######", rng)
    return f"{made(rng).lower()}{small(rng)}@{made(rng).lower()}.com"


def _goods(rng: random.Random) -> str:
    found = rng.choice(GOODS).replace("|", " ")
    return found if rng.random() < 0.6 else found.title()


_LABELS = {**dict.fromkeys("Aa", "ADDRESS"), **dict.fromkeys("PFLVZ", "PERSON"), **dict.fromkeys("EYI", "?")}


def _place(rng: random.Random) -> str:
    """A town that lists hold: it alone is no address."""
    places = own_lists_cached("words.txt")["places"][0]
    return (rng.choice(places) if rng.random() < 0.4 else rng.choice(words_of(PROPER, COMMON))).title()


def _brand(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return rng.choice(own_lists_cached("words.txt")["brands"][0]).title()
    if draw < 0.6:
        return rng.choice(words_of(PROPER, COMMON)).capitalize()
    if draw < 0.8:
        made = rng.choice(words_of(COMMON, NAME)) + rng.choice(
            ("ly", "ify", "o", "x", "hub", "zone", "pro", "line", "max", "go", "tech", "ster", "io", "pay", "home")
        )
        return made.capitalize() if rng.random() < 0.8 else made.upper()
    return " ".join(rng.choice(words_of(COMMON, NAME)).capitalize() for _ in range(rng.choice((1, 2, 2, 3))))


def _small_word(rng: random.Random) -> str:
    """An ordinary word of any language, at times with a slip."""
    draw = rng.random()
    found = rng.choice(words_of(COMMON, NAME)) if draw < 0.6 else rng.choice(rng.choice(languages()))
    return slipped(found, rng) if rng.random() < 0.3 else found


@cache
def _wordy() -> list[str]:
    """First names that are ordinary words, and words that are names now and then."""
    own = WORDY
    return sorted({*own, *(w for w, f in lexicon().items() if f & FIRST and f & COMMON and len(w) > 3)})


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "A": address,
    "a": fragment,
    "V": lambda rng: rng.choice(_wordy()).capitalize(),
    "v": lambda rng: rng.choice(_wordy()),
    "X": lambda rng: name(rng.choice("LLFP"), rng),  # a brand that bears a person's name
    "Z": lambda rng: name("P", rng),
    "P": lambda rng: name("P", rng),
    "F": lambda rng: name("F", rng),
    "L": lambda rng: name("L", rng),
    "E": lambda rng: _contact("E", rng),
    "Y": lambda rng: _contact("Y", rng),
    "I": lambda rng: rng.choice((code("#######", rng), code("AA-#####", rng), code("#A##A###", rng))),
    "K": lambda rng: rng.choice(COUNTRIES),
    "T": _place,
    "D": lambda rng: rng.choice(DAYS).replace("|", " "),
    "H": lambda rng: rng.choice(HOURS).replace("|", " "),
    "M": _brand,
    "G": _goods,
    "w": _small_word,
    "#": lambda rng: str(rng.randrange(1, rng.choice((5, 20, 100, 1000)))),
}
