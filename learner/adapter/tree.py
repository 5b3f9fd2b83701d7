"""An immutable module tree for each version: its own LoRA tensors over the base tensors that all versions share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from learner.adapter.chat import ChatTurn
from learner.adapter.decoder import LowRank
from learner.adapter.lora import Lora, read_lora
from learner.adapter.packed import states_at
from learner.adapter.padded import logits
from learner.adapter.weights import Base

MICRO_BATCH = 8
"""Documents scored or trained at once: more would leave the caches of a CPU."""


@dataclass(frozen=True)
class Tree:
    """A base and one version's scaled LoRA tensors (None: the base alone); safe to use from many threads."""

    base: Base
    low: tuple[LowRank, ...] | None = None
    lora: Lora | None = None


def load_adapter(base: Base, directory: Path) -> Tree:
    """The tree of an adapter folder. Raises AdapterError if it does not fit the base."""
    return tree_of(base, read_lora(base.shape, directory, base.device))


def tree_of(base: Base, lora: Lora) -> Tree:
    """A tree over a copy of running weights; later steps do not change it."""
    frozen = lora.with_flat(lora.flat.detach().clone())
    return Tree(base, tuple(frozen.layers(base.dtype)), frozen)


@dataclass(frozen=True)
class Score:
    """How well one conversation's replies are predicted."""

    loss: float
    """Mean cross-entropy over its target tokens, nats; 0 if it has none."""
    tokens: int
    correct: int
    """Target tokens that are the model's first choice."""


@torch.inference_mode()
def score(tree: Tree, samples: Iterable[Sequence[ChatTurn]]) -> list[Score]:
    """Teacher-forced scores of chats, in their order; of a chat longer than the context the newest tokens."""
    base = tree.base
    encoded = [base.chat.encode(turns) for turns in samples]
    results = [Score(0.0, 0, 0)] * len(encoded)
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
    for at in range(0, len(order), MICRO_BATCH):
        chosen = order[at : at + MICRO_BATCH]
        limit = base.shape.context
        rows = [encoded[index].ids[-limit:] for index in chosen]
        masks = [encoded[index].mask()[-limit:] for index in chosen]
        for index, result in zip(chosen, _score_rows(tree, rows, masks), strict=True):
            results[index] = result
    return results


def _score_rows(tree: Tree, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]]) -> list[Score]:
    base = tree.base
    where = [[i for i in range(1, len(mask)) if mask[i]] for mask in masks]
    counts = [len(found) for found in where]
    if not sum(counts):
        return [Score(0.0, 0, 0)] * len(rows)
    predicted = logits(base, states_at(base, tree.low, rows, [[i - 1 for i in found] for found in where]))
    wanted = torch.tensor([row[i] for row, found in zip(rows, where, strict=True) for i in found], device=base.device)
    losses = functional.cross_entropy(predicted, wanted, reduction="none").double()
    hits = (predicted.argmax(-1) == wanted).long()
    return [
        Score(float(loss.sum()) / max(len(loss), 1), len(loss), int(hit.sum()))
        for loss, hit in zip(torch.split(losses, counts), torch.split(hits, counts), strict=True)
    ]


@torch.inference_mode()
def logprobs(tree: Tree, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> list[list[float]]:
    """fp32 log-probabilities (prompts x token_ids) of the first token after each prompt: a fingerprint."""
    base = tree.base
    chosen = torch.tensor(token_ids, device=base.device)
    found: list[list[float]] = []
    for prompt in prompts:
        last = states_at(base, tree.low, [prompt], [[len(prompt) - 1]])
        found.append(logits(base, last).log_softmax(-1)[0, chosen].tolist())
    return found
