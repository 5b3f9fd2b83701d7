"""Forward over packed documents, one behind the other: no padding is computed, on CPU or CUDA.

On CUDA attention is torch's variable-length kernel (FlashAttention 2); its default window is full attention, so the
causal one is asked for. On CPU it goes document by document. Packs of static shapes go through a compiled decoder: an
eager step of a small base is bound by its launches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor

from learner.adapter.decoder import Attend, LowRank, decode
from learner.adapter.fused import Run, Seen, applied
from learner.adapter.padded import MATMUL_UP_TO, causal, pad
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


def hidden_packed(base: Base, low: Sequence[LowRank] | None, packed: Packed, at: Tensor | None = None) -> Tensor:
    """Final hidden states (T, hidden), or those of positions `at` (L,)."""
    if packed.tokens.is_cuda:
        return decode(base, low, packed.tokens, packed.positions, _kernel(packed.bounds, packed.longest), at=at)
    sizes = tuple(stop - start for start, stop in pairwise(packed.bounds.tolist()) if stop > start)
    if max(sizes) > MATMUL_UP_TO:
        return decode(base, low, packed.tokens, packed.positions, _by_document(base, sizes), at=at)
    attend = _by_products(base, sizes)
    if at is None:
        return decode(base, low, packed.tokens, packed.positions, attend)
    order = at.argsort(stable=True)
    at = at[order]
    states = decode(base, low, packed.tokens, packed.positions, attend, at=at, attend_at=_by_products(base, sizes, at))
    return states.index_select(0, order.argsort())


def hidden_static(base: Base, low: Sequence[LowRank] | None, packed: Packed) -> Tensor:
    """Final hidden states (T, hidden) by the variable-length kernel, compiled once for each (T, D, longest).

    All T of them: how many predict a reply differs from pack to pack, and would be one more shape.
    """
    return compiled()(base, low, packed.tokens, packed.positions, packed.bounds, packed.longest)


@cache
def compiled() -> Callable[..., Tensor]:
    """The decoder as one graph for each static shape."""
    return torch.compile(decode_static, dynamic=False, fullgraph=True)


def decode_static(  # noqa: PLR0917 - what the graph takes in
    base: Base, low: Sequence[LowRank] | None, tokens: Tensor, positions: Tensor, bounds: Tensor, longest: int
) -> Tensor:
    """Final hidden states (T, hidden) of packed documents by the variable-length kernel."""
    return decode(base, low, tokens, positions, _kernel(bounds, longest))


def states_at(
    base: Base, low: Sequence[LowRank] | None, rows: Sequence[Sequence[int]], at: Sequence[Sequence[int]]
) -> Tensor:
    """Final hidden states (L, hidden) of the chosen places of each row of token ids, one behind the other."""
    if base.foreign is not None:
        tokens = pad(rows, base.device)
        states = base.foreign.hidden(low, tokens).view(*tokens.shape, -1)
        return torch.cat([states[row, list(found)] for row, found in enumerate(at)])
    ends = [0, *accumulate(len(row) for row in rows)]
    packed = Packed(
        torch.tensor([token for row in rows for token in row], device=base.device),
        torch.tensor([place for row in rows for place in range(len(row))], device=base.device),
        torch.tensor(ends, dtype=torch.int32, device=base.device),
        max(len(row) for row in rows),
    )
    places = [start + place for start, found in zip(ends, at, strict=False) for place in found]
    return hidden_packed(base, low, packed, torch.tensor(places, dtype=torch.int64, device=base.device))


def _by_products(base: Base, sizes: Sequence[int], at: Tensor | None = None) -> Attend:
    """Attention document by document in matrix products, of all tokens or of those of rows `at`, which ascend."""
    group, longest = base.shape.heads // base.shape.kv_heads, max(sizes)
    before = base.embed.new_full((longest, longest), -torch.inf).triu_(1)
    rows = None if at is None else at.tolist()
    runs, first = list[Run](), 0
    for start, stop in pairwise(accumulate(sizes, initial=0)):
        last = stop if rows is None else bisect_left(rows, stop, lo=first)
        if last > first:
            looks = before[: stop - start] if rows is None else before[[row - start for row in rows[first:last]]]
            mask = looks[:, : stop - start].repeat(group, 1)
            runs.append(Run(slice(first, last), slice(start, stop), mask))
        first = last
    return lambda _layer, q, k, v: applied(Seen, q, k, v, tuple(runs))


def _by_document(base: Base, sizes: Sequence[int]) -> Attend:
    """Attention of longer documents, one after the other."""
    inside = {size: causal(1, size, base.embed) for size in set(sizes)}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        runs = zip(sizes, *(torch.split(x, list(sizes)) for x in (q, k, v)), strict=True)
        return torch.cat([inside[size](layer, *part) for size, *part in runs])

    return attend


def _kernel(bounds: Tensor, longest: int) -> Attend:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - CUDA builds only

    def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        ends = (bounds, bounds, longest, longest)
        mixed = cast("Tensor", varlen_attn(q, k, v, *ends, window_size=(-1, 0), enable_gqa=grouped))
        return mixed.reshape(len(q), -1)

    return attend
