"""A base model on disk -> its frozen tensors, tokenizer, chat template and digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from learner.adapter.chat import Chat, load_chat
from learner.shape import Shape, ShapeError, shape_of, sizes_of

if TYPE_CHECKING:
    from learner.adapter.foreign import Foreign


SMALL = 512
"""Widest hidden state at which dispatch and ranks weigh beside the products of a base, on CPU."""


@dataclass(frozen=True)
class Layer:
    """Frozen tensors of one decoder layer, matrices as (in, out); q, k, v and gate, up are fused along their outputs.

    CPU products with the transposed view of (out, in) take half as long again.
    """

    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    gate_up: Tensor
    down: Tensor
    norm_in: Tensor
    norm_post: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None


@dataclass(frozen=True)
class Base:
    """A base model: never changed after load, shared by every tree that is built on it."""

    name: str
    """What adapter_config.json calls it; the folder's name unless told otherwise."""
    shape: Shape
    chat: Chat
    embed: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    """(vocab, hidden)."""
    unembed: Tensor
    """(hidden, vocab): the head again, laid out for products on CPU, a view of it elsewhere."""
    rope: tuple[Tensor, Tensor]
    """cos and sin, each (context, head_dim) in fp32."""
    digests: Mapping[str, str]
    """sha256 of config, tokenizer, chat template and weights."""
    foreign: Foreign | None = None
    """Computes instead of us, for an architecture that our own forward pass is not proven for."""

    @property
    def dtype(self) -> torch.dtype:
        """In which the forward pass computes."""
        return self.embed.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.embed.device

    @property
    def small(self) -> bool:
        """Whether shortcuts pay: a narrow base in fp32 on the CPU that we compute ourselves."""
        ours = self.foreign is None and self.device.type == "cpu"
        return ours and self.shape.hidden <= SMALL and self.dtype == torch.float32


def load_base(
    path: Path, *, name: str | None = None, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Base:
    """Read a folder of config.json, *.safetensors, tokenizer.json and tokenizer_config.json.

    An architecture that our own forward pass does not cover is computed by transformers; raises ShapeError where not
    even its linear layers are Llama's.
    """
    config = json.loads((path / "config.json").read_text())
    try:
        shape = shape_of(config)
    except ShapeError:
        return _load_foreign(path, config, name or path.name, dtype, str(device))
    tensors: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= load_file(file, device=str(device))
    return assemble(
        shape, tensors, load_chat(path), name=name or path.name, digests=digests_of(path), dtype=dtype, device=device
    )


def _load_foreign(path: Path, config: Mapping[str, Any], name: str, dtype: torch.dtype, device: str) -> Base:
    from learner.adapter.foreign import load_foreign  # noqa: PLC0415 - it imports what this module's users import

    shape = sizes_of(config)
    foreign = load_foreign(path, shape, config, dtype, device)
    head = foreign.head
    return Base(
        name=name,
        shape=shape,
        chat=load_chat(path),
        embed=foreign.embed,
        layers=(),
        norm=head.new_ones(shape.hidden),
        head=head,
        unembed=head.T.contiguous() if device == "cpu" else head.T,
        rope=(head.new_empty(0), head.new_empty(0)),
        digests=digests_of(path),
        foreign=foreign,
    )


def assemble(
    shape: Shape,
    tensors: Mapping[str, Tensor],
    chat: Chat,
    *,
    name: str,
    digests: Mapping[str, str],
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
) -> Base:
    """A base from tensors under transformers' names."""

    def take(*keys: str) -> Tensor:
        parts = [tensors[key].to(device=device, dtype=dtype) for key in keys]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()

    def matrix(*keys: str) -> Tensor:
        return take(*keys).T.contiguous()

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}."
        qkv = [f"{at}self_attn.{letter}_proj" for letter in "qkv"]
        return Layer(
            qkv=matrix(*(f"{key}.weight" for key in qkv)),
            qkv_bias=take(*(f"{key}.bias" for key in qkv)) if shape.qkv_bias else None,
            out=matrix(f"{at}self_attn.o_proj.weight"),
            gate_up=matrix(f"{at}mlp.gate_proj.weight", f"{at}mlp.up_proj.weight"),
            down=matrix(f"{at}mlp.down_proj.weight"),
            norm_in=take(f"{at}input_layernorm.weight"),
            norm_post=take(f"{at}post_attention_layernorm.weight"),
            q_norm=take(f"{at}self_attn.q_norm.weight") if shape.qk_norm else None,
            k_norm=take(f"{at}self_attn.k_norm.weight") if shape.qk_norm else None,
        )

    embed = take("model.embed_tokens.weight")
    head = embed if shape.tied else take("lm_head.weight")
    return Base(
        name=name,
        shape=shape,
        chat=chat,
        embed=embed,
        layers=tuple(layer(index) for index in range(shape.layers)),
        norm=take("model.norm.weight"),
        head=head,
        unembed=head.T.contiguous() if head.device.type == "cpu" else head.T,
        rope=rope_table(shape, device),
        digests=digests,
    )


def rope_table(shape: Shape, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary embedding in fp32, halves repeated as transformers lays them out."""
    steps = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device) / shape.head_dim
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float32, device=device), shape.rope_theta**-steps)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def digests_of(path: Path) -> dict[str, str]:
    """sha256 of a base's config, tokenizer, chat template and weights, as manifests name them."""

    def of(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    settings: dict[str, Any] = json.loads((path / "tokenizer_config.json").read_text())
    template = path / "chat_template.jinja"
    text = template.read_text() if template.exists() else str(settings.get("chat_template", ""))
    weights = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        weights.update(file.read_bytes())
    return {
        "config_sha256": of((path / "config.json").read_bytes()),
        "tokenizer_sha256": of((path / "tokenizer.json").read_bytes()),
        "chat_template_sha256": of(text.encode()),
        "weights_sha256": weights.hexdigest(),
    }
