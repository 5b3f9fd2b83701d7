from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.fused import Adapted, Gated, Normed, Run, Seen, Surprise, Turned, applied

SIZES = (5, 1, 9)

BEFORE = torch.full((9, 9), -torch.inf, dtype=torch.float64).triu(1)
ALL = tuple(Run(slice(a, b), slice(a, b), BEFORE[: b - a, : b - a].repeat(2, 1)) for a, b in ((0, 5), (5, 6), (6, 15)))
SOME = (
    Run(slice(0, 2), slice(0, 5), BEFORE[[1, 4], :5].repeat(2, 1)),
    Run(slice(2, 5), slice(6, 15), BEFORE[[0, 3, 3]].repeat(2, 1)),
)
"""Rows 1 and 4 of the first document, none of the second, 0, 3 and 3 again of the third."""

TARGETS = torch.tensor([3, 0, 6, 3, 1])


def gradients(of: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """The value and the gradients of a weighted sum of it."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = of(*leaves)
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=value.dtype)
    torch.autograd.backward((value * weights).sum())
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def turn(x: Tensor) -> Tensor:
    angles = noise(15, 4).repeat(1, 2).unsqueeze(1)
    left, right = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-right, left), dim=-1) * angles.sin()


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = []
    for rows in zip(*(x.split(list(SIZES)) for x in (q, k, v)), strict=True):  # type: ignore[no-untyped-call]
        query, key, value = (x.transpose(0, 1) for x in rows)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        parts.append(mixed.transpose(0, 1).reshape(len(rows[0]), -1))
    return torch.cat(parts)


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "adapted": (
        lambda x, a, b, c: applied(Adapted, x, noise(8, 9), noise(9), a, b, c),
        lambda x, a, b, c: x @ noise(8, 9) + noise(9) + torch.cat((x @ a[:2].T @ b, x @ a[2:].T @ c), dim=-1),
        (noise(15, 8), noise(4, 8), noise(2, 6), noise(2, 3)),
    ),
    "gated": (
        lambda x: applied(Gated, x),
        lambda x: functional.silu(x.chunk(2, dim=-1)[0]) * x.chunk(2, dim=-1)[1],
        (noise(15, 6),),
    ),
    "turned": (
        lambda x: applied(
            Turned, x, noise(15, 4).cos().repeat(1, 2).unsqueeze(1), noise(15, 4).sin().repeat(1, 2).unsqueeze(1)
        ),
        turn,
        (noise(15, 3, 8),),
    ),
    "normed": (
        lambda x: applied(Normed, x, noise(8), 1e-6),
        lambda x: functional.rms_norm(x, (8,), noise(8), 1e-6),
        (noise(15, 8),),
    ),
    "seen": (
        lambda q, k, v: applied(Seen, q, k, v, ALL),
        attention,
        (noise(15, 4, 8), noise(15, 2, 8), noise(15, 2, 8) + 1),
    ),
    "seen from some places": (
        lambda q, k, v: applied(Seen, q[[1, 4, 6, 9, 9]], k, v, SOME),
        lambda q, k, v: attention(q, k, v)[[1, 4, 6, 9, 9]],
        (noise(15, 4, 8), noise(15, 2, 8), noise(15, 2, 8) + 1),
    ),
    "surprise": (
        lambda x: applied(Surprise, x, noise(8, 7), TARGETS),
        lambda x: functional.cross_entropy(x @ noise(8, 7), TARGETS, reduction="none").float(),
        (noise(5, 8),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_adapter_fused_step_equals_its_formula(name: str) -> None:
    """Value and every gradient of a hand-written step are those that autograd finds for the plain formula."""
    ours, plain, tensors = CASES[name]
    tolerance = 1e-5 if name in {"normed", "surprise"} else 1e-10  # taken in fp32
    for found, wanted in zip(gradients(ours, *tensors), gradients(plain, *tensors), strict=True):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance), name
    with torch.inference_mode():
        assert torch.allclose(ours(*tensors), plain(*tensors), rtol=tolerance, atol=tolerance)
