"""The tagger: which words of a turn are persons' names, by a linear model of small tables.

The score of a word is a sum: its own letters (hashed nowhere, cached per word), its kind, and its neighbours
within two words, each seen with the kind of the word between them. Ordinary words are never scored, so a
turn of ordinary words costs one set comparison. Weights: data/tagger.json.gz, built by building/train.py.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.resources import files
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from streams.scrub.lexicon import FOREIGN, GERMAN, OFTEN
from streams.scrub.remembered import LONGEST_WORD, Remembered
from streams.scrub.spans import Span
from streams.scrub.token_kinds import (
    END,
    GROUPS,
    KINDS,
    LEXICAL,
    NUMBER,
    START,
    TOKEN,
    flags_of,
    group_of,
    is_candidate,
    kind_of,
    shape_of,
)
from streams.scrub.whole_names import joined

THRESHOLD = 24
"""Score above which a word is a name; below 0, because a leak is worse than a mask too many."""

SURE = 64
"""What a word in lower case needs in a text of another language, most of whose words no list holds."""

CACHE_WORDS = 50_000
"""Words whose letters' score is remembered; the cache is emptied when it is full and never leaves memory."""

Row = tuple[int, ...]
"""Weights by group."""

_NO_ROW: Row = (0,) * GROUPS


class Weights(NamedTuple):
    """The model: integer weights; a word is a name when their sum is positive."""

    kind: list[int]
    """By kind."""
    before: dict[str, Row]
    before2: dict[str, Row]
    after: dict[str, Row]
    after2: dict[str, Row]
    """By the word that stands one or two before or after, then by group of the word itself."""
    pair_before: dict[str, Row]
    pair_after: dict[str, Row]
    """By the two words before, or after, then by group."""
    kinds_before: dict[int, int]
    """By kind before, kind, and whether the word before is a name, packed by `pack`."""
    kinds_after: dict[int, int]
    around: dict[int, int]
    """By kind before, kind after, group."""
    styles: dict[int, int]
    """By style of the text and kind, packed by `pack`."""
    letters: dict[str, int]
    """By shape and n-gram of the padded word."""


class Known(NamedTuple):
    """What is looked up once of a token: its own score, and its weight for neighbours on either side."""

    kind: int
    group: int
    own: int
    lower: str
    as_before: Row
    as_before2: Row
    as_after: Row
    as_after2: Row
    candidate: bool
    votes: int
    """What it says of its text's style: counts of words of English, of others, of German, of capitals."""


_CANDIDATE = Known._fields.index("candidate")
_votes = itemgetter(Known._fields.index("votes"))


@cache
def weights() -> Weights:
    """The packaged model, read once."""
    raw = json.loads(gzip.decompress(files("streams.scrub").joinpath("data/tagger.json.gz").read_bytes()))
    for name in ("kinds_before", "kinds_after", "around", "styles"):
        raw[name] = {int(k): v for k, v in raw[name].items()}
    return Weights(**raw)


def pack(a: int, b: int, c: int) -> int:
    """Three small numbers as one key."""
    return (a * KINDS + b) * KINDS + c


def as_neighbour(token: str, kind: int) -> str:
    """What the words around a token see of it: ordinary words themselves, of names and unknown words only that."""
    if kind >= START:
        return ""
    if kind == NUMBER:
        return "~0"
    if kind < NUMBER and kind % LEXICAL in _VEILED:
        return "~name" if kind % LEXICAL else "~"
    return token.lower()


_VEILED = frozenset({0, 1, 2})
"""Lexical classes that neighbours do not see through: the model learns contexts, not who met whom."""


def ngrams(word: str, shape: int) -> list[str]:
    """The n-grams of a padded word, by shape: its letters as the model sees them."""
    padded = f"<{word[:LONGEST_WORD].lower()}>"
    found = [f"{shape}{padded[i : i + n]}" for n in (2, 3, 4) for i in range(len(padded) - n + 1)]
    found += [f"{shape}^{padded[:5]}", f"{shape}${padded[-5:]}", f"{shape}#{min(len(word), 12)}"]
    return found


def _known(token: str, model: Weights, kind: int | None = None) -> Known:
    kind = kind_of(token) if kind is None else kind
    candidate = is_candidate(kind)
    own = 0
    if candidate:
        own = model.kind[kind] + sum(model.letters.get(gram, 0) for gram in ngrams(token, min(shape_of(token), 3)))
    lower = as_neighbour(token, kind)
    before, before2 = model.before.get(lower, _NO_ROW), model.before2.get(lower, _NO_ROW)
    after, after2 = model.after.get(lower, _NO_ROW), model.after2.get(lower, _NO_ROW)
    group = group_of(kind) if candidate else 0
    return Known(kind, group, own, lower, before, before2, after, after2, candidate, votes_of(token, kind))


_tokens = Remembered[str, Known](lambda token: _known(token, weights()), CACHE_WORDS)
_pieces = Remembered[str, tuple[Known, ...]](
    lambda piece: tuple(map(_tokens.__getitem__, TOKEN.findall(piece))), CACHE_WORDS
)
"""The tokens of what stands between two spaces, which no token crosses."""
_spans = Remembered[str, tuple[tuple[int, int], ...]](
    lambda piece: tuple(token.span() for token in TOKEN.finditer(piece)), CACHE_WORDS
)
"""Where they stand in it."""

_ENGLISH_VOTE, _FOREIGN_VOTE, _GERMAN_VOTE, _CAPITAL_VOTE = 1, 1 << 16, 1 << 32, 1 << 48


def votes_of(token: str, kind: int) -> int:
    """What a token adds to the votes on the style of its text; votes of all tokens are summed."""
    if kind >= NUMBER:
        return 0
    votes = _CAPITAL_VOTE if kind // LEXICAL and len(token) > 1 else 0
    if not kind % LEXICAL:  # unknown, or hidden in training
        return votes
    flags = flags_of(token)
    if flags & FOREIGN:
        return votes + _FOREIGN_VOTE + (_GERMAN_VOTE if flags & GERMAN else 0)
    return votes + (_ENGLISH_VOTE if flags & OFTEN else 0)


def style_of(votes: int) -> int:
    """The style of a text: 0 English, 1 another language, 2 German; plus 3 when it has capitals."""
    english, foreign, german = votes & 0xFFFF, votes >> 16 & 0xFFFF, votes >> 32 & 0xFFFF
    language = 0 if foreign <= english else 2 if 2 * german > foreign else 1
    return language + 3 * (votes >= _CAPITAL_VOTE)


@cache
def _edges() -> tuple[Known, Known]:
    """What stands before the first token and behind the last."""
    return _known("", weights(), START), _known("", weights(), END)


def tag(text: str) -> list[Span]:
    """Spans of the names in a detection text."""
    start, end = _edges()
    pieces = text.split(" ")
    known = [start, start, *chain.from_iterable(map(_pieces.__getitem__, pieces)), end, end]
    candidates = [i for i, each in enumerate(known) if each[_CANDIDATE]]
    if not candidates:
        return []
    model = weights()
    names: set[int] = set()
    style = style_of(sum(map(_votes, known)))
    least = LEXICAL if style > 3 else 0  # who writes another language with capitals gives names theirs
    for i in candidates:
        kind = known[i].kind
        if kind < least:
            continue
        needed = SURE if style % 3 and kind < LEXICAL else THRESHOLD
        if score(model, known, i, style, follows=i - 3 in names) > needed:
            names.add(i - 2)
    if not names:
        return []
    kinds = [k.kind for k in known[2:-2]]
    spans = _spans_of(pieces)
    return joined(text, spans, [text[start:end] for start, end in spans], kinds, names)


def _spans_of(pieces: list[str]) -> list[tuple[int, int]]:
    """Where the tokens of all pieces stand."""
    spans: list[tuple[int, int]] = []
    at = 0
    for piece in pieces:
        spans += [(at + start, at + end) for start, end in _spans[piece]]
        at += len(piece) + 1
    return spans


def score(model: Weights, known: list[Known], at: int, style: int, *, follows: bool) -> int:
    """The score of the token at `at` (two edges on each side); `follows` says whether a name stands before it."""
    before2, before, word, after, after2 = known[at - 2 : at + 3]
    kind, group = word.kind, word.group
    total = word.own + model.styles.get((style * KINDS + kind) * KINDS, 0)
    total += before.as_before[group] + before2.as_before2[group] + after.as_after[group] + after2.as_after2[group]
    row = model.pair_before.get(f"{before2.lower} {before.lower}")
    if row is not None:
        total += row[group]
    row = model.pair_after.get(f"{after.lower} {after2.lower}")
    if row is not None:
        total += row[group]
    total += model.kinds_before.get((before.kind * KINDS + kind) * KINDS + follows, 0)
    total += model.kinds_after.get((kind * KINDS + after.kind) * KINDS, 0)
    return total + model.around.get((before.kind * KINDS + after.kind) * KINDS + group, 0)
