"""Auxiliary classifiers on a version: sentiment, intent, or any label of a customer's turn.

A head is linear on the last hidden state at the end of the customer's turn, features detached: it never steers the
adapter and never stands in its files. It is a blob of its own, named by digest in the model card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from learner.adapter import Tree
from learner.adapter.packed import states_at
from learner.measures import class_report
from streams.events import Turn

MICRO_BATCH = 32


@dataclass(frozen=True)
class Labelled:
    """A chat that ends with the customer's turn, and its class."""

    turns: tuple[Turn, ...]
    label: str


@dataclass(frozen=True)
class HeadConfig:
    """How a head is fitted."""

    steps: int = 300
    learning_rate: float = 3e-2
    weight_decay: float = 1e-3
    seed: int = 1


@dataclass(frozen=True)
class Head:
    """A linear classifier: weight (labels, hidden), bias (labels), and the scale of its features."""

    labels: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    mean: Tensor
    spread: Tensor

    def predict(self, features: Tensor) -> list[str]:
        """The most likely label of each row (n, hidden)."""
        scores = ((features - self.mean) / self.spread) @ self.weight.T + self.bias
        return [self.labels[at] for at in scores.argmax(-1).tolist()]

    def to_bytes(self) -> bytes:
        """A safetensors blob, labels in its metadata; the same head gives the same bytes."""
        tensors = {"weight": self.weight, "bias": self.bias, "mean": self.mean, "spread": self.spread}
        found: bytes = save(
            {name: value.contiguous() for name, value in tensors.items()}, metadata={"labels": json.dumps(self.labels)}
        )
        return found


def read_head(raw: bytes) -> Head:
    """A head from its blob. Raises ValueError when labels and weights do not fit."""
    length = int.from_bytes(raw[:8], "little")
    labels = tuple(json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["labels"]))
    tensors = load(raw)
    if len(labels) != len(tensors["weight"]):
        raise ValueError(f"head: {len(labels)} labels for {len(tensors['weight'])} rows")
    return Head(labels, **tensors)


@torch.inference_mode()
def features(tree: Tree, chats: Sequence[Sequence[Turn]]) -> Tensor:
    """Last hidden states (n, hidden), fp32, at the end of each chat's last turn; of long chats the newest tokens."""
    base = tree.base
    rows = []
    for turns in chats:
        ids = base.chat.encode(turns).ids
        end = max(at for at, token in enumerate(ids) if token == base.chat.stop_id)
        rows.append(ids[max(0, end + 1 - base.shape.context) : end + 1])
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    found = torch.empty(len(rows), base.shape.hidden)
    for start in range(0, len(order), MICRO_BATCH):
        chosen = order[start : start + MICRO_BATCH]
        last = [[len(rows[at]) - 1] for at in chosen]
        found[chosen] = states_at(base, tree.low, [rows[at] for at in chosen], last).float().cpu()
    return found


def fit(found: Tensor, labels: Sequence[str], config: HeadConfig) -> Head:
    """A head by cross-entropy on features (n, hidden). Raises ValueError for a single class."""
    names = tuple(sorted(set(labels)))
    if len(names) <= 1:
        raise ValueError(f"head: {len(names)} classes, at least two are needed")
    mean, spread = found.mean(0), found.std(0).clamp_min(1e-6)
    scaled = (found - mean) / spread
    wanted = torch.tensor([names.index(label) for label in labels])
    weight = torch.zeros(len(names), found.shape[1], requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=config.learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.steps):
        batch = torch.randint(len(wanted), (256,), generator=generator)
        loss = functional.cross_entropy(scaled[batch] @ weight.T + bias, wanted[batch])
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    return Head(names, weight.detach(), bias.detach(), mean, spread)


def head_report(
    trees: dict[str, Tree], train: Sequence[Labelled], test: Sequence[Labelled], config: HeadConfig
) -> dict[str, dict[str, Any]]:
    """Accuracy, macro precision, recall and F1 of a head on each version's features, beside the majority class."""
    found = {}
    for name, tree in trees.items():
        head = fit(features(tree, [one.turns for one in train]), [one.label for one in train], config)
        predicted = head.predict(features(tree, [one.turns for one in test]))
        found[name] = asdict(class_report(predicted, [one.label for one in test]))
    return found
