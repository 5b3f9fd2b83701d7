"""How alike texts are in their words: cosine of tf-idf vectors (Salton and Buckley 1988)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def likeness(about: str, texts: Sequence[str]) -> list[float]:
    """Of each text to `about`, 0 to 1; words that many of the texts share count little."""
    counted = [_words(text) for text in texts]
    spread = Counter(word for words in counted for word in words)
    rare = {word: math.log((1 + len(texts)) / (1 + n)) for word, n in spread.items()}
    wanted = _weighed(_words(about), rare)
    return [_cosine(wanted, _weighed(words, rare)) for words in counted]


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.casefold()))


def _weighed(words: Counter[str], rare: dict[str, float]) -> dict[str, float]:
    return {word: (1 + math.log(n)) * rare[word] for word, n in words.items() if rare.get(word)}


def _cosine(one: dict[str, float], other: dict[str, float]) -> float:
    norms = math.sqrt(sum(x * x for x in one.values()) * sum(x * x for x in other.values()))
    return sum(weight * other.get(word, 0.0) for word, weight in one.items()) / norms if norms else 0.0
