"""One optimiser step on LoRA weights: forward, guard, backward, clip, optimise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.decoder import LowRank, folded
from learner.adapter.fused import Surprise, applied
from learner.adapter.lora import Lora
from learner.adapter.packed import Packed, hidden_packed, hidden_static
from learner.adapter.padded import hidden_padded, pad
from learner.adapter.tree import MICRO_BATCH, Tree
from learner.adapter.weights import Base
from learner.batch import COMPONENTS, Batch, Component, Document, micro_batches, pack, static_packs
from learner.config import TrainConfig
from learner.guard import Guard, Spikes
from learner.objective import Norms, losses, norms
from learner.online_heads import Heads

Outcome = Literal["ok", "skipped", "failed"]


@dataclass
class Trajectory:
    """The running weights of one line and everything that decides their next step."""

    lora: Lora
    config: TrainConfig
    spikes: Spikes
    guard: Guard
    step: int = 0
    """Steps taken over the life of the line; never falls but on resume."""
    warm: int = 0
    """Steps since the last cold start or rollback."""
    rate_factor: float = 1.0
    """Halved by each rollback, restored after three promotions."""
    optimizer: torch.optim.AdamW = field(init=False)
    heads: Heads = field(init=False)

    def __post_init__(self) -> None:
        self.restart(self.lora)
        self.heads = Heads(self.lora.shape.hidden, self.config, self.lora.flat.device)

    def restart(self, lora: Lora) -> None:
        """Continue from other weights with empty moments and a new warm-up."""
        self.lora = lora.with_flat(lora.flat.detach().clone().requires_grad_())
        config = self.config
        self.optimizer = torch.optim.AdamW(
            [self.lora.flat], lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=0.0, fused=True
        )
        self.warm = 0
        self.spikes.clear()

    def rate(self, fresh: int = 0) -> float:
        """Learning rate of the next step: linear warm-up, then constant; less for a batch that is not full.

        Square-root scaling (Malladi et al. 2022, arXiv 2205.10287): Adam's steps are as long for few samples as for
        many, and at low traffic their noise undid what full batches had learned.
        """
        config = self.config
        warm = min((self.warm + 1) / max(config.warmup_steps, 1), 1.0)
        full = min(fresh / config.fresh_batch, 1.0) if fresh else 1.0
        return config.learning_rate * self.rate_factor * warm * math.sqrt(full)

    def apply(self, fresh: int = 0) -> tuple[float, bool]:
        """Clip and apply the gradient that stands in the flat vector. Gives its norm and whether it was applied.

        `fresh` is the number of fresh documents of the whole step; 0 where that says nothing.
        """
        gradient = self.lora.flat.grad
        assert gradient is not None
        norm = gradient.norm().item()
        accepted = self.spikes.accepts(norm)
        if accepted:
            gradient.mul_(min(1.0, self.config.clip_norm / max(norm, 1e-12)))
            self.optimizer.param_groups[0]["lr"] = self.rate(fresh)
            self.optimizer.step()
            self.warm += 1
        self.optimizer.zero_grad()
        return norm, accepted


def new_trajectory(lora: Lora, vocab: int, config: TrainConfig) -> Trajectory:
    """A cold start from an adapter."""
    return Trajectory(lora, config, Spikes(config.spike_factor), Guard(vocab, config))


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    step: int
    outcome: Outcome
    norm: float
    """Gradient norm before clipping."""
    tokens: dict[Component, int]
    losses: dict[str, float]
    """Key of a document -> mean cross-entropy of its replies before this step, nats."""
    fresh_loss: float | None
    """Mean over the target tokens of accepted fresh documents that people wrote, of answers rated good in a step
    without any: the prequential loss."""
    quarantined: tuple[str, ...] = ()
    readmitted: tuple[str, ...] = ()
    noise: int = 0
    """Of the quarantined, those that are spelled like none of their lane."""
    salad: int = 0
    """Of the quarantined, those whose words might as well stand in another order."""
    lost: bool = False
    """The trajectory must go back to the last published version."""


Reduce = Callable[[Tensor], None]
"""Sums a gradient over all ranks in place; one process needs none."""


def step(
    base: Base, trajectory: Trajectory, chosen: Sequence[Document], *, whole: Norms | None = None,
    reduce: Reduce | None = None,
) -> StepReport:  # fmt: skip
    """Train on documents once. `whole` and `reduce` are given when other ranks hold the rest of the batch."""
    config, guard = trajectory.config, trajectory.guard
    trajectory.step += 1
    tokens = _tokens(chosen)
    whole = whole or norms(chosen)
    if whole.weight <= 0 and not whole.rated and not whole.pairs:
        return StepReport(trajectory.step, "skipped", 0.0, tokens, {}, None)
    heads = trajectory.heads
    heads.enrol(chosen)
    guard.look(chosen)
    low: Sequence[LowRank] = trajectory.lora.layers(base.dtype)
    if base.small:
        base, low = folded(base, low)
    judged: list[tuple[Document, float, bool]] = []
    for batch, entropy, heard in _forward(base, low, chosen, config.document_tokens):
        means = _means(batch, entropy.detach())
        keep = [guard.accepts(document, mean) for document, mean in zip(batch.examples, means, strict=True)]
        judged += zip(batch.examples, means, keep, strict=True)
        part = losses(batch, entropy, whole, config, keep=keep).total
        steer = heads.learn(heard, batch.examples, keep, whole.heard)
        if heads.steers and steer is not None:
            torch.autograd.backward([part, heard], [None, steer], retain_graph=True)
        else:
            torch.autograd.backward([part], retain_graph=True)
    if reduce is not None:
        if trajectory.lora.flat.grad is None:  # a rank without documents still takes part
            trajectory.lora.flat.grad = torch.zeros_like(trajectory.lora.flat)
        reduce(trajectory.lora.flat.grad)
        if whole.heard:
            reduce(heads.gradient)
    norm, accepted = trajectory.apply(whole.fresh)
    heads.apply(accepted=accepted)
    back = guard.observe(judged)
    fresh = [document for document in chosen if document.drawn.component == "fresh"]
    return StepReport(
        trajectory.step,
        "ok" if accepted else "failed",
        norm,
        tokens,
        {document.drawn.key: mean for document, mean, _ in judged if document.drawn.component != "copy"},
        _prequential(judged),
        tuple(document.drawn.key for document, _, kept in judged if not kept),
        tuple(back),
        noise=sum(guard.is_noise(document) for document in fresh),
        salad=sum(guard.is_salad(document) for document in fresh),
        lost=trajectory.spikes.lost,
    )


Forward = Iterator[tuple[Batch, Tensor, Tensor]]
"""Batches with the cross-entropy (L,) of their targets and the states (H, hidden) that the heads learn from."""


def _forward(base: Base, low: Sequence[LowRank], chosen: Sequence[Document], longest: int) -> Forward:
    """Packs of static shapes on CUDA; on CPU packs of a few documents of like length."""
    if base.device.type == "cuda" and base.foreign is None:
        yield from forward_static(base, low, chosen, longest)
        return
    for group in micro_batches(chosen, MICRO_BATCH):
        batch = pack(group)
        states = (_states_padded if base.foreign else _states_packed)(base, low, batch, _wanted(batch))
        yield batch, *_outcome(base, batch, states)


def forward_static(base: Base, low: Sequence[LowRank], chosen: Sequence[Document], longest: int) -> Forward:
    """The path of CUDA: compiled once for each of a few shapes; the head sees places with a label alone."""
    for batch in static_packs(chosen, longest):
        states = hidden_static(base, low, _packed(base, batch, longest))
        yield batch, *_outcome(base, batch, states.index_select(0, _wanted(batch).to(base.device)))


def _wanted(batch: Batch) -> Tensor:
    return torch.cat((batch.targets_at, batch.heard_at)) if len(batch.heard_at) else batch.targets_at


def _outcome(base: Base, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
    predicting, heard = torch.split(states, [len(batch.targets_at), len(batch.heard_at)])
    return entropy_of(base, predicting, batch.targets.to(base.device)), heard


def entropy_padded(base: Base, low: Sequence[LowRank] | None, batch: Batch) -> Tensor:
    """Cross-entropy (L,) of a batch's targets over right-padded rows."""
    return entropy_of(base, _states_padded(base, low, batch, batch.targets_at), batch.targets.to(base.device))


def entropy_packed(base: Base, low: Sequence[LowRank] | None, batch: Batch) -> Tensor:
    """Cross-entropy (L,) of a batch's targets over packed documents."""
    return entropy_of(base, _states_packed(base, low, batch, batch.targets_at), batch.targets.to(base.device))


def _states_padded(base: Base, low: Sequence[LowRank] | None, batch: Batch, at: Tensor) -> Tensor:
    """Final hidden states of places `at` of the pack, computed over right-padded rows."""
    tokens = pad([document.ids for document in batch.examples], base.device)
    width = tokens.shape[1]
    starts = torch.tensor([0, *accumulate(len(document.ids) for document in batch.examples)])
    row = torch.searchsorted(starts, at, right=True) - 1
    return hidden_padded(base, low, tokens).index_select(0, (row * width + at - starts[row]).to(base.device))


def _states_packed(base: Base, low: Sequence[LowRank] | None, batch: Batch, at: Tensor) -> Tensor:
    """Final hidden states of places `at`, computed over the pack."""
    longest = max(len(document.ids) for document in batch.examples)
    longest = max(longest, len(batch.tokens) - batch.real_tokens)
    return hidden_packed(base, low, _packed(base, batch, longest), at.to(base.device))


def _packed(base: Base, batch: Batch, longest: int) -> Packed:
    device = base.device
    return Packed(batch.tokens.to(device), batch.positions.to(device), batch.bounds.to(device), longest)


def entropy_of(base: Base, states: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (L,) from the hidden states (L, hidden) that predict `targets` (L,)."""
    if states.is_cuda:
        options = torch.nn.functional.LinearCrossEntropyOptions()  # type: ignore[attr-defined]  # not in the stubs
        chunked: Tensor = functional.linear_cross_entropy(states, base.head, targets, reduction="none", options=options)
        return chunked.float()
    return applied(Surprise, states, base.unembed, targets)


@torch.no_grad()
def with_references(tree: Tree, chosen: Sequence[Document]) -> list[Document]:
    """The documents with the summed log-probability of rated and edited replies under a reference version."""
    found = list(chosen)
    wanted = [
        index
        for index, document in enumerate(chosen)
        if any((r.label != "unknown" or r.draft) and r.reference is None for r in document.replies)
    ]
    finals = [index + 1 for index in wanted if chosen[index].replies[-1].draft and index + 1 < len(chosen)]
    order = sorted({*wanted, *finals}, key=lambda index: len(chosen[index].ids))
    for at in range(0, len(order), MICRO_BATCH):
        group = order[at : at + MICRO_BATCH]
        batch = pack([chosen[index] for index in group])
        sums = [-part.sum().item() for part in _replies(batch, entropy_padded(tree.base, tree.low, batch))]
        for index, document in zip(group, batch.examples, strict=True):
            known, sums = sums[: len(document.replies)], sums[len(document.replies) :]
            replies = tuple(replace(r, reference=value) for r, value in zip(document.replies, known, strict=True))
            found[index] = replace(document, replies=replies)
    return found


def _replies(batch: Batch, entropy: Tensor) -> list[Tensor]:
    """The cross-entropy of each reply's tokens, in the order of the batch's documents and their replies."""
    return [entropy[span.start : span.stop] for span in batch.spans]


def _means(batch: Batch, entropy: Tensor) -> list[float]:
    """Mean cross-entropy of each document's targets, nats; 0 for a document without any."""
    sums, counts = [0.0] * len(batch.examples), [0] * len(batch.examples)
    values = entropy.tolist()
    for span in batch.spans:
        sums[span.document] += sum(values[span.start : span.stop])
        counts[span.document] += span.stop - span.start
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]


def _tokens(chosen: Sequence[Document]) -> dict[Component, int]:
    found: dict[Component, int] = dict.fromkeys(COMPONENTS, 0)
    for document in chosen:
        found[document.drawn.component] += len(document.ids)
    return found


def _prequential(judged: Sequence[tuple[Document, float, bool]]) -> float | None:
    fresh = [(loss, document) for document, loss, kept in judged if kept and document.drawn.component == "fresh"]
    scored = [(loss, document.targets) for loss, document in fresh if document.human]
    if not scored:
        good = [(loss, one) for loss, one in fresh if all(reply.label == "good" for reply in one.replies)]
        scored = [(loss, document.targets) for loss, document in good]
    total = sum(count for _, count in scored)
    return sum(loss * count for loss, count in scored) / total if total else None
