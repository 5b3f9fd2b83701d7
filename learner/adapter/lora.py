"""LoRA tensors: one flat fp32 vector that trains, views of it for the forward pass, files that PEFT and vLLM load.

Error tree: AdapterError (ValueError) - files whose keys, shapes, numbers or configuration do not fit the base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learner.adapter.decoder import LowRank
from learner.registry import CONFIG_FILE, WEIGHTS_FILE, adapter_config
from learner.registry import Base as Identity
from learner.registry import Lora as Settings
from learner.shape import MODULES, Shape, adapter_shapes, module_path


class AdapterError(ValueError):
    """An adapter that does not fit: the message names the key and the rule, never a value of a weight."""


@dataclass(frozen=True)
class Piece:
    """One tensor inside the flat vector."""

    key: str
    """Name of LowRank's field."""
    rows: int
    cols: int
    is_b: bool


def pieces(shape: Shape, r: int) -> tuple[Piece, ...]:
    """The tensors of one layer in the order of the flat vector."""
    (wide, hidden), (narrow, _) = shape.module("q_proj"), shape.module("k_proj")
    ff = shape.ff
    table = (
        ("qkv_a", 3 * r, hidden), ("q_b", wide, r), ("k_b", narrow, r), ("v_b", narrow, r),
        ("out_a", r, wide), ("out_b", hidden, r),
        ("gate_up_a", 2 * r, hidden), ("gate_b", ff, r), ("up_b", ff, r),
        ("down_a", r, ff), ("down_b", hidden, r),
    )  # fmt: skip
    return tuple(Piece(key, rows, cols, key.endswith("_b")) for key, rows, cols in table)


@dataclass(frozen=True)
class Lora:
    """An adapter's settings and its flat vector (P,) fp32: layer after layer, pieces in order."""

    shape: Shape
    r: int
    alpha: float
    flat: Tensor

    @property
    def scaling(self) -> float:
        """alpha / r, the factor before B A x."""
        return self.alpha / self.r

    def layers(self, dtype: torch.dtype) -> tuple[LowRank, ...]:
        """Tensors for a forward pass, B scaled and transposed, cast once; gradients reach `flat` in one piece."""
        plan = pieces(self.shape, self.r)
        sizes = [piece.rows * piece.cols for _ in range(self.shape.layers) for piece in plan]
        split = iter(torch.split(self.flat.to(dtype), sizes))
        return tuple(
            LowRank(**{piece.key: self._view(next(split), piece) for piece in plan}) for _ in range(self.shape.layers)
        )

    def _view(self, part: Tensor, piece: Piece) -> Tensor:
        view = part.view(piece.rows, piece.cols)
        return (view.T * self.scaling).contiguous() if piece.is_b else view

    def tensors(self) -> dict[str, Tensor]:
        """Views under PEFT's keys, not scaled."""
        found: dict[str, Tensor] = {}
        plan, at = pieces(self.shape, self.r), 0
        for layer in range(self.shape.layers):
            parts: dict[str, Tensor] = {}
            for piece in plan:
                size = piece.rows * piece.cols
                parts[piece.key] = self.flat[at : at + size].view(piece.rows, piece.cols)
                at += size
            found |= {f"base_model.model.{key}": value for key, value in _named(layer, parts).items()}
        return found

    def with_flat(self, flat: Tensor) -> Lora:
        """The same settings over another vector."""
        return Lora(self.shape, self.r, self.alpha, flat)


def _named(layer: int, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    a = [*parts["qkv_a"].chunk(3), parts["out_a"], *parts["gate_up_a"].chunk(2), parts["down_a"]]
    b = [parts[key] for key in ("q_b", "k_b", "v_b", "out_b", "gate_b", "up_b", "down_b")]
    named = {}
    for name, low_a, low_b in zip(MODULES, a, b, strict=True):
        named[f"{module_path(layer, name)}.lora_A.weight"] = low_a
        named[f"{module_path(layer, name)}.lora_B.weight"] = low_b
    return named


def new_lora(
    shape: Shape, r: int, alpha: float, generator: torch.Generator, device: str | torch.device = "cpu"
) -> Lora:
    """A fresh adapter as PEFT starts it: A Kaiming-uniform with a = sqrt(5), that is U(+-1 / sqrt(in)), and B zero."""
    parts = []
    for _ in range(shape.layers):
        for piece in pieces(shape, r):
            start = torch.zeros(piece.rows * piece.cols)
            parts.append(start if piece.is_b else start.uniform_(-1, 1, generator=generator) / math.sqrt(piece.cols))
    return Lora(shape, r, alpha, torch.cat(parts).to(device))


def settings_of(lora: Lora) -> Settings:
    """The LoRA settings as manifests name them. Raises AdapterError for an alpha that is no whole number."""
    if not float(lora.alpha).is_integer():
        raise AdapterError(f"alpha {lora.alpha}: manifests hold whole numbers")
    return Settings(r=lora.r, alpha=int(lora.alpha), target_modules=tuple(sorted(MODULES)))


def adapter_bytes(lora: Lora, base_name: str) -> dict[str, bytes]:
    """The two files of a version, by name: canonical configuration and bf16 safetensors with PEFT's keys."""
    tensors = {key: value.detach().to("cpu", torch.bfloat16).contiguous() for key, value in lora.tensors().items()}
    weights = save(tensors, metadata={"format": "pt"})
    identity = Identity(name=base_name, revision="", config_sha256="", tokenizer_sha256="", chat_template_sha256="")
    return {CONFIG_FILE: adapter_config(identity, settings_of(lora)), WEIGHTS_FILE: weights}


def adapter_files(lora: Lora, base_name: str, directory: Path) -> dict[str, Path]:
    """Write the two files of a version into a folder; gives their paths by name."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, data in adapter_bytes(lora, base_name).items():
        paths[name] = directory / name
        paths[name].write_bytes(data)
    return paths


def read_lora(shape: Shape, directory: Path, device: str | torch.device = "cpu") -> Lora:
    """The adapter in a folder, in fp32. Raises AdapterError unless keys and shapes are exactly those of the base."""
    try:
        config = json.loads((directory / CONFIG_FILE).read_text())
        r, alpha = int(config["r"]), float(config["lora_alpha"])
        tensors = load_file(directory / WEIGHTS_FILE)
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise AdapterError(f"{type(error).__name__} while reading the files of an adapter") from None
    if config.get("use_rslora"):
        alpha *= math.sqrt(r)  # the scale is alpha / sqrt(r) there
    wanted = adapter_shapes(shape, r)
    if set(tensors) != set(wanted):
        raise AdapterError(f"keys: {len(set(wanted) - set(tensors))} missing, {len(set(tensors) - set(wanted))} extra")
    wrong = [key for key, tensor in tensors.items() if tuple(tensor.shape) != wanted[key]]
    if wrong:
        raise AdapterError(f"keys: shape of {wrong[0]} is not {wanted[wrong[0]]}")
    return pack(shape, r, alpha, tensors, device)


def pack(shape: Shape, r: int, alpha: float, tensors: Mapping[str, Tensor], device: str | torch.device = "cpu") -> Lora:
    """An adapter from tensors under PEFT's keys."""
    flat = torch.empty(sum(a * b for a, b in adapter_shapes(shape, r).values()), device=device)
    lora = Lora(shape, r, alpha, flat)
    for key, view in lora.tensors().items():
        view.copy_(tensors[key])
    return lora
