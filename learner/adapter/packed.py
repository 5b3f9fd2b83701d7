"""Forward over packed documents: the CUDA path without padding, and its CPU reference.

The kernel is torch's variable-length attention (FlashAttention 2); its default window is full attention, so the
causal one is asked for. The reference loops over the documents: it tests builder, masks and equality without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from learner.adapter.decoder import Attend, LowRank, decode
from learner.adapter.padded import causal
from learner.adapter.weights import Base


@dataclass(frozen=True)
class Packed:
    """Documents one behind the other."""

    tokens: Tensor
    """(T,) int64."""
    positions: Tensor
    """(T,) int64, from 0 in each document."""
    bounds: Tensor
    """(D + 1,) int32 cumulative lengths."""
    longest: int
    """No document has more tokens; static, so that compiled graphs are reused."""


def hidden_packed(base: Base, low: Sequence[LowRank] | None, packed: Packed) -> Tensor:
    """Final hidden states (T, hidden)."""
    on_gpu = packed.tokens.is_cuda
    attend = _kernel(packed.bounds, packed.longest) if on_gpu else _reference(base, packed.bounds)
    return decode(base, low, packed.tokens, packed.positions, attend)


def _reference(base: Base, bounds: Tensor) -> Attend:
    edges = bounds.tolist()
    slices = [(start, stop) for start, stop in pairwise(edges) if stop > start]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [
            causal(1, stop - start, base.embed)(layer, q[start:stop], k[start:stop], v[start:stop])
            for start, stop in slices
        ]
        return torch.cat(parts)

    return attend


def _kernel(bounds: Tensor, longest: int) -> Attend:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - CUDA builds only

    def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        ends = (bounds, bounds, longest, longest)
        mixed = cast("Tensor", varlen_attn(q, k, v, *ends, window_size=(-1, 0), enable_gqa=grouped))
        return mixed.reshape(len(q), -1)

    return attend
