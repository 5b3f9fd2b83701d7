"""An optimiser's moments of one flat vector, out of it for a checkpoint or another rank, and back into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def moments_of(optimizer: torch.optim.Optimizer, flat: Tensor) -> dict[str, Tensor]:
    """Moments and step count by their names in torch; empty before the first step."""
    return dict(optimizer.state.get(flat, {}))


def put_moments(optimizer: torch.optim.Optimizer, flat: Tensor, moments: Mapping[str, Tensor]) -> None:
    """Continue from copies of them; a fused optimiser wants all beside the vector, its step count too."""
    if moments:
        optimizer.state[flat] = {name: value.to(flat.device, copy=True) for name, value in moments.items()}
