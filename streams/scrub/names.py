"""The tagger: which words of a turn are persons' names, by a small network over the five words on each side.

What each word brings to the hidden layer, from each place, is worked out once per word and kept as one long integer
(lanes.py), so a candidate costs a dozen additions. Ordinary words are no candidates: a turn of them costs a look at
its pieces. Weights: data/tagger.bin.gz, built by building/train.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from streams.scrub import lanes
from streams.scrub.lexicon import FOREIGN, GERMAN, OFTEN
from streams.scrub.network import unpacked
from streams.scrub.network_features import EDGE, GLUED, HIDDEN, TOKEN, features_of
from streams.scrub.remembered import Remembered
from streams.scrub.spans import Span
from streams.scrub.token_kinds import END, LEXICAL, NUMBER, flags_of, is_candidate, kind_of
from streams.scrub.whole_names import joined

AROUND = 5
"""Words and signs on each side that a candidate is judged by."""
PLACES = (*range(-AROUND, 0), *range(1, AROUND + 1))
THRESHOLD = -3.0
"""Nats above which a word is a name; below 0, because a leak is worse than a mask too many."""
ORDINARY = -1.0
"""What a word needs that is also an ordinary one ("will", "grace")."""
FOREIGN_SMALL = -0.5
"""What a word in small letters needs in a text of another language, most of whose words no list holds."""
UNREADABLE = "\x01"
"""Stands for a letter without a Latin reading: scripts.py looks for names in those."""
CACHE_WORDS = 20_000
"""Words of which is remembered what they bring; the tables are emptied when they are full and never leave memory."""


class Known(NamedTuple):
    """What is looked up once of a token: what it brings to its own score and to those of its neighbours."""

    kind: int
    candidate: bool
    own: int
    around: tuple[int, ...]
    """By place, from the farthest before a candidate to the farthest behind it."""
    needed: tuple[int, int]
    """What it needs to be a name, in an English text and in another."""


class Piece(NamedTuple):
    """What stands between two spaces."""

    tokens: tuple[Known, ...]
    candidate: bool
    """Whether one of its tokens may be a name."""
    votes: int
    """What it says of its text's style: counts of words of English, of others, of German, of capitals."""


class Tagger:
    """The packaged weights."""

    def __init__(self, raw: bytes) -> None:
        features, arrays = unpacked(raw)
        order = np.argsort(arrays["out"][:, 0] < 0, kind="stable")
        folded = np.abs(arrays["out"][order, 0])  # a weight may move in front of max(0, x)
        self._index = {name: i for i, name in enumerate(features)}
        self._own, self._context = arrays["own"][:, order] * folded, arrays["context"]
        near = arrays["near"].reshape(len(PLACES), -1, len(order))[:, :, order] * folded
        self._near = near.transpose(1, 0, 2).reshape(-1, len(PLACES) * len(order))
        start = (arrays["style"] + arrays["bias"])[:, order] * folded
        self.start = lanes.packed(start), lanes.packed(start + arrays["follows"][0, order] * folded)
        """By style; of what follows no name, and of what does."""
        self.output = lanes.output(int((arrays["out"] >= 0).sum()), len(order))
        self._bias = float(arrays["out_bias"][0])
        self._brought = Remembered[str, tuple[int, ...]](self._around, CACHE_WORDS)

    def known(self, surface: str) -> Known:
        """What a token brings; `surface` may begin with marks."""
        kind = kind_of_surface(surface)
        candidate = is_candidate(kind) and UNREADABLE not in surface
        own = 0
        if candidate:
            rows = [self._index[name] for name in own_features(surface, kind) if name in self._index]
            own = lanes.packed(np.add.reduce(self._own[rows])[None])[0]
        around = self._brought[_APART.join(context_features(surface, kind))]
        return Known(kind, candidate, own, around, self._needed(kind))

    def _needed(self, kind: int) -> tuple[int, int]:
        """What a word of a kind needs to be a name, in 1/`lanes.UNIT` nats."""
        nats = ORDINARY if kind % LEXICAL in _ORDINARY else THRESHOLD
        small = max(nats, FOREIGN_SMALL) if kind < LEXICAL else nats
        return round((nats - self._bias) * lanes.UNIT), round((small - self._bias) * lanes.UNIT)

    def _around(self, names: str) -> tuple[int, ...]:
        """What a token with these features brings to its neighbours; many words have the same."""
        count = len(self._context)
        rows = [i for name in names.split(_APART) if (i := self._index.get(name, count)) < count]
        return lanes.packed((np.add.reduce(self._context[rows]) @ self._near).reshape(len(PLACES), -1))

    def scored(self, surfaces: list[str], style: int, follows: set[int]) -> dict[int, float]:
        """Nats of the candidates among tokens, before the last bias; `follows` are those behind a word of a name."""
        edges = [self.known(EDGE)] * AROUND
        known = [*edges, *map(self.known, surfaces), *edges]
        return {
            i: self.output.nats(_hidden(known, i + AROUND) + self.start[i in follows][style]) / lanes.UNIT
            for i, each in enumerate(known[AROUND:-AROUND])
            if each.candidate
        }


def kind_of_surface(surface: str) -> int:
    """The kind of a token, `END` for what stands outside; of a hidden word as if no list held it."""
    token = surface.lstrip(GLUED + HIDDEN)
    if token in ("", EDGE):
        return END
    return kind_of(token, 0 if HIDDEN in surface else None)


def own_features(surface: str, kind: int) -> Iterator[str]:
    """The names of the rows that a candidate sums up for itself."""
    return chain((name for name in features_of(surface) if name != "glued"), (f"kind{kind}",))


def context_features(surface: str, kind: int) -> Iterator[str]:
    """Those for its neighbours: not its letters, for the network learns contexts, not who met whom."""
    yield from (name for name in features_of(surface) if name[0] not in _OF_LETTERS and name[:6] != "length")
    yield f"kind{kind}"


_ORDINARY = frozenset({4, 5, 6, 8})
"""Lexical classes of words that are no names, or not always."""
_OF_LETTERS = frozenset("345")
_APART = "\x05"
"""Between the names of features, some of which have spaces."""


@cache
def tagger() -> Tagger:
    """The packaged model, read once."""
    return Tagger(files("streams.scrub").joinpath("data/tagger.bin.gz").read_bytes())


_tokens = Remembered[str, Known](lambda surface: tagger().known(surface), CACHE_WORDS)
_candidate = itemgetter(Known._fields.index("candidate"))
_kind = itemgetter(Known._fields.index("kind"))
_inside = itemgetter(Piece._fields.index("tokens"))
_votes = itemgetter(Piece._fields.index("votes"))
_CANDIDATE = Piece._fields.index("candidate")


def _piece(piece: str) -> Piece:
    tokens, votes = [], 0
    for surface in surfaces_of(piece):
        tokens.append(_tokens[surface])
        votes += votes_of(surface.lstrip(GLUED), tokens[-1].kind)
    return Piece(tuple(tokens), any(map(_candidate, tokens)), votes)


def surfaces_of(text: str) -> Iterator[str]:
    """The tokens of a text, those that no space parts from the one before them marked."""
    for match in TOKEN.finditer(text):
        start, token = match.start(), match[0]
        glued = start > 0 and not text[start - 1].isspace() and token[0] != "\n"
        yield GLUED * glued + token


_pieces = Remembered[str, Piece](_piece, CACHE_WORDS)
_spans = Remembered[str, tuple[tuple[int, int], ...]](
    lambda piece: tuple(token.span() for token in TOKEN.finditer(piece)), CACHE_WORDS
)
"""Where the tokens of a piece stand in it."""

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
    return language + LANGUAGES * (votes >= _CAPITAL_VOTE)


LANGUAGES = 3
"""Styles without capitals."""


@cache
def _edges() -> tuple[Known, ...]:
    """What stands before the first token and behind the last."""
    return (tagger().known(EDGE),) * AROUND


def tag(text: str, pieces: list[str]) -> list[Span]:
    """Spans of the names in a detection text; `pieces` is what stands between its spaces."""
    seen = list(map(_pieces.__getitem__, pieces))
    if not [1 for piece in seen if piece[_CANDIDATE]]:
        return []
    known = [*_edges(), *chain.from_iterable(map(_inside, seen)), *_edges()]
    names = _named(known, style_of(sum(map(_votes, seen))))
    if not names:
        return []
    first, spans = _spans_near(pieces, seen, min(names) - BESIDE, max(names) + BESIDE)
    kinds = list(map(_kind, known[AROUND + first : AROUND + first + len(spans)]))
    return joined(text, spans, [text[start:end] for start, end in spans], kinds, {i - first for i in names})


BESIDE = 12
"""Tokens beside its first and last words that a name is joined with at most."""


def _named(known: list[Known], style: int) -> set[int]:
    """Which tokens are names; `known` has edges on both sides."""
    model = tagger()
    nats = model.output.nats
    alone, behind = model.start[0][style], model.start[1][style]
    foreign = style % LANGUAGES > 0
    names: set[int] = set()
    for i, each in enumerate(known):
        if each[1]:  # a candidate
            said = nats(_hidden(known, i) + (behind if i - AROUND - 1 in names else alone))
            if said > each.needed[foreign]:
                names.add(i - AROUND)
    return names


def _hidden(known: list[Known], at: int) -> int:
    """What the token at `at` and its neighbours bring to its hidden layer; written out, for a loop costs twice that."""
    a, b, c, d, e, word, f, g, h, i, j = known[at - AROUND : at + AROUND + 1]
    return (
        a.around[0] + b.around[1] + c.around[2] + d.around[3] + e.around[4] + word.own
        + f.around[5] + g.around[6] + h.around[7] + i.around[8] + j.around[9]
    )  # fmt: skip


def _spans_near(pieces: list[str], seen: list[Piece], first: int, last: int) -> tuple[int, list[tuple[int, int]]]:
    """Where the tokens of the pieces with tokens from `first` to `last` stand, and which is the first of them."""
    spans: list[tuple[int, int]] = []
    at = count = begin = 0
    for piece, (tokens, _, _) in zip(pieces, seen, strict=True):
        count += len(tokens)
        if count <= first:
            begin = count
        else:
            spans += [(at + start, at + end) for start, end in _spans[piece]]
            if count > last:
                break
        at += len(piece) + 1
    return begin, spans
