"""Text that the tokenizer has no words for: noise takes more tokens a byte than the chats of its lane do.

Loss cannot tell noise from a new topic while a line learns: random letters soon cost fewer nats a token than chats of a
new shop do. Tokens per byte hang on the tokenizer alone, so they are known before the first step and never drift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from learner.adapter.chat import Chat

HISTORY = 200
"""Newest examples of a lane that its median looks back on, whether they were accepted or not."""

KNOWN = 8
"""Examples before a lane has a median: those of a first batch, which a fifth of noise does not move."""

SHORT = 20
"""Replies of fewer bytes are not judged: a price or an order number is no noise."""


def density(chat: Chat, said: Sequence[str]) -> float:
    """Tokens per ASCII byte of replies; 0 if they are too short to be judged.

    Other bytes are taken to cost a token each, so that letters that the tokenizer does not know are never held against
    a text.
    """
    size = sum(len(text.encode()) for text in said)
    plain = sum(char.isascii() for text in said for char in text)
    tokens = sum(len(chat.text_ids(text)) for text in said)
    return max(tokens - (size - plain), 0) / plain if plain >= SHORT else 0.0


class Spelling:
    """The densities of each lane's newest examples."""

    def __init__(self, limit: float) -> None:
        """`limit` is how many times its lane's median an example may have; 0 judges nothing."""
        self._limit = limit
        self._lanes: dict[str, deque[float]] = {}
        self._medians: dict[str, float] = {}

    def look(self, examples: Iterable[tuple[str, float]]) -> None:
        """Take the (lane, density) of a step's fresh examples to know, before they are judged."""
        for lane, found in examples:
            if found > 0:
                self._lanes.setdefault(lane, deque(maxlen=HISTORY)).append(found)
        self._medians = {lane: median(known) for lane, known in self._lanes.items() if len(known) >= KNOWN}

    def is_noise(self, lane: str, found: float) -> bool:
        """Whether a density lies too far above its lane's."""
        return self._limit > 0 and lane in self._medians and found > self._limit * self._medians[lane]

    def state(self) -> dict[str, list[float]]:
        """Everything that a checkpoint needs, as JSON."""
        return {lane: list(known) for lane, known in self._lanes.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        """Continue from `state()`."""
        self._lanes = {lane: deque(known, maxlen=HISTORY) for lane, known in state.items()}
        self.look(())
