"""What the heads that learned beside a version are worth on held-out chats, beside the same head on the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from learner.adapter import Tree
from learner.adapter.packed import states_at
from learner.batch import heard_in
from learner.heads import Head, HeadConfig, fit
from learner.measures import ClassReport, class_report
from streams.events import Sample

MICRO_BATCH = 8
"""Chats of one forward pass."""

LEAST = 8
"""Labelled turns below which nothing is reported."""


@dataclass(frozen=True)
class HeadResult:
    """One head as it goes into the record of a version."""

    blob: bytes
    """Its safetensors file."""
    held_out: ClassReport
    """On held-out turns, features of the version; the majority class beside it."""
    base: ClassReport | None
    """A head fitted on features of the untouched base, on the same turns; None where it saw less than two classes."""

    @property
    def digest(self) -> str:
        """sha256 of the blob: its name."""
        return sha256(self.blob).hexdigest()

    def to_object(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "digest": self.digest, "held_out": asdict(self.held_out), "base": self.base and asdict(self.base),
        }  # fmt: skip


def check(
    heads: Mapping[str, Head], tree: Tree, trained: Sequence[Sample], held_out: Sequence[Sample]
) -> dict[str, HeadResult]:
    """The result of each head that has enough held-out turns to be judged."""
    base = Tree(tree.base)
    theirs, ours = turns(base, held_out), turns(tree, held_out)
    seen = turns(base, trained)
    found = {}
    for name, head in heads.items():
        features, labels = ours.get(name, (None, []))
        if features is None or len(labels) < LEAST:
            continue
        plain = _on_base(seen.get(name), theirs[name])
        found[name] = HeadResult(head.to_bytes(), class_report(head.predict(features), labels), plain)
    return found


@torch.inference_mode()
def turns(tree: Tree, samples: Sequence[Sample]) -> dict[str, tuple[Tensor, list[str]]]:
    """By head the last hidden states (n, hidden) at the ends of customers' turns, and their classes."""
    base, limit = tree.base, tree.base.shape.context
    rows, at, classes = list[Sequence[int]](), list[list[int]](), list[Any]()
    for sample in samples:
        encoded = base.chat.encode(sample.turns)
        cut = max(0, len(encoded.ids) - limit)
        heard = [one for one in heard_in(encoded, sample) if one.at >= cut]
        if heard:
            rows.append(encoded.ids[cut:])
            at.append([one.at - cut for one in heard])
            classes += [one.classes for one in heard]
    if not rows:
        return {}
    states = torch.cat([
        states_at(base, tree.low, rows[start : start + MICRO_BATCH], at[start : start + MICRO_BATCH])
        for start in range(0, len(rows), MICRO_BATCH)
    ]).float().cpu()  # fmt: skip
    found: dict[str, tuple[list[int], list[str]]] = {}
    for row, told in enumerate(classes):
        for name, label in told:
            places, labels = found.setdefault(name, ([], []))
            places.append(row)
            labels.append(label)
    return {name: (states[places], labels) for name, (places, labels) in found.items()}


def _on_base(seen: tuple[Tensor, list[str]] | None, asked: tuple[Tensor, list[str]]) -> ClassReport | None:
    if seen is None or len(set(seen[1])) <= 1:
        return None
    head = fit(*seen, HeadConfig(steps=100))
    return class_report(head.predict(asked[0]), asked[1])
