"""Auxiliary heads that learn while the line learns: linear on the states that its step computes anyway.

Cross-entropy at the end of each customer turn. For the first steps features are detached; then the heads steer the
adapter too, with a small weight. Classes appear as the stream shows them. Every fresh turn is predicted before it is
learned, so what the report says of the newest ones is unbiased and costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learner.batch import Document
from learner.config import TrainConfig
from learner.heads import Head
from learner.labels import HEADS, HeadName
from learner.measures import ClassReport, class_report
from learner.moments import moments_of, put_moments

MOST = 64
"""Classes of a head; later ones are left out."""

NEWEST = 512
"""Fresh turns that a report looks back on."""


@dataclass(frozen=True)
class Told:
    """One head's classes of some rows of states."""

    rows: list[int]
    classes: list[int]
    fresh: list[bool]


class Heads:
    """Both heads in one flat vector (heads * MOST * (hidden + 1)); a class's row holds its weights and its bias."""

    def __init__(self, hidden: int, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self._shape = (len(HEADS), MOST, hidden + 1)
        self.flat = torch.zeros(len(HEADS) * MOST * (hidden + 1), device=device, requires_grad=True)
        self.optimizer = torch.optim.AdamW(
            [self.flat], lr=config.head_rate, betas=(0.9, config.beta2), weight_decay=0.0, fused=True
        )
        self.labels: dict[HeadName, list[str]] = {name: [] for name in HEADS}
        self.steps = 0
        self.judged: dict[HeadName, deque[tuple[str, str]]] = {name: deque(maxlen=NEWEST) for name in HEADS}
        """(predicted, actual) of the newest fresh turns, predicted before they were learned."""

    @property
    def steers(self) -> bool:
        """Whether the heads' gradient reaches the adapter by now."""
        return self.steps >= self.config.head_detached_steps

    def enrol(self, chosen: Sequence[Document]) -> None:
        """Give a row to each class that a step shows for the first time; the whole step, whatever its ranks."""
        for document in chosen:
            for heard in document.heard:
                for name, label in heard.classes:
                    if label not in self.labels[name] and len(self.labels[name]) < MOST:
                        self.labels[name].append(label)

    @property
    def gradient(self) -> Tensor:
        """What `learn` has added up for the next step."""
        if self.flat.grad is None:
            self.flat.grad = torch.zeros_like(self.flat)
        return self.flat.grad

    def learn(
        self, states: Tensor, documents: Sequence[Document], kept: Sequence[bool], counts: Mapping[HeadName, int]
    ) -> Tensor | None:
        """Add a micro-batch to the heads' gradient; gives that of the states (H, hidden), None if there are none.

        `counts` are the turns of the whole step, so the sum over micro-batches and ranks is one mean.
        """
        if not len(states):
            return None
        found = states.detach().float()
        weights, gradients = self.flat.detach().view(self._shape), self.gradient.view(self._shape)
        back = torch.zeros_like(found)
        for at, name in enumerate(HEADS):
            told = self._told(name, documents, kept)
            if not told.rows:
                continue
            known = len(self.labels[name])
            x, matrix = found[told.rows], weights[at, :known]
            scores = x @ matrix[:, :-1].T + matrix[:, -1]
            self._judge(name, scores, told)
            actual = functional.one_hot(torch.tensor(told.classes, device=x.device), known)
            wrong = (scores.softmax(-1) - actual) / counts[name]  # the gradient of cross-entropy
            gradients[at, :known, :-1] += wrong.T @ x
            gradients[at, :known, -1] += wrong.sum(0)
            back[told.rows] += wrong @ matrix[:, :-1]
        return (self.config.head_weight * back).to(states.dtype)

    def apply(self, *, accepted: bool) -> None:
        """Take the step that the gradients say, or drop them with the adapter's."""
        if accepted and self.flat.grad is not None:
            self.optimizer.step()
            self.steps += 1
        self.optimizer.zero_grad()

    def heads(self) -> dict[str, Head]:
        """The heads as they stand, each with its own classes; one that has not seen two is left out."""
        found = {}
        for at, name in enumerate(HEADS):
            known = len(self.labels[name])
            if known > 1:
                rows = self.flat.detach().view(self._shape)[at, :known].cpu().clone()
                hidden = rows.shape[1] - 1
                found[str(name)] = Head(
                    tuple(self.labels[name]), rows[:, :-1], rows[:, -1], torch.zeros(hidden), torch.ones(hidden)
                )
        return found

    def reports(self) -> dict[str, ClassReport]:
        """Quality on the newest fresh turns, each predicted before it was learned."""
        return {
            str(name): class_report([said for said, _ in pairs], [was for _, was in pairs])
            for name, pairs in ((name, list(self.judged[name])) for name in HEADS)
            if pairs
        }

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments for a checkpoint."""
        moments = moments_of(self.optimizer, self.flat)
        return {"flat": self.flat.detach()} | {f"adam.{name}": value for name, value in moments.items()}

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint, as JSON."""
        return {
            "labels": self.labels, "steps": self.steps,
            "judged": {name: [list(pair) for pair in pairs] for name, pairs in self.judged.items()},
        }  # fmt: skip

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue from `tensors()` and `state()`."""
        with torch.no_grad():
            self.flat.copy_(tensors["flat"])
        moments = {name.removeprefix("adam."): value for name, value in tensors.items() if name.startswith("adam.")}
        put_moments(self.optimizer, self.flat, moments)
        self.steps = state["steps"]
        for name in HEADS:
            self.labels[name] = list(state["labels"][name])
            self.judged[name].clear()
            self.judged[name].extend((said, was) for said, was in state["judged"][name])

    def _told(self, name: HeadName, documents: Sequence[Document], kept: Sequence[bool]) -> Told:
        found, row = Told([], [], []), 0
        places = {label: at for at, label in enumerate(self.labels[name])}
        for document, keep in zip(documents, kept, strict=True):
            for turn in document.heard:
                label = dict(turn.classes).get(name)
                if keep and label in places:
                    found.rows.append(row)
                    found.classes.append(places[label])
                    found.fresh.append(document.drawn.component == "fresh")
                row += 1
        return found

    def _judge(self, name: HeadName, scores: Tensor, told: Told) -> None:
        if not any(told.fresh):
            return
        labels = self.labels[name]
        for said, actual, fresh in zip(scores.argmax(-1).tolist(), told.classes, told.fresh, strict=True):
            if fresh:
                self.judged[name].append((labels[said], labels[actual]))
