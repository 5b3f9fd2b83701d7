"""A bounded table of what was once made of a word: cheap to look up, because a hit runs no code of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Word = TypeVar("Word", bound=str | bytes)
Made = TypeVar("Made")

LONGEST_WORD = 40
"""Longer words are no words: they are not remembered."""


class Remembered(dict[Word, Made], Generic[Word, Made]):
    """Word -> what `make` gives for it, made at its first appearance; emptied at `most` words, never persisted."""

    def __init__(self, make: Callable[[Word], Made], most: int) -> None:
        super().__init__()
        self._make: Callable[[Word], Made] = make
        self._most = most

    def __missing__(self, word: Word) -> Made:
        made = self._make(word)
        if len(word) <= LONGEST_WORD:
            if len(self) >= self._most:
                self.clear()
            self[word] = made
        return made
