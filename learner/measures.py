"""Measures of answers and predictions, and how sure they are: pure, torch-free.

Intervals are percentile bootstraps over conversations, the unit that is independent.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds at level 0.95."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassReport:
    """Quality of a classifier: accuracy and macro means over classes, and the same of always naming the majority."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    majority_accuracy: float
    majority_f1: float
    examples: int


def ratio_interval(totals: Sequence[float], counts: Sequence[float], seed: int = 0) -> Interval:
    """sum(totals) / sum(counts) with its bootstrap interval; one entry a conversation."""
    top, bottom = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    return _interval(float(top.sum() / max(bottom.sum(), 1e-12)), _resampled(top, bottom, seed))


def difference_interval(
    first: Sequence[float], second: Sequence[float], counts: Sequence[float], seed: int = 0
) -> Interval:
    """sum(first - second) / sum(counts), paired by conversation."""
    return ratio_interval([a - b for a, b in zip(first, second, strict=True)], counts, seed)


def perplexity(nll_per_token: float) -> float:
    """exp of the mean loss; infinite where that overflows."""
    try:
        return math.exp(nll_per_token)
    except OverflowError:
        return math.inf


def words(text: str) -> list[str]:
    """Lower-case words, punctuation dropped."""
    return _WORD.findall(text.lower())


def token_f1(answer: str, reply: str) -> float:
    """F1 of the bags of words."""
    given, wanted = Counter(words(answer)), Counter(words(reply))
    common = (given & wanted).total()
    if not common:
        return float(given == wanted)
    precision, recall = common / given.total(), common / wanted.total()
    return 2 * precision * recall / (precision + recall)


def rouge_l(answer: str, reply: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004)."""
    given, wanted = words(answer), words(reply)
    if not given or not wanted:
        return float(given == wanted)
    common = _common_subsequence(given, wanted)
    return 2 * common / (len(given) + len(wanted))


def class_report(predicted: Sequence[str], actual: Sequence[str]) -> ClassReport:
    """Accuracy, macro precision, recall and F1 over the classes that occur. Raises ValueError without examples."""
    if not actual or len(predicted) != len(actual):
        raise ValueError(f"{len(predicted)} predictions for {len(actual)} labels: must pair, at least one")
    majority = [Counter(actual).most_common(1)[0][0]] * len(actual)
    precision, recall, f1 = _macro(predicted, actual)
    return ClassReport(
        accuracy=_accuracy(predicted, actual), precision=precision, recall=recall, f1=f1,
        majority_accuracy=_accuracy(majority, actual), majority_f1=_macro(majority, actual)[2], examples=len(actual),
    )  # fmt: skip


def transfer(losses: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of losses[after stage][domain]: what each older domain has lost since its own stage, nats, mean and worst.

    The matrix is square; backward transfer (Lopez-Paz, Ranzato 2017) is the negative mean.
    """
    last = losses[-1]
    lost = [last[domain] - losses[domain][domain] for domain in range(len(losses) - 1)]
    return {
        "lost": lost,
        "mean_lost": fmean(lost) if lost else 0.0,
        "worst_lost": max(lost, default=0.0),
        "final_mean": fmean(last),
    }


def _resampled(top: NDArray[np.float64], bottom: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    picks = draw.integers(0, len(top), (RESAMPLES, len(top))) if len(top) else np.zeros((1, 0), dtype=np.int64)
    ratios: NDArray[np.float64] = top[picks].sum(axis=1) / np.maximum(bottom[picks].sum(axis=1), 1e-12)
    return ratios


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for at, other in enumerate(second, start=1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]


def _accuracy(predicted: Sequence[str], actual: Sequence[str]) -> float:
    return fmean(p == a for p, a in zip(predicted, actual, strict=True))


def _macro(predicted: Sequence[str], actual: Sequence[str]) -> tuple[float, float, float]:
    hits = Counter(a for p, a in zip(predicted, actual, strict=True) if p == a)
    given, wanted = Counter(predicted), Counter(actual)
    rows = []
    for name in sorted(wanted):
        precision = hits[name] / given[name] if given[name] else 0.0
        recall = hits[name] / wanted[name]
        f1 = 2 * precision * recall / (precision + recall) if hits[name] else 0.0
        rows.append((precision, recall, f1))
    precision, recall, f1 = (fmean(column) for column in zip(*rows, strict=True))
    return precision, recall, f1
