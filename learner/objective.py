"""Losses of a batch: weighted SFT on replies, APO-zero on ratings, DPO on agents' edits; sums over global normalisers.

    sft   sum_i w_i sum_t ce / sum_i w_i n_i                                       weights clipped by the builder
    apo   1 - sigmoid(beta r) if rated good, sigmoid(beta r) if bad, r = logp - logp_ref   (D'Oosterlinck 2024)
    dpo   -log sigmoid(beta (r_final / n_final - r_draft / n_draft))               length-normalised

A mean of means is wrong as soon as reply lengths differ, so every micro-batch and every rank divides its own sums by
the `Norms` of the whole step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from learner.batch import Batch, Document, Span
from learner.config import TrainConfig
from learner.labels import HeadName


@dataclass(frozen=True)
class Norms:
    """What the sums of a whole step are divided by."""

    weight: float
    """Sum of w_i n_i over target tokens."""
    rated: int
    """Rated replies that have a reference."""
    pairs: int
    replies: int
    """All replies: an edit weighs as one of them, or the only one of a step would outweigh everything else in it."""
    fresh: int
    """Documents of fresh samples."""
    heard: Mapping[HeadName, int]
    """Customers' turns that each auxiliary head learns from."""


def norms(chosen: Sequence[Document]) -> Norms:
    """The normalisers of a step from all of its documents, whatever their split into micro-batches and ranks."""
    replies = [reply for document in chosen for reply in document.replies]
    return Norms(
        weight=sum(reply.weight * (reply.stop - reply.start) for reply in replies),
        rated=sum(reply.label != "unknown" and not reply.draft and reply.reference is not None for reply in replies),
        pairs=sum(reply.draft and reply.reference is not None for reply in replies),
        replies=len(replies),
        fresh=sum(document.drawn.component == "fresh" for document in chosen),
        heard=Counter(name for document in chosen for one in document.heard for name, _ in one.classes),
    )


@dataclass(frozen=True)
class Losses:
    """Losses of one micro-batch."""

    total: Tensor
    """() what is minimised, already divided by the step's normalisers."""
    replies: Tensor
    """(replies,) summed cross-entropy of each reply, detached."""


def losses(
    batch: Batch, entropy: Tensor, whole: Norms, config: TrainConfig, *, keep: Sequence[bool] | None = None
) -> Losses:
    """Losses from the cross-entropy (L,) of each target; `keep` leaves out documents that a guard has stopped."""
    device = entropy.device
    spans = batch.spans
    owner = torch.repeat_interleave(
        torch.arange(len(spans), device=device),
        torch.tensor([span.stop - span.start for span in spans], device=device),
    )
    summed = torch.zeros(len(spans), device=device).index_add(0, owner, entropy[: len(owner)])
    kept = [keep is None or keep[span.document] for span in spans]
    total = (summed * torch.tensor([s.weight * k for s, k in zip(spans, kept, strict=True)], device=device)).sum()
    total = total / max(whole.weight, 1e-9)
    rated = max(whole.rated, config.signal_share * whole.replies, 1)  # a few ratings outweigh no step
    total = total + _ratings(spans, kept, summed, config.apo_beta) / rated
    total = total + _edits(spans, kept, summed, config.dpo_beta) / max(whole.replies, 1)
    return Losses(total, summed.detach())


def _ratings(spans: Sequence[Span], kept: Sequence[bool], summed: Tensor, beta: float) -> Tensor:
    chosen = [
        (index, span.reference, 1.0 if span.label == "good" else -1.0)
        for index, span in enumerate(spans)
        if kept[index] and span.label != "unknown" and not span.draft and span.reference is not None
    ]
    if not chosen:
        return summed.new_zeros(())
    at, references, signs = zip(*chosen, strict=True)
    reward = -summed[list(at)] - summed.new_tensor(references)
    return torch.sigmoid(-beta * reward * summed.new_tensor(signs)).sum()


def _edits(spans: Sequence[Span], kept: Sequence[bool], summed: Tensor, beta: float) -> Tensor:
    pairs = [
        (index, span, spans[index + 1])
        for index, span in enumerate(spans[:-1])
        if span.draft and kept[index] and kept[index + 1]
    ]
    pairs = [pair for pair in pairs if pair[1].reference is not None and pair[2].reference is not None]
    if not pairs:
        return summed.new_zeros(())
    rewards = [_per_token(summed[i + 1], final) - _per_token(summed[i], draft) for i, draft, final in pairs]
    return -functional.logsigmoid(beta * torch.stack(rewards)).sum()


def _per_token(entropy: Tensor, span: Span) -> Tensor:
    """Log-probability above the reference, divided by the reply's tokens."""
    assert span.reference is not None
    return (-entropy - span.reference) / (span.stop - span.start)


def kl_to_base(logits: Tensor, base_logits: Tensor) -> Tensor:
    """KL(base || adapter) (N,) in nats of fp32 logits (N, vocab): equals what the base's domain loses."""
    reference = base_logits.log_softmax(-1)
    return (reference.exp() * (reference - logits.log_softmax(-1))).sum(-1)
