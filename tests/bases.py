"""Tiny bases for tests: random weights and a tokenizer trained on text of our own, written like a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from learner.base import initial_tensors, model_config, train_tokenizer, write_base
from learner.config import BaseConfig
from learner.shape import MODULES, module_path, sizes_of

TINY = BaseConfig(layers=2, hidden=64, heads=2, ff=96, vocab=400, context=256, tokens=20_000, window=64, batch=8)
"""A base that is built in milliseconds; heads of 32."""

TEXTS = (
    "hello, my parcel has not arrived yet",
    "I am sorry to hear that. May I have your order number?",
    "the refund takes five days",
    "my printer is broken, what can I do?",
    "please restart the device and tell me whether the light turns green",
    "Grüße aus Köln: die Rechnung stimmt nicht",
)
"""Text of our own for tokenizers and chats."""


def tiny_base(out: Path, *, architecture: str = "LlamaForCausalLM", config: BaseConfig = TINY, seed: int = 0) -> Path:
    """Write a base with random weights; Qwen shapes get grouped heads, biases or head norms, and an untied head."""
    tokenizer = train_tokenizer(TEXTS * 3, config.vocab)
    settings = model_config(config, tokenizer.get_vocab_size())
    if architecture != "LlamaForCausalLM":
        settings |= {
            "architectures": [architecture],
            "model_type": architecture.removesuffix("ForCausalLM").lower(),
            "num_key_value_heads": config.heads // 2,
            "tie_word_embeddings": False,
        }
    generator = torch.Generator().manual_seed(seed)
    shape = sizes_of(settings)
    tensors: dict[str, Tensor] = dict(initial_tensors(shape, 0.2, generator))
    for layer in range(shape.layers):
        for name in MODULES[:3]:
            if shape.qkv_bias:
                tensors[f"{module_path(layer, name)}.bias"] = torch.randn(shape.module(name)[0], generator=generator)
        for name in ("q_norm", "k_norm"):
            if shape.qk_norm:
                key = f"model.layers.{layer}.self_attn.{name}.weight"
                tensors[key] = 1 + 0.1 * torch.randn(shape.head_dim, generator=generator)
    if not shape.tied:
        tensors["lm_head.weight"] = 0.2 * torch.randn(shape.vocab, shape.hidden, generator=generator)
    write_base(out, settings, tensors, tokenizer)
    return out


def rewrite_fp32(base: Path) -> None:
    """Store a base's weights in fp32, so that two implementations can be compared closely."""
    from safetensors.torch import load_file  # noqa: PLC0415 - beside its only use

    tensors = {key: value.float() for key, value in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
