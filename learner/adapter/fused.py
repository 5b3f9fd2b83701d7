"""Steps of the decoder with gradients written by hand: autograd would copy what these write in place.

Each equals its plain formula and has a gradient for what trains or lies before it alone. A compiler is shown the
formula: it finds the gradient by itself and fuses both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

Gradients = tuple[Tensor | None, ...]

_to_scores = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - one kernel, and nothing public calls it


class Forgetful:
    """Stands in for autograd's context where no gradient is wanted: keeps nothing."""

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
        add_low_rank(y, inner, low[1:])
        ctx.save_for_backward(x, weight, inner, *low)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of x, A and each B."""
        x, weight, inner, a, *bs = ctx.saved_tensors
        back, changed = _of_low_rank(grads[0], inner, bs)
        dx = (grads[0] @ weight.T).addmm_(back, a) if ctx.needs_input_grad[0] else None
        return dx, None, None, back.T @ x, *changed


class Folded(Step):
    """x W + bias where W holds A^T B already; A and B, given as for `Adapted`, are there for their gradients alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *low: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        ctx.save_for_backward(x, weight, x @ low[0].T, *low)
        return x @ weight if bias is None else torch.addmm(bias, x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of x, A and each B."""
        x, weight, inner, _, *bs = ctx.saved_tensors
        back, changed = _of_low_rank(grads[0], inner, bs)
        dx = grads[0] @ weight.T if ctx.needs_input_grad[0] else None
        return dx, None, None, back.T @ x, *changed


def _of_low_rank(dy: Tensor, inner: Tensor, bs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Gradients of `inner` and of each part's B."""
    back = torch.empty_like(inner)
    for part, seen, b in _parts(dy, back, bs):
        seen.copy_((b @ part.T).T)  # in this order the product is up to twice as fast
    return back, [seen.T @ part for part, seen, _ in _parts(dy, inner, bs)]


def add_low_rank(y: Tensor, inner: Tensor, bs: Sequence[Tensor]) -> None:
    """Add the product of `inner` (N, parts * r) and each part's B (r, n) to the part's columns of y (N, out)."""
    for part, seen, b in _parts(y, inner, bs):
        part.addmm_(seen, b)


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


class Run(NamedTuple):
    """A document of a pack: rows that look, rows that are looked at, and who sees whom."""

    looks: slice
    """Of q."""
    seen: slice
    """Of k and v."""
    mask: Tensor
    """(rows of q, rows of k) 0 or -inf; once more below it for each further head that shares keys."""


class Seen(Step):
    """softmax(q k^T / sqrt(d) + mask) v of each run; q (M, heads, d), k and v (N, kv_heads, d). Every q is in a run."""

    @staticmethod
    def plain(q: Tensor, k: Tensor, v: Tensor, runs: Sequence[Run]) -> Tensor:
        """The formula."""
        parts = []
        for looks, seen, mask in runs:
            query, key, value = (x.transpose(0, 1) for x in (q[looks], k[seen], v[seen]))
            own = mask[: query.shape[1]]
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=own, enable_gqa=True)
            parts.append(mixed.transpose(0, 1).flatten(1))
        return torch.cat(parts)

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, runs: Sequence[Run]) -> Tensor:
        """Gives (M, heads * d)."""
        y = torch.empty_like(q, memory_format=torch.contiguous_format)
        group, scale = q.shape[1] // k.shape[1], 1 / math.sqrt(q.shape[-1])
        kept = []
        for looks, seen, mask in runs:
            scores = torch.baddbmm(mask, _rows(q[looks], group), k[seen].permute(1, 2, 0), alpha=scale)
            kept.append(scores.softmax(-1))
            _put(y[looks], kept[-1] @ v[seen].transpose(0, 1), group)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.runs = runs
        return y.view(len(y), -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of q, k and v."""
        q, k, v, *kept = ctx.saved_tensors
        dy = grads[0].view(q.shape)
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk, dv = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (k, v))  # not all are looked at
        group, scale = q.shape[1] // k.shape[1], 1 / math.sqrt(q.shape[-1])
        for (looks, seen, _), chances in zip(ctx.runs, kept, strict=True):
            above = _rows(dy[looks], group)
            dv[seen].transpose(0, 1).copy_(chances.mT @ above)
            scores = _to_scores(above @ v[seen].permute(1, 2, 0), chances, -1, q.dtype).mul_(scale)
            _put(dq[looks], scores @ k[seen].transpose(0, 1), group)
            dk[seen].transpose(0, 1).copy_(scores.mT @ _rows(q[looks], group))
        return dq, dk, dv, None


def _rows(x: Tensor, group: int) -> Tensor:
    """(T, kv * group, d) as (kv, group * T, d): heads that share keys become rows of one product."""
    size, heads, d = x.shape
    return x.view(size, heads // group, group, d).permute(1, 2, 0, 3).reshape(heads // group, group * size, d)


def _put(y: Tensor, rows: Tensor, group: int) -> None:
    """The way back of `_rows`, into y (T, kv * group, d)."""
    size, heads, d = y.shape
    y.view(size, heads // group, group, d).copy_(rows.view(heads // group, group, size, d).permute(2, 0, 1, 3))


class Surprise(Step):
    """Cross-entropy (L,) in nats, fp32, of targets (L,) under softmax(x W), x (L, hidden), W (hidden, vocab)."""

    @staticmethod
    def plain(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The formula."""
        return functional.cross_entropy((x @ weight).float(), targets, reduction="none")

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """(L, hidden) -> (L,)."""
        logs = torch.log_softmax((x @ weight).float(), -1)
        ctx.save_for_backward(weight, targets)
        ctx.logs, ctx.dtype = logs, x.dtype
        return logs.gather(1, targets.unsqueeze(1)).squeeze(1).neg_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Of x; written over what the forward pass kept, so only once."""
        weight, targets = ctx.saved_tensors
        logs, ctx.logs = ctx.logs, None
        ahead = logs.exp_().scatter_add_(1, targets.unsqueeze(1), logs.new_full((len(logs), 1), -1.0))
        return (ahead.to(ctx.dtype) @ weight.T).mul_(grads[0].unsqueeze(1)), None, None
