"""Forward over right-padded micro-batches: the CPU path of training and evaluation.

Padding sits behind the tokens and carries no label, so causal attention needs no padding mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.decoder import Attend, LowRank, decode
from learner.adapter.weights import Base

MATMUL_UP_TO = 256
"""Longest T for which matrix products beat SDPA on CPU, backward included (learner.md 3.6)."""


def causal(batch: int, time: int, like: Tensor) -> Attend:
    """Attention inside each row of a (batch, time) layout that was flattened to N = batch * time."""
    if time > MATMUL_UP_TO:
        return _sdpa(batch, time)
    mask = torch.full((time, time), -torch.inf, dtype=like.dtype, device=like.device).triu(1)

    def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (_, heads, d), kv = q.shape, k.shape[1]
        group = heads // kv
        # heads that share keys become rows of one product: no copy of k and v per head
        rows = q.view(batch, time, kv, group, d).permute(0, 2, 3, 1, 4).reshape(batch * kv, group * time, d)
        keys, values = (x.view(batch, time, kv, d).transpose(1, 2).reshape(batch * kv, time, d) for x in (k, v))
        bias = mask if group == 1 else mask.repeat(group, 1)
        scores = torch.baddbmm(bias, rows, keys.transpose(1, 2), alpha=1 / math.sqrt(d))
        mixed = torch.bmm(scores.softmax(-1), values).view(batch, kv, group, time, d)
        return mixed.permute(0, 3, 1, 2, 4).reshape(batch * time, heads * d)

    return attend


def _sdpa(batch: int, time: int) -> Attend:
    def attend(_layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, keys, values = (x.view(batch, time, x.shape[1], x.shape[2]).transpose(1, 2) for x in (q, k, v))
        mixed = functional.scaled_dot_product_attention(
            rows, keys, values, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )
        return mixed.transpose(1, 2).reshape(batch * time, -1)

    return attend


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(B, T) int64, right-padded with 0 to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.int64, device=device)


def hidden_padded(base: Base, low: Sequence[LowRank] | None, tokens: Tensor) -> Tensor:
    """Final hidden states (B * T, hidden) of right-padded tokens (B, T)."""
    if base.foreign is not None:
        return base.foreign.hidden(low, tokens)
    batch, time = tokens.shape
    positions = torch.arange(time, device=tokens.device).repeat(batch)
    return decode(base, low, tokens.reshape(-1), positions, causal(batch, time, base.embed))


def logits(base: Base, hidden: Tensor) -> Tensor:
    """fp32 logits (L, vocab) of hidden states (L, hidden)."""
    return (hidden @ base.unembed).float()
