"""Architectures that our own forward pass does not cover: transformers computes, LoRA tensors come in from outside.

Each linear layer looks its tensors up in a context variable, so threads with different versions share one model and
none ever switches it. Slower than the proven path: nothing is fused, and generation reads its prefix again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.adapter.decoder import LowRank
from learner.shape import MODULES, Shape, ShapeError, module_path

_LOW: ContextVar[Mapping[str, tuple[Tensor, Tensor]] | None] = ContextVar("low", default=None)

REFUSED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings that put something between the hidden state and the head; the head is applied outside of the model."""


class Adapted(nn.Module):
    """A linear layer plus what the version of this call adds to it."""

    def __init__(self, linear: nn.Linear, path: str) -> None:
        super().__init__()
        self.linear = linear
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """W x, and B A x if the call has an adapter."""
        y: Tensor = self.linear(x)
        low = _LOW.get()
        if low is None:
            return y
        a, b = low[self.path]
        return y + (x @ a.T) @ b


class Foreign:
    """A frozen transformers model with Llama's names of linear layers."""

    def __init__(self, model: Any, shape: Shape) -> None:
        self._body = model.get_submodule("model")
        self.embed: Tensor = model.get_input_embeddings().weight
        self.head: Tensor = model.get_output_embeddings().weight
        for layer in range(shape.layers):
            for name in MODULES:
                _adapt(self._body, module_path(layer, name).removeprefix("model."), shape.module(name))

    def hidden(self, low: Sequence[LowRank] | None, tokens: Tensor) -> Tensor:
        """Final hidden states (B * T, hidden) of right-padded tokens (B, T)."""
        mark = _LOW.set(None if low is None else _by_path(low))
        try:
            states: Tensor = self._body(input_ids=tokens, use_cache=False).last_hidden_state
        finally:
            _LOW.reset(mark)
        return states.reshape(-1, states.shape[-1])


def load_foreign(path: Path, shape: Shape, config: Mapping[str, Any], dtype: torch.dtype, device: str) -> Foreign:
    """The model in a folder. Raises ShapeError where names, sizes or the way to the logits differ from Llama's."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - costs seconds, and the proven path needs none of it

    for key in REFUSED:
        if config.get(key) not in {None, 1}:
            raise ShapeError(f"config {key!r} has value {config[key]!r}: must be absent")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True).to(device).eval()
    for parameter in model.parameters():
        parameter.requires_grad = False
    return Foreign(model, shape)


def _adapt(body: nn.Module, path: str, wanted: tuple[int, int]) -> None:
    parent, _, name = path.rpartition(".")
    try:
        owner = body.get_submodule(parent)
        linear = getattr(owner, name)
    except AttributeError:
        raise ShapeError(f"model has no linear layer {path}: must be named as Llama's") from None
    if not isinstance(linear, nn.Linear) or tuple(linear.weight.shape) != wanted:
        raise ShapeError(f"model's {path} is no linear layer of {wanted}")
    setattr(owner, name, Adapted(linear, path))


def _by_path(low: Sequence[LowRank]) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for layer, rank in enumerate(low):
        a = [*rank.qkv_a.chunk(3), rank.out_a, *rank.gate_up_a.chunk(2), rank.down_a]
        b = [rank.q_b, rank.k_b, rank.v_b, rank.out_b, rank.gate_b, rank.up_b, rank.down_b]
        for name, pair in zip(MODULES, zip(a, b, strict=True), strict=True):
            found[module_path(layer, name).removeprefix("model.")] = pair
    return found
