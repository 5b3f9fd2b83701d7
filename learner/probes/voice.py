"""A version that can be asked: what the probes need of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.events import Turn


@dataclass(frozen=True)
class Continuation:
    """An unfinished reply and the text that would go on with it."""

    turns: tuple[Turn, ...]
    prefix: str
    text: str


@dataclass(frozen=True)
class Continued:
    """How a version sees a continuation: summed nats of its tokens, and whether greedy decoding would write it."""

    nats: float
    tokens: int
    greedy: bool


class Voice(Protocol):
    """One version: a module tree, or an engine behind HTTP."""

    def answers(self, prompts: Sequence[Sequence[Turn]]) -> list[str]:
        """Greedy answers to chats that end with the customer's turn."""

    def continued(self, continuations: Sequence[Continuation]) -> list[Continued]:
        """Likelihood of each continuation."""
