"""The decoder's forward pass over a flat run of tokens; how tokens see each other is passed in as `attend`.

Padded micro-batches, packed documents and generation with a cache differ in `attend` alone, so one test against
PEFT proves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.weights import Base, Layer

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""layer, q (N, heads, d), k and v (N, kv_heads, d) -> (N, heads * d)."""


@dataclass(frozen=True)
class LowRank:
    """LoRA tensors of one layer, scaled and cast: A's (r, in) of fused projections are stacked, B's (r, out) are apart.

    With B as (out, r) the product for its gradient is ten times slower on CPU.
    """

    qkv_a: Tensor
    q_b: Tensor
    k_b: Tensor
    v_b: Tensor
    out_a: Tensor
    out_b: Tensor
    gate_up_a: Tensor
    gate_b: Tensor
    up_b: Tensor
    down_a: Tensor
    down_b: Tensor


def decode(base: Base, low: Sequence[LowRank] | None, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """Final hidden states (N, hidden) of token ids (N,) at positions (N,) within their documents."""
    shape = base.shape
    cos, sin = (table[positions].to(base.dtype).unsqueeze(1) for table in base.rope)
    x = functional.embedding(ids, base.embed)
    for index, layer in enumerate(base.layers):
        rank = low[index] if low is not None else None
        q, k, v = _qkv(base, layer, rank, norm(x, layer.norm_in, shape.norm_eps))
        mixed = attend(index, _rotate(q, cos, sin), _rotate(k, cos, sin), v)
        x = x + _project(mixed, layer.out, (rank.out_a, rank.out_b) if rank else None)
        x = x + _mlp(layer, rank, norm(x, layer.norm_post, shape.norm_eps))
    return norm(x, base.norm, shape.norm_eps)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm; the mean is taken in fp32, as transformers does."""
    return functional.rms_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype) * weight


def _project(x: Tensor, weight: Tensor, low: tuple[Tensor, Tensor] | None) -> Tensor:
    y = x @ weight
    return y if low is None else torch.addmm(y, x @ low[0].T, low[1])


def _qkv(base: Base, layer: Layer, rank: LowRank | None, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shape = base.shape
    sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    fused = x @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, x, layer.qkv)
    parts: Sequence[Tensor] = torch.split(fused, sizes, dim=-1)
    if rank is not None:
        lows = (x @ rank.qkv_a.T).chunk(3, dim=-1)
        pairs = zip(parts, lows, (rank.q_b, rank.k_b, rank.v_b), strict=True)
        parts = [torch.addmm(part, a, b) for part, a, b in pairs]
    q, k, v = (part.view(len(x), -1, shape.head_dim) for part in parts)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = norm(q, layer.q_norm, shape.norm_eps), norm(k, layer.k_norm, shape.norm_eps)
    return q, k, v


def _mlp(layer: Layer, rank: LowRank | None, x: Tensor) -> Tensor:
    gate, up = (x @ layer.gate_up).chunk(2, dim=-1)
    if rank is not None:
        gate_low, up_low = (x @ rank.gate_up_a.T).chunk(2, dim=-1)
        gate, up = torch.addmm(gate, gate_low, rank.gate_b), torch.addmm(up, up_low, rank.up_b)
    return _project(functional.silu(gate) * up, layer.down, (rank.down_a, rank.down_b) if rank else None)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: (N, heads, d) with cos and sin (N, 1, d)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin
