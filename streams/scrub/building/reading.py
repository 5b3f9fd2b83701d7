"""Training turns for the network: generated ones with and without names and addresses, and carriers from real chats.

A turn is tokens and two labels a token, is-name and is-address: 1, 0, or -1 where nothing is to be learnt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from streams.scrub.building.corpus import DROPOUT, carriers, carry, fill, mixed, own_lists_cached, read_templates
from streams.scrub.building.grammar import Piece, people, turn, turns
from streams.scrub.building.lexicon import NO_LANGUAGES
from streams.scrub.building.postal import address
from streams.scrub.lexicon import COMMON, FOREIGN, NAME, OFTEN, PROPER, lexicon
from streams.scrub.network_features import GLUED, HIDDEN, TOKEN
from streams.scrub.normalise import normalise

LED, INSERTED, PLAIN, TEMPLATED, MIXED, CARRIED, TECHNICAL = 51_000, 11_900, 51_000, 39_100, 17_000, 34_000, 6_800
"""Turns by kind: with an address, carriers with one beside them, without; names in templates, in random words of a
language, in carriers; chats about Linux, whose nicknames are neither names nor none."""
NAMED = 45_000
"""Turns that only the tagger learns from."""
_HIDDEN = 0.3
"""Share of words of other languages and of places that the network sees as if no list held them."""


class Turn(NamedTuple):
    """A labelled turn; surfaces as network_features takes them."""

    surfaces: list[str]
    names: list[int]
    addresses: list[int]


def examples(data: Path, seed: int) -> Iterator[Turn]:
    """All training turns in a fixed order."""
    rng = random.Random(seed)
    templates = read_templates()
    led, plain = turns()
    texts = list(carriers(data))
    languages = {k: v[0] for k, v in own_lists_cached("words.txt").items() if k not in NO_LANGUAGES}
    for _ in range(LED):
        yield _turn(turn(rng.choice(led), rng), rng)
    for _ in range(INSERTED):
        yield _turn(_inserted(rng.choice(texts), rng), rng, carrier=True)
    for _ in range(PLAIN):
        yield _turn(turn(rng.choice(plain), rng), rng)
    for _ in range(TEMPLATED):
        yield _turn(_marked(fill(rng.choice(templates), rng)), rng)
    for _ in range(MIXED):
        yield _turn(_marked(mixed(languages, rng)), rng)
    for _ in range(CARRIED):
        yield _turn(_marked(carry(rng.choice(texts), rng)), rng, carrier=True)
    technical = list(carriers(data, ("conv_irc_ubuntu",)))
    for _ in range(TECHNICAL):
        found = _turn([(rng.choice(technical), "")], rng, carrier=True)
        yield found._replace(names=[-1] * len(found.names))


def named(seed: int) -> Iterator[Turn]:
    """Turns about people and what is called like them, for the tagger alone."""
    rng = random.Random(seed)
    grammars = people()
    for _ in range(NAMED):
        yield _turn(turn(rng.choice(grammars), rng), rng)


def _marked(pieces: list[tuple[str, bool]]) -> list[Piece]:
    return [(text, "PERSON" if is_name else "") for text, is_name in pieces]


def _inserted(text: str, rng: random.Random) -> list[Piece]:
    """A carrier with an address in front of it, behind it, or between two of its sentences."""
    sentences = re.split(r"(?<=[.!?]) ", text)
    at = rng.randrange(len(sentences) + 1)
    before, behind = " ".join(sentences[:at]), " ".join(sentences[at:])
    lead = rng.choice(
        ("", "", "my address is ", "Address: ", "it's ", "deliver to ", "i live at ", "at ", "to ", "for ")
    )
    end = rng.choice(("", "", "", ".", ".", ",", "\n", " -"))
    gap = rng.choice((" ", " ", "\n"))
    return [
        (before + gap if before else "", ""),
        (lead, ""),
        (address(rng), "ADDRESS"),
        (end, ""),
        (" " + behind if behind else "", ""),
    ]


def _turn(pieces: list[Piece], rng: random.Random, *, carrier: bool = False) -> Turn:
    """Pieces cased and punctuated as people type, tokenised and labelled."""
    pieces = _punctuated(_cased([(normalise(text).text, label) for text, label in pieces], rng), rng)
    text = "".join(piece for piece, _ in pieces)
    owner = [label for piece, label in pieces for _ in piece]
    surfaces, names, addresses = [], [], []
    for match in TOKEN.finditer(text):
        token, label, start = match[0], owner[match.start()], match.start()
        glued = start > 0 and not text[start - 1].isspace() and token[0] != "\n"
        surfaces.append(GLUED * glued + HIDDEN * _is_hidden(token, label, rng) + token)
        names.append(_name_label(token, label, carrier=carrier))
        addresses.append(int(label == "ADDRESS"))
    return Turn(surfaces, names, addresses)


def _is_hidden(token: str, label: str, rng: random.Random) -> bool:
    flags = lexicon().get(token.lower(), 0)
    if label:
        return bool(flags and not flags & COMMON) and rng.random() < DROPOUT
    return bool(flags & (FOREIGN | PROPER)) and rng.random() < _HIDDEN


def _name_label(token: str, label: str, *, carrier: bool) -> int:
    if label == "PERSON":
        return 1
    if label:
        return -1
    flags = lexicon().get(token.lower(), 0)
    unsure = carrier and flags & NAME and not flags & (OFTEN | PROPER)
    return -1 if unsure else 0


def _cased(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    draw = rng.random()
    if draw < 0.34:
        return [(text.lower(), label) for text, label in pieces]
    if draw < 0.42:
        return [(text.lower() if label else text, label) for text, label in pieces]
    if draw < 0.45:
        return [(text.upper() if label else text, label) for text, label in pieces]
    if draw < 0.48:
        return [(text.upper(), label) for text, label in pieces]
    if draw < 0.52:
        return [(text.title(), label) for text, label in pieces]
    return pieces


def _punctuated(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    if rng.random() < 0.85:
        return pieces
    return [(_SIGNS.sub("", text), label) for text, label in pieces]


_SIGNS = re.compile(r"[,.!?;:](?=\s|$)")
