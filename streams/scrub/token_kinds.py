"""Kinds of the tokens of a text, as the tagger sees them: shape and lexical class of a word, or what sign it is."""

from __future__ import annotations

from streams.scrub.lexicon import COMMON, FIRST, FOREIGN, NAME, OFTEN, PROPER, lexicon
from streams.scrub.typos import intended, is_slip

PARTICLES = frozenset(
    "de da di do dos das del della van von der den ten ter la le el al bin ibn ben zu af av mac mc st y e".split()
)

SHAPES = 5
LEXICAL = 9
NUMBER, COMMA, STOP, ASK, COLON, BREAK, QUOTE, OTHER, GENITIVE, END = range(SHAPES * LEXICAL, SHAPES * LEXICAL + 10)
"""Signs, and what stands outside a text."""
_SIGNS = {
    ",": COMMA,
    ".": STOP,
    "?": ASK,
    "!": ASK,
    ":": COLON,
    "'s": GENITIVE,
    '"': QUOTE,
    "'": QUOTE,
    "(": QUOTE,
    ")": QUOTE,
}


def shape_of(word: str) -> int:
    """0 lower case, 1 capitalised, 2 capitals, 3 mixed, 4 a single capital."""
    if word.islower() or word[:1] == "\x01":
        return 0
    if len(word) == 1:
        return 4
    if word.isupper():
        return 2
    return 1 if word[0].isupper() else 3


def lexical_of(flags: int) -> int:
    """The class of a word by its lexicon flags, 0 for an unknown one."""
    if flags & NAME:
        if flags & COMMON:
            return 5 if flags & OFTEN else 6
        return 1 if flags & FIRST else 2
    if flags & FOREIGN:
        return 8
    if flags & COMMON:
        return 3 if flags & OFTEN else 4
    return 7 if flags & PROPER else 0


def flags_of(token: str) -> int:
    """The lexicon flags of a word; of one with an elided article ("l'ordine", "j'habite") those of the rest."""
    lower = token.lower()
    flags = lexicon().get(lower, 0)
    if not flags and "'" in lower:
        article, _, rest = lower.partition("'")
        return lexicon().get(rest, 0) if article in _ELIDED else 0
    if not flags and "-" in lower:
        return _compound(lower.split("-"))
    return flags or (COMMON if intended(lower) or (token == lower and is_slip(lower)) else 0)


def _compound(parts: list[str]) -> int:
    """The flags of a word joined by hyphens: ordinary if all its parts are ("follow-up", "tracking-id")."""
    found = [lexicon().get(part, 0) for part in parts if part]
    return COMMON if all(flags & COMMON for flags in found) else 0


_ELIDED = frozenset("l d j m t s c n qu jusqu lorsqu un dell all nell sull dall quell".split())


def kind_of(token: str, flags: int | None = None) -> int:
    """The kind of a token: shape and class of a word, or what sign it is."""
    if token[0].isalpha() or token[0] == "\x01":
        return shape_of(token) * LEXICAL + lexical_of(flags_of(token) if flags is None else flags)
    if token[0].isdigit():
        return NUMBER
    return _SIGNS.get(token, BREAK if token[0] == "\n" else OTHER)


def is_candidate(kind: int) -> bool:
    """Whether a token of this kind is scored at all: no ordinary word in lower case, no frequent one in any."""
    if kind >= NUMBER:
        return False
    shape, lexical = divmod(kind, LEXICAL)
    if shape == 0:
        return lexical in {0, 1, 2, 7, 8}
    return lexical != 3 and shape != 4  # a very frequent word that is no name; an initial
