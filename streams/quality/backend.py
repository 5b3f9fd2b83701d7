"""Optional transformers sequence classifiers: one whose scores join those of the linear model, the higher one counts.

A model is slower than a stream of chats by far; what it does not answer in time, or fails at, keeps the linear scores.
The package is imported by name when a model is configured: a worker without one never loads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from functools import lru_cache
from typing import Any, Protocol

from streams.quality.classifier import shipped

_CLASSES: Mapping[str, tuple[str, ...]] = {
    "toxic": ("toxic", "toxicity", "severe_toxic", "severe_toxicity", "insult", "obscene", "threat", "hate", "hateful",
              "identity_hate", "identity_attack", "offensive", "harassment", "sexual_explicit"),
    "spam": ("spam", "phishing", "scam", "advertising"),
    "gibberish": ("gibberish", "noise", "word_salad", "word salad", "mild gibberish"),
    "non_dialogue": ("non_dialogue", "not_dialogue", "log", "article"),
}  # fmt: skip
_CLASS_OF = {name: code for code, names in _CLASSES.items() for name in names}

Labels = Sequence[tuple[str, float]]
"""Label in the model's own words and its probability."""


class Scorer(Protocol):
    """What gives each text a probability for each class of noise."""

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """One dict by reason code for each text."""


class Labeller:
    """A model's labels of texts within `deadline_s` a batch; `lost` counts batches for which it was late or failed."""

    def __init__(self, label: Callable[[list[str]], Sequence[Labels]], deadline_s: float) -> None:
        self._label = label
        self._deadline_s = deadline_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quality-model")
        self._busy: Any = None
        self.lost = 0

    def labels(self, texts: list[str]) -> Sequence[Labels]:
        """The labels of each text; none where the model is late, still busy or fails."""
        if not texts:
            return []
        if self._busy is not None and not self._busy.done():
            self.lost += 1
            return []
        self._busy = self._thread.submit(self._label, texts)
        try:
            answer: Sequence[Labels] = self._busy.result(self._deadline_s)
        except (Late, RuntimeError, ValueError):  # what models raise on texts they cannot take
            self.lost += 1
            return []
        return answer


class Joined:
    """A scorer and a model beside it."""

    def __init__(self, own: Scorer, model: Labeller) -> None:
        self._own = own
        self._model = model

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The higher of both scores of each class; the own ones where the model says nothing."""
        found = self._own.scores(texts)
        for held, labels in zip(found, self._model.labels(list(texts)), strict=False):
            for name, probability in labels:
                code = _CLASS_OF.get(name.lower())
                if code is not None:
                    held[code] = max(held[code], float(probability))
        return found


@lru_cache(maxsize=2)
def joined(model: str, deadline_s: float) -> Joined:
    """The shipped classifier with a model on disk or from a hub, loaded once. Raises OSError if there is none."""
    return Joined(shipped(), labeller(model, deadline_s))


@lru_cache(maxsize=2)
def labeller(model: str, deadline_s: float) -> Labeller:
    """A sequence classifier of transformers on disk or from a hub, loaded once. Raises OSError if there is none."""
    pipeline: Any = importlib.import_module("transformers").pipeline(
        "text-classification", model=model, top_k=None, truncation=True
    )

    def label(texts: list[str]) -> Sequence[Labels]:
        return [[(found["label"], found["score"]) for found in row] for row in pipeline(texts)]

    return Labeller(label, deadline_s)
