"""Data parallel over LoRA gradients: rank 0 draws and hands out documents, one all-reduce a step sums the gradients.

Every rank divides by the normalisers of the whole step, so the sum is the gradient of one process. More cores are
used by more ranks, not by threads. A lost rank ends all: they start again from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor

from learner.adapter import Base
from learner.batch import Document, micro_batches
from learner.config import TrainConfig
from learner.labels import HeadName
from learner.objective import Norms, norms
from learner.trajectory_state import put_back, state_of, tensors_of
from learner.update import StepReport, Trajectory, new_trajectory, step


@dataclass(frozen=True)
class Share:
    """What a rank is told of a step; `trajectory` is set when it must start from other weights."""

    documents: tuple[Document, ...]
    whole: Norms
    config: TrainConfig
    rate_factor: float
    trajectory: dict[str, Any] | None
    labels: Mapping[HeadName, list[str]]
    """Classes of the auxiliary heads, in the order of their rows."""


class Ranks:
    """The process group; `take` is rank 0's step, `follow` the loop of all others."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._known: Trajectory | None = None

    def take(self, base: Base, trajectory: Trajectory, chosen: Sequence[Document]) -> StepReport:
        """One step over all ranks, reported as if one process had taken it."""
        state = None if trajectory is self._known else snapshot(trajectory)
        self._known = trajectory
        whole = norms(chosen)
        trajectory.heads.enrol(chosen)
        labels = trajectory.heads.labels
        shares = [
            Share(part, whole, trajectory.config, trajectory.rate_factor, state, labels)
            for part in parts(chosen, self.size)
        ]
        mine: list[Share | None] = [None]
        dist.scatter_object_list(mine, shares, src=0)
        assert mine[0] is not None
        return self._step(base, trajectory, mine[0])

    def follow(self, base: Base, trajectory: Trajectory) -> None:
        """Take this rank's part of every step until rank 0 calls `stop`."""
        while True:
            mine: list[Share | None] = [None]
            dist.scatter_object_list(mine, None, src=0)
            if mine[0] is None:
                return
            if mine[0].trajectory is not None:
                trajectory = restored(trajectory, mine[0].trajectory)
            trajectory.config, trajectory.rate_factor = mine[0].config, mine[0].rate_factor
            trajectory.heads.labels = {name: list(labels) for name, labels in mine[0].labels.items()}
            self._step(base, trajectory, mine[0])

    def stop(self) -> None:
        """Let the other ranks end; rank 0 only."""
        dist.scatter_object_list([None], [None] * self.size, src=0)

    def _step(self, base: Base, trajectory: Trajectory, share: Share) -> StepReport:
        report = step(base, trajectory, share.documents, whole=share.whole, reduce=total)
        found: list[StepReport | None] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(report, found, dst=0)
        return report if found is None else merged([one for one in found if one is not None])


def total(gradient: Tensor) -> None:
    """Sum over all ranks, in place."""
    dist.all_reduce(gradient)


def parts(chosen: Sequence[Document], size: int) -> list[tuple[Document, ...]]:
    """One part for each rank, dealt by length so that they take equally long; pairs stay together."""
    units = micro_batches(chosen, 1)
    return [tuple(document for unit in units[rank::size] for document in unit) for rank in range(size)]


def merged(reports: Sequence[StepReport]) -> StepReport:
    """What all ranks did, as one report."""
    first = reports[0]
    heard = [(one.fresh_loss, one.tokens["fresh"]) for one in reports if one.fresh_loss is not None]
    weight = sum(tokens for _, tokens in heard)
    return replace(
        first,
        tokens={name: sum(one.tokens[name] for one in reports) for name in first.tokens},
        losses={key: loss for one in reports for key, loss in one.losses.items()},
        fresh_loss=sum(loss * tokens for loss, tokens in heard) / weight if weight else None,
        quarantined=tuple(key for one in reports for key in one.quarantined),
        readmitted=tuple(key for one in reports for key in one.readmitted),
        noise=sum(one.noise for one in reports),
        salad=sum(one.salad for one in reports),
    )


def snapshot(trajectory: Trajectory) -> dict[str, Any]:
    """Everything that decides the next step, for another rank."""
    return {"step": trajectory.step, "tensors": tensors_of(trajectory), "state": state_of(trajectory)}


def restored(trajectory: Trajectory, state: dict[str, Any]) -> Trajectory:
    """A trajectory of the same settings that stands where `snapshot` was taken."""
    flat = state["tensors"]["flat"].to(trajectory.lora.flat.device)
    made = new_trajectory(trajectory.lora.with_flat(flat), 2, trajectory.config)
    made.guard = trajectory.guard
    put_back(made, state["step"], state["tensors"], state["state"])
    return made
