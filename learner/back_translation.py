"""A customer's question translated and translated back: other words by two models that know no chat.

The models come from disk or a hub; transformers is imported only where some are configured. Marian models want
sentencepiece beside it.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

WAYS = 4
"""Best translations back, of which the seed takes one."""
MOST_TOKENS = 96
"""Longer questions are cut, and a cut one is refused for its length or its facts."""


class BackTranslation:
    """Translates there and back; the same text and seed give the same words."""

    def __init__(self, there: str, back: str) -> None:
        """Load both models. Raises OSError if there is none."""
        self._there, self._back = _Translator(there), _Translator(back)

    def __call__(self, text: str, seed: int) -> str:
        """The text in other words; whether it will do is for the caller to judge."""
        found = self._back.best(self._there.best(text, 1)[0], WAYS)
        return found[seed % len(found)]


class _Translator:
    def __init__(self, name: str) -> None:
        transformers: Any = importlib.import_module("transformers")
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        self._model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name).eval()

    def best(self, text: str, count: int) -> list[str]:
        """The `count` best translations, by beam search: no chance in it."""
        encoded = self._tokenizer([text], return_tensors="pt", truncation=True, max_length=MOST_TOKENS)
        with torch.inference_mode():
            ids = self._model.generate(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], do_sample=False,
                num_beams=WAYS, num_return_sequences=count, max_new_tokens=MOST_TOKENS,
            )  # fmt: skip
        said: list[str] = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return said
