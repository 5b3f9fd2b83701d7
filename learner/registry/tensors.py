"""Adapter weights without torch: the safetensors header, a scan of the numbers, and the names and shapes that must be.

Names and shapes are derived from the base's config.json and the LoRA settings, never taken from the file, so
smuggled base weights and missing layers cannot pass. `adapter_config.json` is derived in the same way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.registry.manifest import Base, Lora, Malformed, canonical

ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
EXPONENTS = {"BF16": (0x7F80, 0x7FFF), "F16": (0x7C00, 0x7FFF), "F32": (0x7F800000, 0x7FFFFFFF)}
"""Bits of infinity, and the mask of a magnitude: from the first on a magnitude is not finite."""

MIN_HEADER_BYTES = len("{}")
MAX_HEADER_BYTES = 1 << 24
ENTRY_KEYS = frozenset({"dtype", "shape", "data_offsets"})
CHUNK = 1 << 16
"""Numbers scanned at once: small enough for the processor's cache."""

ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""`model_type` of bases whose layers are named and shaped as `derived_keys` says; dense only."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: dtype, shape, and its bytes [begin, end) behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Weights:
    """A safetensors file whose header is sound: tensors in file order, and its mapped data bytes."""

    entries: tuple[Entry, ...]
    data: NDArray[np.uint8]

    @property
    def shapes(self) -> Shapes:
        """Shape by name."""
        return {entry.name: entry.shape for entry in self.entries}

    @property
    def dtypes(self) -> frozenset[str]:
        """The dtypes in use."""
        return frozenset(entry.dtype for entry in self.entries)


@dataclass(frozen=True)
class Numbers:
    """What a scan found: numbers that are not finite, Frobenius norm and largest magnitude of the finite ones."""

    nonfinite: int
    fro_norm: float
    max_abs: float


def open_weights(path: Path) -> Weights:
    """Map a safetensors file and check its header: contiguous, complete, known dtypes. Raises Malformed."""
    if path.stat().st_size < 8 + MIN_HEADER_BYTES:
        raise Malformed("safetensors: shorter than a header")
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if not MIN_HEADER_BYTES <= length <= min(MAX_HEADER_BYTES, len(raw) - 8):
        raise Malformed(f"safetensors: header of {length} bytes in a file of {len(raw)}")
    header = _header(raw[8 : 8 + length].tobytes())
    data = raw[8 + length :]
    entries = sorted((_entry(name, body) for name, body in header.items()), key=lambda entry: entry.begin)
    reached = 0
    for entry in entries:
        if entry.begin != reached:
            raise Malformed(f"safetensors: gap or overlap before {entry.name!r}")
        reached = entry.end
    if reached != len(data):
        raise Malformed(f"safetensors: {len(data)} data bytes, tensors cover {reached}")
    return Weights(tuple(entries), data)


def scan(weights: Weights) -> Numbers:
    """Count non-finite numbers and measure norms with integer views, without copying the file."""
    nonfinite, squares, largest = 0, 0.0, 0.0
    for dtype, begin, end in _runs(weights.entries):
        bad, run_squares, run_largest = _scan_run(_bits(weights.data[begin:end], dtype), dtype)
        nonfinite += bad
        squares += run_squares
        largest = max(largest, run_largest)
    return Numbers(nonfinite, math.sqrt(squares), largest)


def distance(one: Weights, other: Weights) -> float:
    """Frobenius norm of the difference of two files with the same names, shapes and dtypes."""
    squares = 0.0
    pairs = zip(_runs(one.entries), _runs(other.entries), strict=True)
    for (dtype, begin, end), (_, other_begin, other_end) in pairs:
        mine, theirs = _bits(one.data[begin:end], dtype), _bits(other.data[other_begin:other_end], dtype)
        for start in range(0, len(mine), CHUNK):
            piece = slice(start, start + CHUNK)
            difference = to_float32(mine[piece], dtype) - to_float32(theirs[piece], dtype)
            squares += float(np.dot(difference, difference))
    return math.sqrt(squares)


def to_float32(bits: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Numbers from their bits: uint16 of BF16 or F16, uint32 of F32."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return bits.view(np.float32)


def keyset_digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """Sha256, in hex, of the sorted names and shapes."""
    return sha256(canonical([[name, list(shape)] for name, shape in sorted(shapes.items())])).hexdigest()


def module_shapes(base_config: Mapping[str, Any]) -> Shapes:
    """(out, in) of each linear module of one layer, by its name there. Raises Malformed on an unknown architecture."""
    kind = base_config.get("model_type")
    if kind not in ARCHITECTURES:
        raise Malformed(f"model_type={kind!r}: known are {', '.join(sorted(ARCHITECTURES))}")
    hidden, inner = int(base_config["hidden_size"]), int(base_config["intermediate_size"])
    heads = int(base_config["num_attention_heads"])
    keys = int(base_config.get("num_key_value_heads") or heads)
    head = int(base_config.get("head_dim") or hidden // heads)
    return {
        "self_attn.q_proj": (heads * head, hidden),
        "self_attn.k_proj": (keys * head, hidden),
        "self_attn.v_proj": (keys * head, hidden),
        "self_attn.o_proj": (hidden, heads * head),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def derived_keys(base_config: Mapping[str, Any], lora: Lora) -> Shapes:
    """Name and shape of every tensor that an adapter on this base must have, A (r, in) and B (out, r)."""
    modules = module_shapes(base_config)
    known = {name.rsplit(".", 1)[1] for name in modules}
    if not lora.target_modules or not set(lora.target_modules) <= known:
        raise Malformed(f"target_modules={list(lora.target_modules)}: at least one, all of {sorted(known)}")
    keys: Shapes = {}
    for layer in range(int(base_config["num_hidden_layers"])):
        for module, (rows, columns) in modules.items():
            if module.rsplit(".", 1)[1] not in lora.target_modules:
                continue
            name = f"model.layers.{layer}.{module}"
            rank = _patterned(lora.rank_pattern, name, lora.r)
            keys[f"base_model.model.{name}.lora_A.weight"] = (rank, columns)
            keys[f"base_model.model.{name}.lora_B.weight"] = (rows, rank)
    return keys


def adapter_config(base: Base, lora: Lora) -> bytes:
    """The canonical adapter_config.json for PEFT, vLLM and SGLang; nothing that engines reject can stand in it."""
    return canonical({
        "alpha_pattern": lora.alpha_pattern, "auto_mapping": None, "base_model_name_or_path": base.name,
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layer_replication": None, "layers_pattern": None, "layers_to_transform": None, "lora_alpha": lora.alpha,
        "lora_bias": False, "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA", "r": lora.r,
        "rank_pattern": lora.rank_pattern, "revision": None, "target_modules": sorted(lora.target_modules),
        "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": lora.rslora,
    })  # fmt: skip


def scale(lora: Lora) -> float:
    """The largest factor before B A x: alpha / r, or alpha / sqrt(r) with rsLoRA, over all modules."""
    ranks = [lora.r, *lora.rank_pattern.values()]
    alphas = [abs(alpha) for alpha in (lora.alpha, *lora.alpha_pattern.values())]
    return max(alphas) / (math.sqrt(min(ranks)) if lora.rslora else min(ranks))


def _patterned(pattern: Mapping[str, int], name: str, default: int) -> int:
    """PEFT's rule: the first key that equals the name or is its suffix behind a dot."""
    return next((v for k, v in pattern.items() if re.fullmatch(rf"(.*\.)?{re.escape(k)}", name)), default)


def _header(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise Malformed("safetensors: header is no JSON object of unique names") from None
    if not isinstance(header, dict):
        raise Malformed("safetensors: header is no JSON object")
    # any other metadata could smuggle text or let equal weights have several digests
    if header.pop("__metadata__", {"format": "pt"}) != {"format": "pt"}:
        raise Malformed("safetensors: metadata other than the format")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated name")
    return found


def _entry(name: str, body: Any) -> Entry:
    try:
        dtype, shape, (begin, end) = body["dtype"], tuple(body["shape"]), body["data_offsets"]
        sound = dtype in ITEM_BYTES and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        sound = sound and body.keys() == ENTRY_KEYS and end - begin == math.prod(shape) * ITEM_BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise Malformed(f"safetensors: entry {name[:80]!r}")
    return Entry(name, dtype, shape, begin, end)


def _runs(entries: Sequence[Entry]) -> list[tuple[str, int, int]]:
    """(dtype, begin, end) of neighbours with one dtype."""
    runs: list[tuple[str, int, int]] = []
    for entry in entries:
        if runs and runs[-1][0] == entry.dtype:
            runs[-1] = (entry.dtype, runs[-1][1], entry.end)
        else:
            runs.append((entry.dtype, entry.begin, entry.end))
    return runs


def _bits(data: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """The numbers' bits as unsigned integers."""
    aligned = data if data.ctypes.data % ITEM_BYTES[dtype] == 0 else data.copy()
    return aligned.view(np.uint32 if dtype == "F32" else np.uint16)


def _scan_run(bits: NDArray[Any], dtype: str) -> tuple[int, float, float]:
    """Non-finite count, sum of squares and largest magnitude; magnitudes order like their bits."""
    exponent, magnitude = EXPONENTS[dtype]
    sizes, floats = np.empty(CHUNK, bits.dtype), np.zeros(CHUNK, np.float32)
    nonfinite, squares, top = 0, 0.0, np.zeros(1, bits.dtype)
    for start in range(0, len(bits), CHUNK):
        chunk = bits[start : start + CHUNK]
        found = np.bitwise_and(chunk, bits.dtype.type(magnitude), out=sizes[: len(chunk)])
        largest = found.max()
        if largest >= exponent:
            broken = found >= exponent
            nonfinite += int(np.count_nonzero(broken))
            found[broken] = 0
            largest = found.max()
        top[0] = max(top[0], largest)
        values = _widened(found, dtype, floats)
        with np.errstate(over="ignore"):  # an absurd norm is inf, and refused as such
            squares += float(np.dot(values, values))
    return nonfinite, squares, float(to_float32(top, dtype)[0])


def _widened(bits: NDArray[Any], dtype: str, floats: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers of a chunk as float32, in `floats` where they must be converted: no new memory per chunk."""
    if dtype == "F32":
        return bits.view(np.float32)
    values = floats[: len(bits)]
    if dtype == "BF16":
        values.view(np.uint16)[1::2] = bits  # a bf16 is the upper half of a float32, which comes second in memory
    else:
        values[:] = bits.view(np.float16)
    return values
