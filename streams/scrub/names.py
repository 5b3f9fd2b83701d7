"""The tagger: which words of a turn are persons' names, by a linear model of small tables.

The score of a word is a sum: its own letters (hashed nowhere, cached per word), its kind, and its neighbours
within two words, each seen with the kind of the word between them. Ordinary words are never scored, so a
turn of ordinary words costs one set comparison. Weights: data/tagger.json.gz, built by building/train.py.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import NamedTuple

from streams.scrub.lexicon import COMMON, FIRST, FOREIGN, GERMAN, NAME, OFTEN, PROPER, lexicon
from streams.scrub.spans import Span
from streams.scrub.typos import intended

TOKEN = re.compile(r"[A-Za-z\x01]+(?:-[A-Za-z\x01]+|'(?!s\b)[A-Za-z]+)*|'s\b|\d+|\n+|[^\sA-Za-z\d]")
PARTICLES = frozenset(
    "de da di do dos das del della van von der den ten ter la le el al bin ibn ben zu af av mac mc st y e".split()
)

GROUPS = 12
"""Kinds as neighbours see them: four shapes times name-like, unknown, ordinary."""

SHAPES = 5
LEXICAL = 9
NUMBER, COMMA, STOP, ASK, COLON, BREAK, QUOTE, OTHER, GENITIVE, START, END = range(
    SHAPES * LEXICAL, SHAPES * LEXICAL + 11
)
KINDS = END + 1
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
THRESHOLD = -56
"""Score above which a word is a name; below 0, because a leak is worse than a mask too many."""

CACHE_WORDS = 50_000
"""Words whose letters' score is remembered; the cache is emptied when it is full and never leaves memory."""

LONGEST_WORD = 40
"""Letters of a word that are looked at; longer words are not remembered."""

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


_GROUP_OF_LEXICAL = (1, 0, 0, 2, 2, 0, 2, 1, 1)
"""Unknown, proper and foreign 1, name 0, ordinary 2; a very frequent word that is also a name counts as a name."""


def flags_of(token: str) -> int:
    """The lexicon flags of a word; of one with an elided article ("l'ordine", "j'habite") those of the rest."""
    lower = token.lower()
    flags = lexicon().get(lower, 0)
    if not flags and "'" in lower:
        article, _, rest = lower.partition("'")
        return lexicon().get(rest, 0) if article in _ELIDED else 0
    if not flags and "-" in lower:
        return _compound(lower.split("-"))
    return flags or (COMMON if intended(lower) else 0)


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


def group_of(kind: int) -> int:
    """The group of a word's kind."""
    shape, lexical = divmod(kind, LEXICAL)
    return min(shape, 3) * 3 + _GROUP_OF_LEXICAL[lexical]


def is_candidate(kind: int) -> bool:
    """Whether a token of this kind is scored at all: no ordinary word in lower case, no frequent one in any."""
    if kind >= NUMBER:
        return False
    shape, lexical = divmod(kind, LEXICAL)
    if shape == 0:
        return lexical in {0, 1, 2, 7, 8}
    return lexical != 3 and shape != 4  # a very frequent word that is no name; an initial


def ngrams(word: str, shape: int) -> list[str]:
    """The n-grams of a padded word, by shape: its letters as the model sees them."""
    padded = f"<{word[:LONGEST_WORD].lower()}>"
    found = [f"{shape}{padded[i : i + n]}" for n in (2, 3, 4) for i in range(len(padded) - n + 1)]
    found += [f"{shape}^{padded[:5]}", f"{shape}${padded[-5:]}", f"{shape}#{min(len(word), 12)}"]
    return found


class _Tokens(dict[str, Known]):
    """Every token met, looked up at its first appearance."""

    def __missing__(self, token: str) -> Known:
        known = _known(token, weights())
        if len(token) <= LONGEST_WORD:
            if len(self) >= CACHE_WORDS:
                self.clear()
            self[token] = known
        return known


_tokens = _Tokens()


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
    tokens = TOKEN.findall(text)
    start, end = _edges()
    known = [start, start, *map(_tokens.__getitem__, tokens), end, end]
    model = weights()
    names: set[int] = set()
    candidates = [i for i, each in enumerate(known) if each[_CANDIDATE]]
    if not candidates:
        return []
    style = style_of(sum(map(_votes, known)))
    least = LEXICAL if style > 3 else 0  # who writes another language with capitals gives names theirs
    for i in candidates:
        if known[i].kind < least:
            continue
        if score(model, known, i, style, follows=i - 3 in names) > THRESHOLD:
            names.add(i - 2)
    if not names:
        return []
    kinds = [k.kind for k in known[2:-2]]
    return _joined(text, [m.span() for m in TOKEN.finditer(text)], tokens, kinds, names)


def score(model: Weights, known: list[Known], at: int, style: int, *, follows: bool) -> int:
    """The score of the token at `at` (two edges on each side); `follows` says whether a name stands before it."""
    kind, group, total, *_ = known[at]
    total += model.styles.get((style * KINDS + kind) * KINDS, 0)
    before2, before, after, after2 = known[at - 2], known[at - 1], known[at + 1], known[at + 2]
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


def _joined(
    text: str, spans: list[tuple[int, int]], tokens: list[str], kinds: list[int], names: set[int]
) -> list[Span]:
    """Names as spans, with the initials and particles between their words and the name-like words beside them."""
    sentence = _Sentence(text, spans, tokens, kinds, names)
    found: list[Span] = []
    i = 0
    while i < len(tokens):
        if i not in names:
            i += 1
            continue
        last = sentence.extended(i)
        first = i - 1 if i and sentence.is_beside(i - 1, i, _IN_FRONT) else sentence.before_initial(i)
        if found and found[-1][1] > spans[first][0]:
            first = i
        found.append((spans[first][0], spans[last][1], "PERSON"))
        i = last + 1
    return found


class _Sentence(NamedTuple):
    """A tagged text: tokens with their spans and kinds, and which of them are names."""

    text: str
    spans: list[tuple[int, int]]
    tokens: list[str]
    kinds: list[int]
    names: set[int]

    def extended(self, first: int) -> int:
        """The last token of the name that begins at `first`; few tokens ("K. van der") lie between."""
        last, at = first, first + 1
        while at < len(self.tokens) and at - last <= _INSIDE and self._same_line(at):
            lower = self.tokens[at].lower()
            joins = (at == last + 1 and (lower in _AFTER_NAMES or self.is_beside(at, last, _BEHIND))) or (
                self._is_surname(at, last)
            )
            if at in self.names or joins:
                last = at
            elif not (_initial(lower) or (lower == "." and _initial(self.tokens[at - 1])) or lower in PARTICLES):
                break
            at += 1
        return last

    def before_initial(self, at: int) -> int:
        """The capitalised word that stands before an initial before the name at `at`: "Roger O. Lund"; else `at`."""
        initial = at - 2 if at > 1 and self.tokens[at - 1] == "." else at - 1
        if initial < 1 or not (_initial(self.tokens[initial]) and self.tokens[initial].isupper()):
            return at
        shape, lexical = divmod(self.kinds[initial - 1], LEXICAL)
        return initial - 1 if shape == 1 and lexical != 3 and self._same_line(initial) else at

    def _is_surname(self, at: int, name: int) -> bool:
        """Whether a word that is also a surname goes on with a first name, or any rare word behind an initial."""
        shape, lexical = divmod(self.kinds[at], LEXICAL)
        if self.kinds[at] >= NUMBER or lexical == 3 or shape == 4:
            return False
        if at == name + 1:
            first = self.kinds[name] % LEXICAL == 1
            return first and lexical == 6 and self.text[self.spans[name][1] : self.spans[at][0]] == " "
        between, lower = self.tokens[name + 1], self.tokens[at].lower()
        return _initial(between) and between not in _WORDS_OF_ONE and lower not in PARTICLES

    def is_beside(self, at: int, name: int, kinds: frozenset[int]) -> bool:
        """Whether the word at `at`, a space from a capitalised name, is of one of these kinds."""
        gap = self.text[self.spans[min(at, name)][1] : self.spans[max(at, name)][0]]
        return gap == " " and self.kinds[at] in kinds and self.kinds[name] // LEXICAL == 1

    def _same_line(self, at: int) -> bool:
        return "\n" not in self.text[self.spans[at - 1][1] : self.spans[at][0] + 1]


_WORDS_OF_ONE = frozenset("aiuynokre")
"""Letters that are words somewhere, in small letters: no initials."""
_BEHIND = frozenset(LEXICAL + lexical for lexical in (0, 1, 2, 4, 5, 6, 7, 8))
"""Capitalised words that go on with a name."""
_INSIDE = 6
"""Tokens from one word of a name to the next: an initial, its full stop, two particles."""

_IN_FRONT = frozenset(LEXICAL + lexical for lexical in (0, 1, 2, 6, 7, 8))
"""Capitalised words that begin one; a frequent word is a greeting ("Dear")."""
_AFTER_NAMES = frozenset({"ii", "iii", "jr", "sr", "md", "phd", "esq"})


def _initial(token: str) -> bool:
    return len(token) == 1 and token.isalpha()
