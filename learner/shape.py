"""The shape of a base model and of the adapters that fit it, read from its config.json; torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a decoder layer, in the order in which it runs; all of them carry LoRA."""

PROVEN = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
"""Architectures whose forward pass in learner/adapter is proven equal to PEFT + transformers by a test."""


def base_folder(configured: str) -> Path:
    """The base model's folder; the shipped one by default."""
    return Path(configured) if configured else Path(str(files("learner").joinpath("demo_base")))


class ShapeError(ValueError):
    """A config.json that our own forward pass does not cover; the message names the key and its value."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-like decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    context: int
    """Longest sequence in tokens."""
    rope_theta: float
    norm_eps: float
    tied: bool
    """Whether the head is the embedding matrix."""
    qkv_bias: bool
    qk_norm: bool
    """Whether each head of q and k is normalised before the rotation (Qwen3)."""

    def module(self, name: str) -> tuple[int, int]:
        """(out, in) features of a linear layer."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (wide, self.hidden),
            "k_proj": (narrow, self.hidden),
            "v_proj": (narrow, self.hidden),
            "o_proj": (self.hidden, wide),
            "gate_proj": (self.ff, self.hidden),
            "up_proj": (self.ff, self.hidden),
            "down_proj": (self.hidden, self.ff),
        }[name]


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape in a model's config.json. Raises ShapeError for what our forward pass does not know."""
    architecture = (config.get("architectures") or ["?"])[0]
    if architecture not in PROVEN:
        raise ShapeError(f"config 'architectures' has value {architecture!r}: not one of {sorted(PROVEN)}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ShapeError(f"config 'rope_type' has value {rope.get('rope_type')!r}: not 'default'")
    for key, wanted in (("hidden_act", "silu"), ("use_sliding_window", False), ("mlp_bias", False)):
        if config.get(key, wanted) != wanted:
            raise ShapeError(f"config {key!r} has value {config[key]!r}: not {wanted!r}")
    if architecture != "Qwen2ForCausalLM" and config.get("attention_bias", False):
        raise ShapeError("config 'attention_bias' has value True: not False")
    return sizes_of(config)


def sizes_of(config: Mapping[str, Any]) -> Shape:
    """The sizes in a config.json, whether or not our own forward pass covers the architecture."""
    architecture = (config.get("architectures") or ["?"])[0]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads = int(config["num_attention_heads"])
    return Shape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        ff=int(config["intermediate_size"]),
        vocab=int(config["vocab_size"]),
        context=int(config.get("max_position_embeddings", 2048)),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=architecture == "Qwen2ForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
    )


def module_path(layer: int, name: str) -> str:
    """Where a linear layer sits in the model, as in `model.layers.0.self_attn.q_proj`."""
    block = "self_attn" if name in MODULES[:4] else "mlp"
    return f"model.layers.{layer}.{block}.{name}"


def adapter_shapes(shape: Shape, r: int) -> dict[str, tuple[int, int]]:
    """The tensors of an adapter file under PEFT's keys: lora_A is (r, in), lora_B is (out, r)."""
    shapes = {}
    for layer in range(shape.layers):
        for name in MODULES:
            out_features, in_features = shape.module(name)
            stem = f"base_model.model.{module_path(layer, name)}"
            shapes[f"{stem}.lora_A.weight"] = (r, in_features)
            shapes[f"{stem}.lora_B.weight"] = (out_features, r)
    return shapes
