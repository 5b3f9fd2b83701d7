"""What the base itself would say: rehearsal of its own skill, and the gauge of how far a version has left it.

Anchors are sampled from the base once per base digest and cached; they hold no customer data. Those that train and
those that gauge are disjoint. KL(base || version) on anchors equals what the base's own domain loses, without labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from learner.adapter.generate import Sampling, continuations
from learner.adapter.packed import states_at
from learner.adapter.padded import logits
from learner.adapter.tree import MICRO_BATCH, Tree
from learner.adapter.weights import Base
from learner.batch import Document, Drawn, Reply
from learner.objective import kl_to_base

AT_ONCE = 32
"""Anchors that are sampled together."""


@dataclass(frozen=True)
class Anchors:
    """Documents whose targets are what the base said as an agent."""

    training: tuple[Document, ...]
    gauge: tuple[Document, ...]


def load_anchors(base: Base, count: int, tokens: int, directory: Path, seed: int = 1) -> Anchors:
    """`count` anchors of at most `tokens` each, from the cache of this base or sampled now; half of them gauge."""
    path = directory / f"anchors-{base.digests['weights_sha256'][:16]}-{count}x{tokens}-{seed}.json"
    if path.exists():
        rows: list[list[int]] = json.loads(path.read_text())
    else:
        rows = _sample(base, count, tokens, seed)
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(rows))
        unfinished.rename(path)
    different = enumerate(dict.fromkeys(map(tuple, rows)))  # one that came twice may not train and gauge
    made = [document for number, row in different if (document := _document(base, row, number)) is not None]
    return Anchors(tuple(made[: len(made) // 2]), tuple(made[len(made) // 2 :]))


def _sample(base: Base, count: int, tokens: int, seed: int) -> list[list[int]]:
    opening = [*base.chat.layout.begin, *base.chat.layout.opens["user"]]
    rows: list[list[int]] = []
    while len(rows) < count:
        size = min(AT_ONCE, count - len(rows))
        sampling = Sampling(temperature=1.0, seed=seed + len(rows))
        length = min(tokens, base.shape.context) - len(opening)
        rows += [[*opening, *row] for row in continuations(Tree(base), opening, size, length, sampling)]
    return rows


def _document(base: Base, row: Sequence[int], number: int) -> Document | None:
    """The row with loss on every agent's reply, its end included; None if the base never answered."""
    layout = base.chat.layout
    opened, end = layout.opens["agent"], layout.end
    replies, at = [], 0
    while (start := _find(row, opened, at)) >= 0:
        start += len(opened)
        stop = _find(row, end, start)
        at = len(row) if stop < 0 else stop + len(end)
        if at > start:
            replies.append(Reply(start, at, 1.0))
    return Document(tuple(row), tuple(replies), Drawn("anchor", str(number))) if replies else None


def _find(row: Sequence[int], wanted: Sequence[int], start: int) -> int:
    size = len(wanted)
    return next((i for i in range(start, len(row) - size + 1) if tuple(row[i : i + size]) == tuple(wanted)), -1)


class Gauge:
    """KL(base || version) on anchors; keeps the base's final hidden states, since log-probabilities would not fit."""

    def __init__(self, base: Base, anchors: Sequence[Document]) -> None:
        self._base = base
        ordered = sorted(anchors, key=lambda document: len(document.ids))
        groups = [ordered[at : at + MICRO_BATCH] for at in range(0, len(ordered), MICRO_BATCH)]
        self._batches = []
        with torch.inference_mode():
            for group in groups:
                rows, at = [document.ids for document in group], [_places(document) for document in group]
                self._batches.append((rows, at, states_at(base, None, rows, at)))

    @torch.inference_mode()
    def of(self, tree: Tree) -> float:
        """Mean over the anchors' target tokens, nats; 0 for the base or without anchors."""
        if tree.low is None or not self._batches:
            return 0.0
        total, count = 0.0, 0
        for rows, at, reference in self._batches:
            states = states_at(self._base, tree.low, rows, at)
            total += kl_to_base(logits(self._base, states), logits(self._base, reference)).double().sum().item()
            count += len(reference)
        return total / count


def _places(document: Document) -> list[int]:
    """Where the tokens stand that predict a target."""
    return [place - 1 for reply in document.replies for place in range(reply.start, reply.stop)]
