"""What rated and edited replies were worth to the version that was last published when each was first drawn.

The objective compares with it. It is computed once: a reference that moved with every publication would push a bad
reply down without end, and cost a forward pass of every rehearsed one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from learner.adapter import Tree
from learner.batch import Document
from learner.update import with_references

REMEMBERED = 4_096
"""Documents whose references are kept; a forgotten one is computed anew."""


class References:
    """References by sample and window, under the tree that was current when they were first wanted."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._known: dict[str, tuple[float | None, ...]] = {}

    def of(self, documents: Sequence[Document]) -> tuple[Document, ...]:
        """The documents with their references."""
        names = _names(documents)
        filled = [self._filled(name, document) for name, document in zip(names, documents, strict=True)]
        found = with_references(self.tree, filled)
        self._remember(names, found)
        return tuple(found)

    def learn(self, documents: Sequence[Document]) -> None:
        """Take over what a logged step was given."""
        self._remember(_names(documents), documents)

    def restart(self, tree: Tree) -> None:
        """Compare with another trajectory's start from now on."""
        self.tree = tree
        self._known.clear()

    def forget(self, keys: Collection[str]) -> None:
        """Drop what is kept of erased samples."""
        self._known = {name: values for name, values in self._known.items() if name.partition("/")[0] not in keys}

    def state(self) -> dict[str, list[float | None]]:
        """Everything that a checkpoint needs, as JSON."""
        return {name: list(values) for name, values in self._known.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._known = {name: tuple(values) for name, values in state.items()}

    def _filled(self, name: str, document: Document) -> Document:
        known = self._known.get(name, ())
        if len(known) != len(document.replies):
            return document
        replies = [replace(reply, reference=value) for reply, value in zip(document.replies, known, strict=True)]
        return replace(document, replies=tuple(replies))

    def _remember(self, names: Sequence[str], documents: Sequence[Document]) -> None:
        for name, document in zip(names, documents, strict=True):
            values = tuple(reply.reference for reply in document.replies)
            if any(value is not None for value in values):
                self._known.setdefault(name, values)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def _names(documents: Sequence[Document]) -> list[str]:
    """Key of the sample and number of the window, for each document of a step."""
    windows: Counter[str] = Counter()
    names = []
    for document in documents:
        names.append(f"{document.drawn.key}/{windows[document.drawn.key]}")
        windows[document.drawn.key] += 1
    return names
