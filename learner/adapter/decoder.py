"""The decoder's forward pass over a flat run of tokens; how tokens see each other is passed in as `attend`.

Padded micro-batches, packed documents and generation with a cache differ in `attend` alone, so one test against
PEFT proves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.fused import Adapted, Folded, Gated, Normed, Turned, add_low_rank, applied
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

    @property
    def qkv(self) -> tuple[Tensor, ...]:
        """A and the B's of q, k and v."""
        return self.qkv_a, self.q_b, self.k_b, self.v_b

    @property
    def out(self) -> tuple[Tensor, ...]:
        """A and B of the attention's output."""
        return self.out_a, self.out_b

    @property
    def gate_up(self) -> tuple[Tensor, ...]:
        """A and the B's of gate and up."""
        return self.gate_up_a, self.gate_b, self.up_b

    @property
    def down(self) -> tuple[Tensor, ...]:
        """A and B of the MLP's output."""
        return self.down_a, self.down_b


@dataclass(frozen=True)
class InBase(LowRank):
    """LoRA tensors whose products the layer's matrices hold already."""


def decode(
    base: Base, low: Sequence[LowRank] | None, ids: Tensor, positions: Tensor, attend: Attend,
    *, at: Tensor | None = None, attend_at: Attend | None = None,
) -> Tensor:  # fmt: skip
    """Final hidden states (N, hidden) of token ids (N,) at positions (N,) in their documents, or of rows `at` (L,).

    The last layer lets other tokens be seen, but computes nothing behind its attention for them, and with `attend_at`,
    which takes q (L, heads, d) of these rows alone, no attention either.
    """
    shape = base.shape
    cos, sin = (table[positions].to(base.dtype).unsqueeze(1) for table in base.rope)
    x = functional.embedding(ids, base.embed)
    for index, layer in enumerate(base.layers):
        rank = low[index] if low is not None else None
        q, k, v = _qkv(base, layer, rank, norm(x, layer.norm_in, shape.norm_eps), (cos, sin))
        if at is None or index + 1 < shape.layers:
            mixed = attend(index, q, k, v)
        else:
            x = x.index_select(0, at)
            seen = attend_at(index, q.index_select(0, at), k, v) if attend_at else attend(index, q, k, v)
            mixed = seen if attend_at else seen.index_select(0, at)
        x = x + _adapted(mixed, layer.out, rank, "out")
        x = x + _mlp(layer, rank, norm(x, layer.norm_post, shape.norm_eps))
    return norm(x, base.norm, shape.norm_eps)


def folded(base: Base, low: Sequence[LowRank]) -> tuple[Base, list[LowRank]]:
    """A copy of the base with the adapter in its matrices: for one step, and where the base is small."""
    with torch.no_grad():
        layers = [
            replace(
                layer, qkv=_fold(layer.qkv, *rank.qkv), out=_fold(layer.out, *rank.out),
                gate_up=_fold(layer.gate_up, *rank.gate_up), down=_fold(layer.down, *rank.down),
            )
            for layer, rank in zip(base.layers, low, strict=True)
        ]  # fmt: skip
    return replace(base, layers=tuple(layers)), [InBase(**vars(rank)) for rank in low]


def _fold(weight: Tensor, a: Tensor, *bs: Tensor) -> Tensor:
    found = weight.clone()
    add_low_rank(found, a.T, bs)
    return found


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm."""
    if not weight.requires_grad:
        return applied(Normed, x, weight, eps)
    return Normed.plain(x, weight, eps)


def _adapted(x: Tensor, weight: Tensor, rank: LowRank | None, name: str, bias: Tensor | None = None) -> Tensor:
    """x W + bias, and the low-rank part of an adapter's A and B's."""
    if rank is None:
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    return applied(Folded if isinstance(rank, InBase) else Adapted, x, weight, bias, *getattr(rank, name))


def _qkv(
    base: Base, layer: Layer, rank: LowRank | None, x: Tensor, turn: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    shape = base.shape
    fused = _adapted(x, layer.qkv, rank, "qkv", layer.qkv_bias).view(len(x), -1, shape.head_dim)
    both, v = torch.split(fused, [shape.heads + shape.kv_heads, shape.kv_heads], dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = torch.split(both, [shape.heads, shape.kv_heads], dim=1)
        both = torch.cat((norm(q, layer.q_norm, shape.norm_eps), norm(k, layer.k_norm, shape.norm_eps)), dim=1)
    q, k = torch.split(applied(Turned, both, *turn), [shape.heads, shape.kv_heads], dim=1)
    return q, k, v


def _mlp(layer: Layer, rank: LowRank | None, x: Tensor) -> Tensor:
    mixed = applied(Gated, _adapted(x, layer.gate_up, rank, "gate_up"))
    return _adapted(mixed, layer.down, rank, "down")
