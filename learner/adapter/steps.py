"""One document token by token in numpy: for small bases torch's dispatch costs several times the arithmetic.

The same formulas as `decoder.decode` over the same memory; a test holds both to the same logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.adapter.tree import Tree

Array = NDArray[np.float32]


def _arrays(tensors: Any) -> Any:
    """The tensors of a dataclass as arrays over the same memory, under the same names."""
    found = {field.name: getattr(tensors, field.name) for field in fields(tensors)}
    return SimpleNamespace(**{key: None if value is None else value.numpy() for key, value in found.items()})


class Reader:
    """Reads one document piece by piece into a key-value cache of `capacity` tokens."""

    def __init__(self, tree: Tree, capacity: int) -> None:
        base, shape = tree.base, tree.base.shape
        self._shape = shape
        self._layers = [_arrays(layer) for layer in base.layers]
        self._low = [_arrays(low) for low in tree.low] if tree.low is not None else [None] * shape.layers
        self._embed, self._norm, self._unembed = base.embed.numpy(), base.norm.numpy(), base.unembed.numpy()
        self._cos, self._sin = (table.numpy() for table in base.rope)
        self._keys = np.empty((shape.layers, shape.kv_heads, capacity, shape.head_dim), dtype=np.float32)
        self._values = np.empty_like(self._keys)
        self.length = 0

    def read(self, ids: Sequence[int]) -> Array:
        """Logits (vocab,) after the last of the next tokens; weights that are not finite give logits that are not."""
        with np.errstate(all="ignore"):
            return self._read(ids)

    def _read(self, ids: Sequence[int]) -> Array:
        start = self.length
        stop = start + len(ids)
        cos, sin = self._cos[start:stop, None], self._sin[start:stop, None]
        x: Array = self._embed[list(ids)]
        for index, (layer, low) in enumerate(zip(self._layers, self._low, strict=True)):
            q, k, v = self._qkv(layer, low, self._rms(x, layer.norm_in))
            self._keys[index, :, start:stop] = _rotate(k, cos, sin).swapaxes(0, 1)
            self._values[index, :, start:stop] = v.swapaxes(0, 1)
            mixed = self._attend(index, _rotate(q, cos, sin), stop)
            x = x + _project(mixed, layer.out, low, "out")
            x = x + self._mlp(layer, low, self._rms(x, layer.norm_post))
        self.length = stop
        last: Array = (self._rms(x[-1:], self._norm) @ self._unembed)[0]
        return last

    def _qkv(self, layer: Any, low: Any, x: Array) -> tuple[Array, Array, Array]:
        shape = self._shape
        fused = x @ layer.qkv
        if layer.qkv_bias is not None:
            fused = fused + layer.qkv_bias
        width, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        parts = [fused[:, :width], fused[:, width : width + kv], fused[:, width + kv :]]
        if low is not None:
            a, r = x @ low.qkv_a.T, len(low.q_b)
            for n, b in enumerate((low.q_b, low.k_b, low.v_b)):
                parts[n] = parts[n] + a[:, n * r : (n + 1) * r] @ b
        q, k, v = (part.reshape(len(x), -1, shape.head_dim) for part in parts)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._rms(q, layer.q_norm), self._rms(k, layer.k_norm)
        return q, k, v

    def _attend(self, index: int, q: Array, stop: int) -> Array:
        """(t, heads * d) from queries (t, heads, d); query i sees what was read up to itself."""
        time, heads, d = q.shape
        kv = self._shape.kv_heads
        rows = q.reshape(time, kv, heads // kv, d).transpose(1, 2, 0, 3)
        keys, values = self._keys[index, :, None, :stop], self._values[index, :, None, :stop]
        scores = rows @ keys.swapaxes(2, 3) / np.float32(math.sqrt(d))
        if time > 1:
            scores = scores + np.triu(np.full((time, stop), -np.inf, dtype=np.float32), stop - time + 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ values
        flat: Array = mixed.transpose(2, 0, 1, 3).reshape(time, heads * d)
        return flat

    def _mlp(self, layer: Any, low: Any, x: Array) -> Array:
        fused, wide = x @ layer.gate_up, layer.gate_up.shape[1] // 2
        gate, up = fused[:, :wide], fused[:, wide:]
        if low is not None:
            a, r = x @ low.gate_up_a.T, len(low.gate_b)
            gate, up = gate + a[:, :r] @ low.gate_b, up + a[:, r:] @ low.up_b
        return _project(gate / (1 + np.exp(-gate)) * up, layer.down, low, "down")

    def _rms(self, x: Array, weight: Array) -> Array:
        mean = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
        normed: Array = x / np.sqrt(mean + np.float32(self._shape.norm_eps)) * weight
        return normed


def _project(x: Array, weight: Array, low: Any, name: str) -> Array:
    y: Array = x @ weight
    return y if low is None else y + x @ getattr(low, f"{name}_a").T @ getattr(low, f"{name}_b")


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    rotated = x * cos
    rotated[..., :half] -= x[..., half:] * sin[..., :half]
    rotated[..., half:] += x[..., :half] * sin[..., half:]
    return rotated
