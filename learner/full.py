"""Full fine-tuning, offline: every weight of a base, layer-wise learning rates, a finite schedule, early stopping.

The result is a new base with digests of its own. It is no adapter: it can never be published to a line, and
adapters of the old base do not fit it.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from learner.adapter import Base, Tree, load_chat, score
from learner.adapter.weights import assemble
from learner.batch import Document, micro_batches, pack
from learner.config import TrainConfig
from learner.heldout import HeldChat
from learner.search import EarlyStop, Schedule, rate_factor
from learner.shape import shape_of
from learner.tune import as_documents
from learner.update import entropy_padded

MICRO_BATCH = 8
LAYER_DECAY = 0.9
"""Factor on the rate for each layer above: lower layers hold what is common to all text."""

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class FullConfig:
    """One run of full fine-tuning."""

    learning_rate: float = 2e-5
    """A tenth of LoRA's."""
    layer_decay: float = LAYER_DECAY
    freeze_embeddings: bool = False
    epochs: int = 3
    batch: int = 8
    """Chats of a step."""
    clip_norm: float = 1.0
    schedule: Schedule = "cosine"
    patience: int = 2
    """Epochs without a better held-out loss after which it stops."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("learning_rate", "layer_decay", "epochs", "batch", "clip_norm", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"FullConfig {name!r} has value {getattr(self, name)!r}: must be above 0")
        if self.layer_decay > 1:
            raise ValueError(f"FullConfig 'layer_decay' has value {self.layer_decay!r}: must lie in 0..1")


def layer_rates(names: Iterable[str], layers: int, config: FullConfig) -> dict[str, float]:
    """Learning rate of each tensor: lr * decay^(layers above it); embeddings lie below all layers, 0 when frozen."""
    rates = {}
    for name in names:
        if name.startswith("model.layers."):
            above = layers - 1 - int(name.split(".")[2])
        elif "embed_tokens" in name:
            above = layers
        else:
            above = 0
        frozen = config.freeze_embeddings and "embed_tokens" in name
        rates[name] = 0.0 if frozen else config.learning_rate * config.layer_decay**above
    return rates


def fine_tune(
    source: Path, out: Path, train: Sequence[HeldChat], held: Sequence[HeldChat], config: FullConfig, *,
    report: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> list[float]:  # fmt: skip
    """Train all weights of `source` on chats and write the best epoch's as the base `out`. Gives held-out losses."""
    settings, tensors = _load(source)
    chat, shape = load_chat(source), shape_of(settings)
    rates = layer_rates(tensors, shape.layers, config)

    def model() -> Base:
        return assemble(shape, tensors, chat, name=out.name, digests={}, dtype=torch.float32)

    optimizer = torch.optim.AdamW(
        [{"params": [tensors[name].requires_grad_()], "lr": rate, "top": rate} for name, rate in rates.items() if rate],
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    made = [one for chat_ in as_documents(model(), train, TrainConfig()) for one in chat_]
    draw, stop = random.Random(config.seed), EarlyStop(config.patience)
    losses, kept = [held_loss(model(), held)], {name: value.detach().clone() for name, value in tensors.items()}
    steps = max(-(-len(made) // config.batch), 1)
    for epoch in range(config.epochs):
        draw.shuffle(made)
        for at in range(steps):
            factor = rate_factor(config.schedule, (epoch * steps + at) / (config.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * factor
            _step(model(), optimizer, made[at * config.batch : (at + 1) * config.batch], config)
        losses.append(held_loss(model(), held))
        report(epoch, losses[-1])
        if losses[-1] == min(losses):
            kept = {name: value.detach().clone() for name, value in tensors.items()}
        if stop.observe(losses[-1]):
            break
    _write(source, out, kept)
    return losses


def held_loss(base: Base, chats: Sequence[HeldChat]) -> float:
    """Nats a reply token of a base on chats; 0 without any."""
    scores = score(Tree(base), [chat.turns for chat in chats])
    tokens = sum(one.tokens for one in scores)
    return sum(one.loss * one.tokens for one in scores) / tokens if tokens else 0.0


def _step(base: Base, optimizer: torch.optim.Optimizer, chosen: Sequence[Document], config: FullConfig) -> None:
    total = sum(document.targets for document in chosen)
    for group in micro_batches(chosen, MICRO_BATCH):
        torch.autograd.backward(entropy_padded(base, None, pack(group)).sum() / max(total, 1), retain_graph=True)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    optimizer.step()
    optimizer.zero_grad()


def _load(source: Path) -> tuple[dict[str, object], dict[str, Tensor]]:

    settings: dict[str, object] = json.loads((source / "config.json").read_text())
    tensors = {k: v.float() for file in sorted(source.glob("*.safetensors")) for k, v in load_file(file).items()}
    return settings, tensors


def _write(source: Path, out: Path, tensors: dict[str, Tensor]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in tensors.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
