"""`driftline bench active --data DIR`: whether the picks of the review queue need fewer labels than random choice.

Real data: banking77's customer queries. A linear intent model starts from 154 labels and asks for 77 more a round, by
`learner.select` (uncertainty from its own scores, topics = its predictions, near copies left out) or at random, from a
pool of 2,500. Held-out loss = log loss on 2,000 queries that are never asked about. Labels needed for the loss that
random choice reaches at its end; both ways interleaved. `surprise` is 0: a query without label has no loss. Each seed
draws its own held-out part, pool and first labels; the interval is Student's, of the mean ratio over seeds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from learner.select import Scored, SelectConfig, select
from streams import near_copies
from tests.bench._heading import heading, table

START, ROUND, HELD_OUT, POOL = 154, 77, 2_000, 2_500


def read(path: Path) -> list[tuple[str, str]]:
    """(query, intent)."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [(row["text"], row["intent"]) for row in map(json.loads, lines)]


class Learner:
    """An intent model that is trained again after each round of labels."""

    def __init__(self, pool: Sequence[tuple[str, str]], held: Sequence[tuple[str, str]], vectorizer: Any) -> None:
        self._pool = vectorizer.transform([text for text, _ in pool])
        self._names = sorted({intent for _, intent in [*pool, *held]})
        number = {name: at for at, name in enumerate(self._names)}
        self._labels = np.array([number[intent] for _, intent in pool])
        self._held = vectorizer.transform([text for text, _ in held]), np.array([number[i] for _, i in held])
        self._model: Any = None

    def train(self, chosen: Sequence[int]) -> float:
        """Fit on the chosen queries. Returns the held-out log loss, nats."""
        self._model = LogisticRegression(C=20.0, max_iter=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._pool[list(chosen)], self._labels[list(chosen)])
        return float(log_loss(self._held[1], self._likely(self._held[0]), labels=range(len(self._names))))

    def _likely(self, rows: Any) -> np.ndarray:
        """(n, 77) probabilities, classes without a label yet included, mixed with a little of uniform."""
        full = np.zeros((rows.shape[0], len(self._names)))
        full[:, self._model.classes_] = self._model.predict_proba(rows)
        mixed: np.ndarray = 0.95 * full + 0.05 / len(self._names)
        return mixed

    def scored(self, left: Sequence[int], signatures: Sequence[bytes]) -> list[Scored]:
        """Entropy, margin and predicted topic of the queries that have no label."""
        likely = self._likely(self._pool[list(left)])
        ordered = np.sort(likely, axis=1)
        entropy = -(likely * np.log(likely)).sum(axis=1)
        return [
            Scored(
                f"{at:06}", 0.0, float(entropy[row]), float(ordered[row, -1] - ordered[row, -2]),
                topic=str(likely[row].argmax()), signature=signatures[at],
            )
            for row, at in enumerate(left)
        ]  # fmt: skip


def course(rows: Sequence[tuple[str, str]], seed: int, rounds: int) -> dict[str, list[float]]:
    """Held-out losses after the start and each round, by way of choosing."""
    rng = random.Random(seed)
    shuffled = rng.sample(list(rows), len(rows))
    held, pool = shuffled[:HELD_OUT], shuffled[HELD_OUT : HELD_OUT + POOL]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit([text for text, _ in pool])
    signatures = [near_copies.signature("", text) for text, _ in pool]
    config = SelectConfig(surprise=0.0, ceiling=1.0, candidates=POOL)
    first = rng.sample(range(len(pool)), START)
    known = {"random": list(first), "select": list(first)}
    losses: dict[str, list[float]] = {"random": [], "select": []}
    learners = {way: Learner(pool, held, vectorizer) for way in known}
    for _ in range(rounds + 1):
        for way, learner in learners.items():
            losses[way].append(learner.train(known[way]))
            left = sorted(set(range(len(pool))) - set(known[way]))
            if way == "random":
                known[way] += rng.sample(left, ROUND)
            else:
                picks = select(learner.scored(left, signatures), ROUND, config, [signatures[at] for at in known[way]])
                known[way] += [int(pick.sample_id) for pick in picks]
    return losses


def labels_for(losses: Sequence[float], goal: float) -> float:
    """Labels at which the loss first falls to the goal, between rounds by straight line."""
    for at in range(1, len(losses)):
        if losses[at] <= goal:
            share = (losses[at - 1] - goal) / max(1e-9, losses[at - 1] - losses[at])
            return START + ROUND * (at - 1 + min(1.0, max(0.0, share)))
    return float("inf")


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of the ratios of independent seeds; without a second seed it is everything."""
    mean = statistics.mean(ratios)
    if len(ratios) == 1:
        return mean, -float("inf"), float("inf")
    half = float(student.ppf(0.975, len(ratios) - 1)) * statistics.stdev(ratios) / len(ratios) ** 0.5
    return mean, mean - half, mean + half


def main(argv: list[str]) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    args = parser.parse_args(argv)
    rows = read(args.data / "intents_banking77.jsonl.gz")
    lines = [["seed", "loss at start", "random, end", "select, end", "labels random", "labels select", "ratio"]]
    ratios = []
    for seed in range(args.first, args.first + args.seeds):
        losses = course(rows, seed, args.rounds)
        goal = losses["random"][-1]
        needed = labels_for(losses["select"], goal)
        used = START + ROUND * args.rounds
        ratios.append(needed / used)
        lines.append(
            [str(seed), f"{losses['random'][0]:.3f}", f"{goal:.3f}", f"{losses['select'][-1]:.3f}", str(used),
             f"{needed:.0f}", f"{ratios[-1]:.2f}"]
        )  # fmt: skip
    mean, low, high = interval(ratios)
    said = f"median ratio {statistics.median(ratios):.3f}; mean {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    sys.stdout.write(f"{heading('active', argv)}\n{table(lines)}\n{said}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
