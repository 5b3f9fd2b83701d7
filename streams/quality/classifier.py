"""The linear model of noise: softmax over hashed n-grams and robust counts; weights are package data.

score_k = sum over rows of W[row, k] / sqrt(number of rows) + counts . V[:, k] + b[k], then softmax with `good` as one
class. The division stands for the l2 norm of a count vector (nearly all n-grams of a chat message occur once). What its
words look like by their letters is a second opinion on `toxic`: it was learned from other text and may say so alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streams.quality.features import Features, Floats, Vocabulary, extract, sums
from streams.quality.letters import Letters

CLASSES = ("good", "spam", "toxic", "gibberish", "non_dialogue")
"""Order of the model's outputs."""

_TOXIC = CLASSES.index("toxic")
_ABUSIVE, _STEEP = 16.0, 0.4
"""Abuse by letters at which a text is as likely toxic as not, and by how much a unit changes that (log-odds); 0.3 % of
people's replies lie above."""


@dataclass(frozen=True)
class Classifier:
    """The vocabulary and the weights.

    `table` (2^17 + 1, 5) int8 with `scale` (5,), its last row zero; `dense` (COUNTS, 5); `bias` (5,) float32.
    """

    vocabulary: Vocabulary
    table: npt.NDArray[np.int8]
    scale: Floats
    dense: Floats
    bias: Floats
    letters: Letters

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The probability of each class of noise, by its reason code, of each text."""
        if not texts:
            return []
        likely: list[list[float]] = self.likely(extract(texts, self.vocabulary)).tolist()
        return [dict(zip(CLASSES[1:], row[1:], strict=True)) for row in likely]

    def likely(self, features: Features) -> Floats:
        """(n, 5) probabilities of the classes; that of `toxic` is raised where letters look abusive."""
        gathered = np.take(self.table, features.rows, axis=0)
        # five stretches a text: characters by 3, 4 and 5, words, pairs of words
        summed = sums(gathered, features.starts).reshape(5, -1, len(CLASSES)).sum(axis=0)
        norm = np.sqrt(np.maximum(1, features.sizes)).astype(np.float32)
        logits = summed * self.scale / norm[:, None] + features.counts @ self.dense + self.bias
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        likely: Floats = raised / raised.sum(axis=1, keepdims=True)
        looks = 1 / (1 + np.exp(_STEEP * (_ABUSIVE - self.letters.abuse(features.words, features.word_starts))))
        likely[:, _TOXIC] = 1 - (1 - likely[:, _TOXIC]) * (1 - looks)
        return likely

    def save(self, path: Path) -> None:
        """Write the weights as a compressed .npz of plain arrays."""
        held = self.vocabulary
        np.savez_compressed(
            path, table=self.table, scale=self.scale, dense=self.dense, bias=self.bias,
            words=held.words, pairs=held.pairs, abuse=held.abuse, trigrams=held.trigrams.astype(np.float16),
            order=held.order.astype(np.float16), skip=held.skip.astype(np.float16),
            letters=self.letters.table, letters_scale=np.float32(self.letters.scale),
        )  # fmt: skip


def load(path: Path) -> Classifier:
    """Read weights that `Classifier.save` wrote; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as held:
        tables = (held[name].astype(np.float32) for name in ("trigrams", "order", "skip"))
        vocabulary = Vocabulary(held["words"], held["pairs"], held["abuse"], *tables)
        letters = Letters(held["letters"], float(held["letters_scale"]))
        return Classifier(vocabulary, held["table"], held["scale"], held["dense"], held["bias"], letters)


@lru_cache(maxsize=1)
def shipped() -> Classifier:
    """The classifier whose weights lie in this package; read once a process."""
    with as_file(files("streams.quality").joinpath("weights.npz")) as path:
        return load(path)
