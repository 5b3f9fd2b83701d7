"""How sure a version is of the replies in some documents: entropy and margin, the scores of the review queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from learner.adapter import Tree
from learner.adapter.padded import hidden_padded, logits, pad
from learner.batch import Document

MICRO_BATCH = 8
"""Documents of one forward pass: the logits of their replies lie in memory whole."""


class Unsure(NamedTuple):
    """Means over the tokens of a document's replies: entropy in nats, best less second-best probability 0 to 1."""

    entropy: float
    margin: float


@torch.no_grad()
def uncertainty(tree: Tree, documents: Sequence[Document]) -> dict[str, Unsure]:
    """The scores of documents that hold a target, by the key of their sample."""
    chosen = sorted((d for d in documents if d.targets), key=lambda d: len(d.ids))
    found: dict[str, Unsure] = {}
    for first in range(0, len(chosen), MICRO_BATCH):
        group = chosen[first : first + MICRO_BATCH]
        tokens = pad([document.ids for document in group], tree.base.device)
        states = hidden_padded(tree.base, tree.low, tokens).view(*tokens.shape, -1)
        for row, document in enumerate(group):
            at = [i - 1 for reply in document.replies for i in range(reply.start, reply.stop)]
            likely = logits(tree.base, states[row, at]).softmax(-1)
            best = likely.topk(2, dim=-1).values
            entropy = -(likely * likely.clamp_min(1e-12).log()).sum(-1)
            found[document.drawn.key] = Unsure(entropy.mean().item(), (best[:, 0] - best[:, 1]).mean().item())
    return found
