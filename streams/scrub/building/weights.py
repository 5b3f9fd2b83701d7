"""What training the tagger and the address network share: Adam, sums over surfaces, one-byte weights and their card."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from streams.scrub.building.lexicon import DATA

Array = np.ndarray[Any, Any]
BATCH_SCALE = 100.0
"""Gradients are kept away from the smallest floats; Adam does not mind."""


def descend(
    weights: dict[str, Array], gradients: Callable[[Array], tuple[float, dict[str, Array]]], rng: np.random.Generator,
    count: int, *, epochs: int, batch: int, most: float,
) -> Iterator[tuple[float, dict[str, Array]]]:  # fmt: skip
    """Mean loss and weights after each epoch over `count` examples; `most` is the highest rate of Adam."""
    means = {k: np.zeros_like(v) for k, v in weights.items()}
    squares = {k: np.zeros_like(v) for k, v in weights.items()}
    steps = epochs * -(-count // batch)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(count)
        losses = []
        for at in range(0, count, batch):
            loss, back = gradients(order[at : at + batch])
            losses.append(loss)
            step += 1
            rate = most * min(1.0, step / 200) * (1 - step / (steps + 1))
            for key, gradient in back.items():
                means[key] += 0.1 * (gradient - means[key])
                squares[key] += 0.01 * (gradient * gradient - squares[key])
                weights[key] -= rate / (1 - 0.9**step) * means[key] / (np.sqrt(squares[key] / (1 - 0.99**step)) + 1e-6)
        yield float(np.mean(losses)), weights


def of_rows(table: csr_matrix, used: tuple[Array, Array], gradient: Array) -> Array:
    """The gradient of the rows that surfaces sum up, from that of each use of a surface."""
    surfaces, use = used
    places = (np.ones(len(use), np.float32), (use, np.arange(len(use))))
    by_surface = csr_matrix(places, shape=(len(surfaces), len(use)))
    found: Array = table[surfaces].T @ (by_surface @ gradient)
    return found


def packed(features: list[str], weights: dict[str, Array]) -> bytes:
    """Features and weights in the form that network.Network reads: a line of JSON, then arrays of one byte a number."""
    header: dict[str, Any] = {"features": features, "arrays": {}}
    body = b""
    for key, array in sorted(weights.items()):
        scale = (
            np.maximum(np.abs(array).max(axis=0), 1e-8) / 127
            if array.ndim > 1
            else np.maximum(np.abs(array).max(), 1e-8) / 127
        )
        header["arrays"][key] = {"shape": array.shape, "scale": [float(f"{s:.6g}") for s in np.atleast_1d(scale)]}
        body += np.rint(array / scale).astype(np.int8).tobytes()
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, compresslevel=9) as stream:
        stream.write(json.dumps(header, separators=(",", ":")).encode() + b"\n" + body)
    return out.getvalue()


def publish(stem: str, raw: bytes, made_of: Mapping[str, object], loss: float, weights: Mapping[str, Array]) -> None:
    """Write weights and their card beside the package's other data."""
    (DATA / f"{stem}.bin.gz").write_bytes(raw)
    card = {
        **made_of, "loss": round(loss, 4), "weights": sum(array.size for array in weights.values()),
        "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(),
    }  # fmt: skip
    (DATA / f"{stem}.card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card))  # noqa: T201 - a script's result
