"""The gate's rule beside a fixed alpha, a mean threshold and Bonferroni, on the same draws: `driftline bench gate`.

False promotions are counted over sequences of updates that change nothing; power at a late decision; slices by the
one-sided bound of the gate beside a threshold on means. Everything uses the formulas of learner/evalues.py, whose
scalar code is checked against the vectorised copy here.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from learner import evalues
from learner.gate import Account, GateLimits, Paired, Scores, decide
from tests.bench._heading import heading, table

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]

RULES = (
    "e-LOND (ours)",
    "e-LOND, no slices",
    "e-value >= 20",
    "paired t, alpha .05",
    "mean gain > .02",
    "Bonferroni t",
)
LIMITS = GateLimits()
RECENT = 300
"""Conversations of `recent`, and as many in slices: the tail guard counts both."""


def main(argv: list[str]) -> int:
    """Print the table; 1 when a bar of the gate is missed."""
    parser = argparse.ArgumentParser(prog="driftline bench gate")
    parser.add_argument("--sequences", type=int, default=40, help="sequences of no-change updates per null")
    parser.add_argument("--updates", type=int, default=1000, help="updates of a sequence")
    parser.add_argument("--runs", type=int, default=1000, help="runs per row of power")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    draw = np.random.default_rng(args.seed)
    _agree(draw)
    false, worst = _nulls(draw, args.sequences, args.updates)
    power, promoted = _power(draw, args.runs, args.updates)
    slices, refused, passed = _slices(draw, args.runs)
    found = decide(_scores(draw), Account(24), LIMITS)
    sys.stdout.write(
        f"{heading('gate', argv)}\n\n"
        f"false promotions in {args.updates} no-change updates, {RECENT} conversations and as many in slices: "
        f"share of {args.sequences} sequences with any (mean number)\n{table(false)}\n\n"
        f"a real gain, promoted in {args.runs} runs, 300 conversations\n{table(power)}\n\n"
        f"ten slices, margin 0.05 nats, of {args.runs} runs\n{table(slices)}\n\n"
        f"one whole decision: {found.verdict}, {found.why}; least provable gain {found.provable_gain:.3f} nats\n"
    )
    bars = {
        "any false promotion <= 5 % of sequences": worst <= 0.05,
        "gain .05, sd .10 at the 25th decision >= 90 %": promoted >= 0.9,
        "one slice at -.05 not passed >= 90 %": refused >= 0.9,
        "unchanged slices pass >= 90 %": passed >= 0.9,
    }
    for name, held in bars.items():
        sys.stdout.write(f"{'held' if held else 'MISSED'}: {name}\n")
    return 0 if all(bars.values()) else 1


NULLS: dict[str, Draw] = {
    "normal, sd .10": lambda draw, t, n: draw.normal(0, 0.1, (t, n)),
    "normal, sd .25": lambda draw, t, n: draw.normal(0, 0.25, (t, n)),
    "t3 tails, sd .10": lambda draw, t, n: 0.1 * draw.standard_t(3, (t, n)) / math.sqrt(3),
    "skewed, sd .10": lambda draw, t, n: 0.1 * (1 - draw.exponential(1, (t, n))),
    "5 % lose .95": lambda draw, t, n: np.where(draw.random((t, n)) < 0.05, -0.95, 0.05),
}


def _nulls(draw: np.random.Generator, sequences: int, updates: int) -> tuple[list[list[str]], float]:
    rows = [["rule", *NULLS]]
    counts = {name: np.zeros((len(RULES), sequences)) for name in NULLS}
    for name, null in NULLS.items():
        for at in range(sequences):
            gains, slices = null(draw, updates, RECENT), null(draw, updates, RECENT)
            counts[name][:, at] = [verdicts.sum() for verdicts in _verdicts(gains, slices, updates)]
    for at, rule in enumerate(RULES):
        cells = [f"{(counts[name][at] > 0).mean():.0%} ({counts[name][at].mean():.2f})" for name in NULLS]
        rows.append([rule, *cells])
    return rows, max(float((counts[name][0] > 0).mean()) for name in NULLS)


def _verdicts(gains: Floats, slices: Floats, updates: int) -> list[NDArray[np.bool_]]:
    """Which of the updates each rule promotes; rows are updates, columns conversations of `recent` and of slices."""
    log_e = log_gains(gains)
    mean, error = gains.mean(axis=1), gains.std(axis=1, ddof=1) / math.sqrt(gains.shape[1])
    return [
        _promoted(log_e, _tail(np.concatenate([gains, slices], axis=1))),
        _promoted(log_e, _tail(gains)),
        log_e >= math.log(20),
        mean > evalues.student_quantile(0.95, gains.shape[1] - 1) * error,
        mean > 0.02,
        mean > evalues.student_quantile(1 - 0.05 / updates, gains.shape[1] - 1) * error,
    ]


def _promoted(log_e: Floats, tail: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The gate's rule over a sequence: each promotion gives alpha back."""
    found = np.zeros(len(log_e), dtype=bool)
    for at in range(len(log_e)):
        threshold = evalues.log_promotion_threshold(at + 1, int(found.sum()), LIMITS.alpha)
        found[at] = tail[at] and log_e[at] >= threshold
    return found


def _tail(gains: Floats) -> NDArray[np.bool_]:
    """Whether few enough conversations of each row are beyond the clip."""
    limit = max(LIMITS.tail_least, LIMITS.tail_share * gains.shape[1])
    worse: NDArray[np.bool_] = (gains < -evalues.CLIP_NATS).sum(axis=1) <= limit
    return worse


def _power(draw: np.random.Generator, runs: int, updates: int) -> tuple[list[list[str]], float]:
    """At a given decision, without earlier promotions: the hardest case."""
    settings = [
        ("gain .05, sd .10, 25th", 0.05, 0.1, 25), ("gain .05, sd .10, 1000th", 0.05, 0.1, 1000),
        ("gain .05, sd .25, 25th", 0.05, 0.25, 25), ("gain .02, sd .10, 25th", 0.02, 0.1, 25),
        ("gain .05, t3, 25th", 0.05, 0.1, 25),
    ]  # fmt: skip
    rows = [["rule", *(name for name, *_ in settings)]]
    shares = np.zeros((len(RULES), len(settings)))
    for column, (name, gain, spread, decision) in enumerate(settings):
        noise = draw.standard_t(3, (runs, RECENT)) / math.sqrt(3) if "t3" in name else draw.normal(0, 1, (runs, RECENT))
        gains = gain + spread * noise
        log_e, mean = log_gains(gains), gains.mean(axis=1)
        error = gains.std(axis=1, ddof=1) / math.sqrt(RECENT)
        proven = log_e >= evalues.log_promotion_threshold(decision, 0)
        shares[:, column] = [
            (_tail(np.concatenate([gains, gains[::-1]], axis=1)) & proven).mean(),
            (_tail(gains) & proven).mean(),
            (log_e >= math.log(20)).mean(),
            (mean > evalues.student_quantile(0.95, 299) * error).mean(),
            (mean > 0.02).mean(),
            (mean > evalues.student_quantile(1 - 0.05 / updates, 299) * error).mean(),
        ]
    for at, rule in enumerate(RULES):
        rows.append([rule, *(f"{share:.1%}" for share in shares[at])])
    return rows, float(shares[0, 0])


def _slices(draw: np.random.Generator, runs: int) -> tuple[list[list[str]], float, float]:
    sizes = (64, 128, 256)
    rows = [["rule", *(f"n {n}: unchanged passes" for n in sizes), *(f"n {n}: one at -.05 passes" for n in sizes)]]
    passes: dict[str, list[float]] = {"bound <= margin (ours)": [], "mean <= margin": []}
    for harm in (0.0, 0.05):
        for size in sizes:
            increase = draw.normal(0, 0.1, (runs, 10, size))
            increase[:, 0] += harm
            mean = increase.mean(axis=2)
            half = evalues.student_quantile(0.95, size - 1) * increase.std(axis=2, ddof=1) / math.sqrt(size)
            passes["bound <= margin (ours)"].append(float((mean + half <= 0.05).all(axis=1).mean()))
            passes["mean <= margin"].append(float((mean <= 0.05).all(axis=1).mean()))
    rows += [[rule, *(f"{share:.1%}" for share in shares)] for rule, shares in passes.items()]
    ours = passes["bound <= margin (ours)"]
    return rows, 1 - max(ours[3:]), ours[1]


def log_gains(gains: Floats) -> Floats:
    """evalues.log_gain of each row."""
    steps = np.clip(gains, -evalues.CLIP_NATS, evalues.CLIP_NATS) / evalues.CLIP_NATS
    logs = np.stack([np.log1p(bet * steps).sum(axis=1) for bet in evalues.BETS])
    top = logs.max(axis=0)
    found: Floats = top + np.log(np.exp(logs - top).mean(axis=0))
    return found


def _agree(draw: np.random.Generator) -> None:
    gains = draw.normal(0.01, 0.3, (20, 100))
    for row, expected in zip(gains, log_gains(gains), strict=True):
        assert math.isclose(evalues.log_gain([float(x) for x in row]), expected, rel_tol=1e-9, abs_tol=1e-9)


def _scores(draw: np.random.Generator) -> Scores:
    def paired(count: int) -> Paired:
        gains = draw.normal(0.05, 0.1, count)
        return Paired((2.0,) * count, tuple(2.0 - float(gain) for gain in gains))

    return Scores(recent=paired(300), slices={name: paired(150) for name in "abc"})
