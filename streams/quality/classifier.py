"""The linear model of noise: softmax over hashed n-grams and robust counts; weights are package data.

score_k = sum over rows of W[row, k] / sqrt(number of rows) + counts . V[:, k] + b[k], then softmax with `good` as one
class. The division stands for the l2 norm of a count vector (nearly all n-grams of a chat message occur once).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streams.quality.features import Features, Floats, Vocabulary, extract

CLASSES = ("good", "spam", "toxic", "gibberish", "non_dialogue")
"""Order of the model's outputs."""


@dataclass(frozen=True)
class Classifier:
    """Weights: `table` (2^17, 5) int8 with `scale` (5,), `dense` (COUNTS, 5), `bias` (5,) float32, and the vocabulary."""

    vocabulary: Vocabulary
    table: npt.NDArray[np.int8]
    scale: Floats
    dense: Floats
    bias: Floats

    def scores(self, text: str) -> dict[str, float]:
        """The probability of each class of noise, by its reason code."""
        return self.of(extract(text, self.vocabulary))

    def of(self, features: Features) -> dict[str, float]:
        """As `scores`, of features that were extracted already."""
        rows = features.rows
        summed = np.take(self.table, rows, axis=0).sum(axis=0, dtype=np.int32)
        logits = summed * (self.scale / max(1.0, float(len(rows)) ** 0.5)) + features.counts @ self.dense + self.bias
        exponents: list[float] = np.exp(logits - logits.max()).tolist()
        total = sum(exponents)
        return {name: value / total for name, value in zip(CLASSES[1:], exponents[1:], strict=True)}

    def save(self, path: Path) -> None:
        """Write the weights as a compressed .npz of plain arrays."""
        words = self.vocabulary
        np.savez_compressed(
            path, table=self.table, scale=self.scale, dense=self.dense, bias=self.bias,
            words=words.words, pairs=words.pairs, abuse=words.abuse, trigrams=words.trigrams.astype(np.float16),
            order=words.order.astype(np.float16), skip=words.skip.astype(np.float16),
        )  # fmt: skip


def load(path: Path) -> Classifier:
    """Read weights that `Classifier.save` wrote; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as held:
        tables = (held[name].astype(np.float32) for name in ("trigrams", "order", "skip"))
        vocabulary = Vocabulary(held["words"], held["pairs"], held["abuse"], *tables)
        return Classifier(vocabulary, held["table"], held["scale"], held["dense"], held["bias"])


@lru_cache(maxsize=1)
def shipped() -> Classifier:
    """The classifier whose weights lie in this package; read once a process."""
    with as_file(files("streams.quality").joinpath("weights.npz")) as path:
        return load(path)
