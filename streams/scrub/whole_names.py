"""Names as spans: the tagger's words joined, with the initials, particles and capitalised words that belong to them."""

from __future__ import annotations

from typing import NamedTuple

from streams.scrub.spans import Span
from streams.scrub.token_kinds import LEXICAL, NUMBER, PARTICLES


def joined(text: str, spans: list[tuple[int, int]], tokens: list[str], kinds: list[int], names: set[int]) -> list[Span]:
    """Names as spans, with the initials and particles between their words and the name-like words beside them."""
    sentence = _Sentence(text, spans, tokens, kinds, names)
    found: list[Span] = []
    last = -1
    for i in sorted(names):
        if i <= last:
            continue
        last = sentence.extended(i)
        first = i - 1 if i and sentence.is_beside(i - 1, i, _IN_FRONT) else sentence.before_initial(i)
        if found and found[-1][1] > spans[first][0]:
            first = i
        found.append((spans[first][0], spans[last][1], "PERSON"))
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
            joins = (
                (at == last + 1 and (lower in _AFTER_NAMES or self.is_beside(at, last, _BEHIND)))
                or self._is_surname(at, last)
                or self._is_behind_particle(at)
            )
            if at in self.names or joins:
                last = at
            elif not (_initial(lower) or (lower == "." and _initial(self.tokens[at - 1])) or self._is_particle(at)):
                break
            at += 1
        return self._with_initial(last)

    def _is_particle(self, at: int) -> bool:
        """Whether a token stands between the words of a name: "de", the sign and the letter of "van 't Hoff"."""
        return self.tokens[at].lower() in PARTICLES or (
            self.tokens[at] == "'" and self.tokens[at - 1].lower() in PARTICLES
        )

    def _is_behind_particle(self, at: int) -> bool:
        """Whether a capitalised word stands behind a particle: "van der Meer", "van 't Hoff"."""
        before = self.tokens[at - 1].lower()
        if before == "t" and at > 1 and self.tokens[at - 2] == "'":
            before = self.tokens[at - 3].lower() if at > 2 else ""
        return self.kinds[at] // LEXICAL == 1 and self.kinds[at] < NUMBER and len(before) > 1 and before in PARTICLES

    def _with_initial(self, last: int) -> int:
        """The name's last token, or the capital with a full stop that stands for the rest: "Sia K."."""
        initial, stop = last + 1, last + 2
        if stop >= len(self.tokens) or self.tokens[stop] != "." or self.kinds[last] // LEXICAL != 1:
            return last
        alone = len(self.tokens[initial]) == 1 and self.tokens[initial].isupper()
        return stop if alone and self.text[self.spans[last][1] : self.spans[initial][0]] == " " else last

    def before_initial(self, at: int) -> int:
        """The capitalised word that stands before an initial before the name at `at`: "Roger O. Lund"; else `at`."""
        initial = at - 2 if at > 1 and self.tokens[at - 1] == "." else at - 1
        if initial < 1 or not (_initial(self.tokens[initial]) and self.tokens[initial].isupper()):
            return at
        if self._is_initial(initial - 1):  # "T. J. Lund"
            return initial - 2
        shape, lexical = divmod(self.kinds[initial - 1], LEXICAL)
        return initial - 1 if shape == 1 and lexical != 3 and self._same_line(initial) else at

    def _is_initial(self, stop: int) -> bool:
        """Whether a capital of its own stands before the full stop at `stop`."""
        if stop < 1 or self.tokens[stop] != ".":
            return False
        return _initial(self.tokens[stop - 1]) and self.tokens[stop - 1].isupper()

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
