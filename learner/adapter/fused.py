"""Steps of the decoder with gradients written by hand: autograd would copy what these write in place.

Each equals its plain formula and has a gradient for what trains or lies before it alone. A compiler is shown the
formula: it finds the gradient by itself and fuses both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

Gradients = tuple[Tensor | None, ...]

_to_scores = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - one kernel, and nothing public calls it


class Forgetful:
    """Stands in for autograd's context where no gradient is wanted: keeps nothing."""

    sizes: tuple[int, ...]

    def save_for_backward(self, *_tensors: Tensor) -> None:
        """Keeps nothing."""


class Step(Function):
    """A step with its formula."""

    @staticmethod
    def plain(*args: Any) -> Tensor:
        """What `forward` computes, for a compiler."""
        raise NotImplementedError


def applied(step: type[Step], *args: Any) -> Tensor:
    """A step's result; autograd hears of it only where gradients are wanted, since telling it costs a token's time."""
    if torch.compiler.is_compiling():
        return step.plain(*args)
    record: Callable[..., Tensor] = step.apply
    return record(*args) if torch.is_grad_enabled() else step.forward(Forgetful(), *args)


class Adapted(Step):
    """x W + bias + x A^T B of a fused matrix; behind `bias` come A (parts * r, in) and each part's B (r, n)."""

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None, *low: Tensor) -> Tensor:
        """The formula."""
        y = x @ weight if bias is None else torch.addmm(bias, x, weight)
        inner = (x @ low[0].T).chunk(len(low) - 1, dim=-1)
        return y + torch.cat([seen @ b for seen, b in zip(inner, low[1:], strict=True)], dim=-1)

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *low: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        y = x @ weight if bias is None else torch.addmm(bias, x, weight)
        inner = x @ low[0].T
        for part, seen, b in _parts(y, inner, low[1:]):
            part.addmm_(seen, b)
        ctx.save_for_backward(x, weight, inner, *low)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of x, A and each B."""
        (dy,) = grads
        x, weight, inner, a, *bs = ctx.saved_tensors
        back = torch.empty_like(inner)
        for part, seen, b in _parts(dy, back, bs):
            seen.copy_((b @ part.T).T)  # in this order the product is up to twice as fast
        changed = [seen.T @ part for part, seen, _ in _parts(dy, inner, bs)]
        dx = (dy @ weight.T).addmm_(back, a) if ctx.needs_input_grad[0] else None
        return dx, None, None, back.T @ x, *changed


def _parts(y: Tensor, inner: Tensor, bs: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Columns of the outputs and of the rank that belong to each B."""
    return zip(torch.split(y, [b.shape[1] for b in bs], dim=-1), inner.chunk(len(bs), dim=-1), bs, strict=True)


class Gated(Step):
    """silu(gate) * up of the halves of x (N, 2 n)."""

    @staticmethod
    def plain(x: Tensor) -> Tensor:
        """The formula."""
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(N, 2 n) -> (N, n)."""
        gate, up = x.chunk(2, dim=-1)
        opened = functional.silu(gate)
        ctx.save_for_backward(x, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of both halves, into one tensor."""
        (x, opened), (dy,) = ctx.saved_tensors, grads
        dx = torch.empty_like(x)
        (gate, up), (dgate, dup) = x.chunk(2, dim=-1), dx.chunk(2, dim=-1)
        torch.ops.aten.silu_backward.grad_input(dy * up, gate, grad_input=dgate)
        torch.mul(dy, opened, out=dup)
        return (dx,)


class Turned(Step):
    """Rotary embedding x cos + (-right, left) sin of x (N, heads, d); cos and sin are (N, 1, d), halves alike."""

    @staticmethod
    def plain(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The formula."""
        left, right = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-right, left), dim=-1) * sin

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(N, heads, d) -> (N, heads, d)."""
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """The turn back."""
        cos, sin = ctx.saved_tensors
        return turned(grads[0], cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The formula of `Turned`."""
    y = x * cos
    (left, right), (to_left, to_right) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    half = sin.chunk(2, dim=-1)[0]
    to_left.addcmul_(right, half, value=-1)
    to_right.addcmul_(left, half)
    return y


class Normed(Step):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; the mean is taken in fp32, as transformers does."""

    @staticmethod
    def plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The formula."""
        return functional.rms_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype) * weight

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """(..., d) -> (..., d)."""
        wide = x.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        unit = wide * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit.to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of x."""
        unit, inverse, weight = ctx.saved_tensors
        wide = (grads[0] * weight).float()
        shared = (wide * unit).mean(-1, keepdim=True)
        return wide.addcmul_(unit, shared, value=-1).mul_(inverse).to(grads[0].dtype), None, None


class Seen(Step):
    """Causal softmax(q k^T / sqrt(d)) v inside runs of `sizes` tokens; q (N, heads, d), k and v (N, kv_heads, d)."""

    @staticmethod
    def plain(q: Tensor, k: Tensor, v: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """The formula."""
        parts = []
        for run in zip(*(torch.split(x, list(sizes)) for x in (q, k, v)), strict=True):
            query, key, value = (x.transpose(0, 1) for x in run)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            parts.append(mixed.transpose(0, 1).reshape(len(run[0]), -1))
        return torch.cat(parts)

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Gives (N, heads * d)."""
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        group, longest = q.shape[1] // k.shape[1], max(sizes)
        mask = q.new_full((longest, longest), -torch.inf).triu_(1)
        kept = []
        for at, to in pairwise(accumulate(sizes, initial=0)):
            keys, values, size = k[at:to].transpose(0, 1), v[at:to].transpose(0, 1), to - at
            bias = mask[:size, :size].repeat(group, 1)
            scores = torch.baddbmm(bias, _rows(q[at:to], group), keys.mT, alpha=1 / math.sqrt(q.shape[-1]))
            kept.append(scores.softmax(-1))
            _put(y[at:to], kept[-1] @ values, group)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.sizes = sizes
        return y.view(len(y), -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of q, k and v."""
        q, k, v, *kept = ctx.saved_tensors
        dy = grads[0].view(q.shape)
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        group, scale = q.shape[1] // k.shape[1], 1 / math.sqrt(q.shape[-1])
        for (at, to), chances in zip(pairwise(accumulate(ctx.sizes, initial=0)), kept, strict=True):
            keys, values = k[at:to].transpose(0, 1), v[at:to].transpose(0, 1)
            above = _rows(dy[at:to], group)
            dv[at:to].transpose(0, 1).copy_(chances.mT @ above)
            scores = _to_scores(above @ values.mT, chances, -1, q.dtype).mul_(scale)
            _put(dq[at:to], scores @ keys, group)
            dk[at:to].transpose(0, 1).copy_(scores.mT @ _rows(q[at:to], group))
        return dq, dk, dv, None


def _rows(x: Tensor, group: int) -> Tensor:
    """(T, kv * group, d) as (kv, group * T, d): heads that share keys become rows of one product."""
    size, heads, d = x.shape
    return x.view(size, heads // group, group, d).permute(1, 2, 0, 3).reshape(heads // group, group * size, d)


def _put(y: Tensor, rows: Tensor, group: int) -> None:
    """The way back of `_rows`, into y (T, kv * group, d)."""
    size, heads, d = y.shape
    y.view(size, heads // group, group, d).copy_(rows.view(heads // group, group, size, d).permute(2, 0, 1, 3))
