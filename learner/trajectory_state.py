"""A trajectory out of memory and back: what decides its next step, as tensors and JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from learner.moments import moments_of, put_moments
from learner.update import Trajectory


def tensors_of(trajectory: Trajectory) -> dict[str, Tensor]:
    """Weights, moments and heads on the CPU."""
    moments = moments_of(trajectory.optimizer, trajectory.lora.flat)
    tensors = {"flat": trajectory.lora.flat.detach()}
    tensors |= {f"adam.{name}": value for name, value in moments.items()}
    tensors |= {f"heads.{name}": value for name, value in trajectory.heads.tensors().items()}
    return {key: value.to("cpu").contiguous() for key, value in tensors.items()}


def state_of(trajectory: Trajectory) -> dict[str, Any]:
    """Everything else, as JSON."""
    return {
        "warm": trajectory.warm, "rate_factor": trajectory.rate_factor, "guard": trajectory.guard.state(),
        "norms": list(trajectory.spikes.norms), "skipped": list(trajectory.spikes.skipped),
        "heads": trajectory.heads.state(),
    }  # fmt: skip


def put_back(trajectory: Trajectory, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Make a new trajectory that was built on copies of these weights the one that stood at `step`."""
    put_moments(trajectory.optimizer, trajectory.lora.flat, _under("adam.", tensors))
    heads = _under("heads.", tensors)
    if heads:
        trajectory.heads.load(heads, state["heads"])
    trajectory.step, trajectory.warm, trajectory.rate_factor = step, state["warm"], state["rate_factor"]
    trajectory.guard.load(state["guard"])
    trajectory.spikes.norms.extend(state["norms"])
    trajectory.spikes.skipped.extend(state["skipped"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
