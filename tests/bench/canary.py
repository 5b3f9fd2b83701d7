"""Harm and promotion tests of the canary beside other projects' rules, on the same draws: `driftline bench canary`.

12,000 conversations at 5, 25 and 50 % weight; the table gives false alarms in A/A and the median conversation of
detection. The peers are rules in the shape those projects apply them: a z-test looked at every 50 conversations,
Argo Rollouts' and Flagger's threshold on a windowed rate, GrowthBook's asymptotic confidence sequence.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.evalues import CONTROL_CAP, HARM_FLOOR, HarmTest, NonInferiority
from tests.bench._heading import heading, table

Floats = NDArray[np.float64]
HORIZON = 12_000
NEVER = HORIZON + 1
CHUNK = 50
"""Runs computed at once: about 100 MB."""

WEIGHTS = np.concatenate([np.full(2_000, 0.05), np.full(4_000, 0.25), np.full(6_000, 0.5)])


@dataclass(frozen=True)
class Setting:
    """Bad-outcome rates of both arms; `drift` moves them together."""

    name: str
    control: float
    candidate: float
    drift: bool = False


NULLS = (
    Setting("A/A 10 %", 0.1, 0.1), Setting("A/A 10 % drift", 0.1, 0.1, drift=True), Setting("A/A 1 %", 0.01, 0.01),
    Setting("A/A 0.2 %", 0.002, 0.002), Setting("A/A 30 %", 0.3, 0.3),
)  # fmt: skip
HARMS = (
    Setting("10->15", 0.1, 0.15), Setting("10->20", 0.1, 0.2), Setting("10->60", 0.1, 0.6), Setting("1->5", 0.01, 0.05),
)  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Runs of one setting: arm and outcome (runs, conversations), and the counts before each conversation."""

    setting: Setting
    arm: Floats
    bad: Floats
    p: Floats

    @property
    def counts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Control and candidate: conversations and bad ones, each before the conversation at hand."""
        seen = np.arange(self.arm.shape[1], dtype=np.float64)[None]
        candidate, both_bad = _before(self.arm), _before(self.bad)
        candidate_bad = _before(self.arm * self.bad)
        return seen - candidate, both_bad - candidate_bad, candidate, candidate_bad


def harm_log_e(draws: Draws) -> Floats:
    """HarmTest's log_e after each conversation."""
    controls, controls_bad, candidates, candidates_bad = draws.counts
    pool = (controls_bad + candidates_bad + 1) / (controls + candidates + 10)
    q_a = np.minimum((controls_bad + 2) / (controls + 20), CONTROL_CAP)
    q_b = np.minimum(np.maximum((candidates_bad + 20 * pool) / (candidates + 20), q_a + HARM_FLOOR), 0.999)
    mixed = (1 - draws.p) * q_a + draws.p * q_b
    rate = np.where(draws.arm > 0, q_b, q_a)
    return np.cumsum(np.where(draws.bad > 0, np.log(rate / mixed), np.log((1 - rate) / (1 - mixed))), axis=1)


def harm(draws: Draws, threshold: float = 20) -> NDArray[np.int64]:
    """Ours."""
    return _first(harm_log_e(draws) >= math.log(threshold))


def betting(draws: Draws) -> NDArray[np.int64]:
    """The promotion test with its sign turned and margin 0: a simpler exact test of harm."""
    mean = (1 + _before(draws.bad)) / (10 + np.arange(draws.arm.shape[1])[None])
    gain = np.where(draws.arm > 0, (draws.bad - mean) / draws.p, -(draws.bad - mean) / (1 - draws.p))
    limit = 0.5 / np.maximum(np.maximum(mean / draws.p, (1 - mean) / (1 - draws.p)), 1e-6)
    stake = np.clip(_before(gain) / (1 + _before(gain**2)), 0, limit)
    return _first(np.cumsum(np.log1p(stake * gain), axis=1) >= math.log(20))


def z_peeking(draws: Draws) -> NDArray[np.int64]:
    """Pooled one-sided z above 1.645, every 50 conversations from 20 candidates on."""
    controls, controls_bad, candidates, candidates_bad = draws.counts
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (controls_bad + candidates_bad) / (controls + candidates)
        spread = np.sqrt(pooled * (1 - pooled) * (1 / controls + 1 / candidates))
        z = (candidates_bad / candidates - controls_bad / controls) / spread
    looked = (np.arange(draws.arm.shape[1]) % 50 == 0)[None] & (candidates >= 20)
    return _first(looked & (z > 1.645))


def windowed(failures: int) -> Callable[[Draws], NDArray[np.int64]]:
    """The candidate's rate over 500 conversations above 1.5 x the true base, so many times in all."""

    def rule(draws: Draws) -> NDArray[np.int64]:
        shape = (draws.arm.shape[0], HORIZON // 500, 500)
        candidates = draws.arm.reshape(shape).sum(axis=2)
        bad = (draws.arm * draws.bad).reshape(shape).sum(axis=2)
        failed = np.cumsum(bad > 1.5 * draws.setting.control * candidates, axis=1) >= failures
        return np.where(failed.any(axis=1), 500 * (failed.argmax(axis=1) + 1), NEVER)

    return rule


def asymptotic(least: int) -> Callable[[Draws], NDArray[np.int64]]:
    """GrowthBook's one-sided confidence sequence, alpha .05, tuned at 5000, from `least` candidates on."""

    def rule(draws: Draws) -> NDArray[np.int64]:
        controls, controls_bad, candidates, candidates_bad = draws.counts
        n = controls + candidates
        rho2 = (-2 * math.log(0.1) + math.log(-2 * math.log(0.1) + 1)) / 5000
        with np.errstate(divide="ignore", invalid="ignore"):
            r0, r1 = controls_bad / controls, candidates_bad / candidates
            s2 = n * (r1 * (1 - r1) / candidates + r0 * (1 - r0) / controls)
            inner = n * rho2 + 1
            half = np.sqrt(s2 * 2 * inner / (n * n * rho2) * np.log(1 + np.sqrt(inner) / 0.1))
            return _first((candidates >= least) & (controls > 0) & (r1 - r0 - half > 0))

    return rule


RULES: dict[str, Callable[[Draws], NDArray[np.int64]]] = {
    "z-peeking": z_peeking,
    "Argo-like": windowed(1),
    "Flagger-like": windowed(5),
    "AsympCS": asymptotic(1),
    "AsympCS from 50": asymptotic(50),
    "betting, margin 0": betting,
    "harm e-process, e >= 20": harm,
}
OURS = "harm e-process, e >= 20"


def main(argv: list[str]) -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="driftline bench canary")
    parser.add_argument("--runs", type=int, default=400, help="runs of each setting, all rules")
    parser.add_argument("--null-runs", type=int, default=2000, help="runs of each A/A setting, our rule alone")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    draw = np.random.default_rng(args.seed)
    found = {
        setting.name: {rule: np.concatenate(times) for rule, times in _measure(setting, args.runs, draw).items()}
        for setting in (*NULLS[:3], *HARMS)
    }
    nulls = {setting.name: _false(setting, args.null_runs, draw) for setting in NULLS}
    cost = _cost()
    sys.stdout.write(
        f"{heading('canary', argv)}\n\n"
        f"false alarms in A/A, then median conversations to detect; {args.runs} runs\n{_table(found)}\n\n"
        f"our false alarms in {args.null_runs} runs: "
        + ", ".join(f"{name} {share:.1%}" for name, share in nulls.items())
        + f"\npromotion at 50 % weight, margin 3 pp, 10 % base: {_promotion(draw)}\n"
        f"one conversation, both tests of one metric, plain Python: {cost:.1f} us\n"
    )
    bars = _bars(found, nulls, cost)
    for name, held in bars.items():
        sys.stdout.write(f"{'held' if held else 'MISSED'}: {name}\n")
    return 0 if all(bars.values()) else 1


def _draws(setting: Setting, runs: int, draw: np.random.Generator, p: Floats = WEIGHTS) -> Draws:
    wave = 1 + 0.5 * np.sin(12 * math.pi * np.arange(HORIZON) / HORIZON) if setting.drift else np.ones(HORIZON)
    arm = draw.random((runs, HORIZON)) < p
    rate = np.where(arm, setting.candidate, setting.control) * wave
    bad = draw.random((runs, HORIZON)) < rate
    return Draws(setting, arm.astype(np.float64), bad.astype(np.float64), p[None])


def _measure(setting: Setting, runs: int, draw: np.random.Generator) -> dict[str, list[NDArray[np.int64]]]:
    found: dict[str, list[NDArray[np.int64]]] = {rule: [] for rule in RULES}
    for start in range(0, runs, CHUNK):
        draws = _draws(setting, min(CHUNK, runs - start), draw)
        for name, rule in RULES.items():
            found[name].append(rule(draws))
    return found


def _false(setting: Setting, runs: int, draw: np.random.Generator) -> float:
    alarms = sum(
        int((harm(_draws(setting, min(CHUNK, runs - at), draw)) < NEVER).sum()) for at in range(0, runs, CHUNK)
    )
    return alarms / runs


def _promotion(draw: np.random.Generator, runs: int = 40) -> str:
    proven = []
    draws = _draws(Setting("", 0.1, 0.1), runs, draw, np.full(HORIZON, 0.5))
    for arms, bads in zip(draws.arm, draws.bad, strict=True):
        test, at = NonInferiority(0.03), NEVER
        for n, (arm, bad) in enumerate(zip(arms.tolist(), bads.tolist(), strict=True), start=1):
            test.update(candidate=arm > 0, bad=bad > 0, p=0.5)
            if test.proven():
                at = n
                break
        proven.append(at)
    return f"{np.mean(np.array(proven) < NEVER):.0%} proven, median {np.median(proven):.0f} ({runs} runs)"


def _cost(conversations: int = 20_000) -> float:
    harm_test, better = HarmTest(), NonInferiority(0.03)
    start = time.perf_counter()
    for at in range(conversations):
        candidate, bad = at % 4 == 0, at % 9 == 0
        harm_test.update(candidate=candidate, bad=bad, p=0.25)
        better.update(candidate=candidate, bad=bad, p=0.25)
    return (time.perf_counter() - start) / conversations * 1e6


def _table(found: dict[str, dict[str, NDArray[np.int64]]]) -> str:
    rows = [["rule", *found]]
    for rule in RULES:
        cells = []
        for name, times in found.items():
            alarms = times[rule] < NEVER
            shown = f"{alarms.mean():.1%}" if name.startswith("A/A") else f"{np.median(times[rule]):.0f}"
            cells.append(shown if name.startswith("A/A") or alarms.mean() > 0.5 else f"{alarms.mean():.0%} found")
        rows.append([rule, *cells])
    return table(rows)


def _bars(found: dict[str, dict[str, NDArray[np.int64]]], nulls: dict[str, float], cost: float) -> dict[str, bool]:
    def false(setting: str, rule: str) -> float:
        return float((found[setting][rule] < NEVER).mean())

    def median(setting: str, rule: str) -> float:
        return float(np.median(found[setting][rule]))

    both = ("A/A 10 %", "A/A 10 % drift")
    return {
        "false rollbacks <= 6.5 % in all five A/A settings": max(nulls.values()) <= 0.065,
        "at most 1/5 of z-peeking's and Argo's": all(
            false(s, OURS) <= min(false(s, "z-peeking"), false(s, "Argo-like")) / 5 for s in both
        ),
        "A/A at most 0.6 x AsympCS": all(false(s, OURS) <= 0.6 * false(s, "AsympCS") for s in both),
        "median <= 1.05 / 0.9 / 0.8 x AsympCS on 10->15, 10->20, 1->5": all(
            median(s, OURS) <= factor * median(s, "AsympCS")
            for s, factor in (("10->15", 1.05), ("10->20", 0.9), ("1->5", 0.8))
        ),
        "median <= 0.65 x Flagger on all four": all(
            median(s.name, OURS) <= 0.65 * median(s.name, "Flagger-like") for s in HARMS
        ),
        "A/A 1 % at most 0.1 x Flagger": false("A/A 1 %", OURS) <= 0.1 * false("A/A 1 %", "Flagger-like"),
        "one conversation <= 10 us": cost <= 10,
    }


def _before(values: Floats) -> Floats:
    """Running sums up to, and without, each conversation."""
    return np.cumsum(values, axis=1) - values


def _first(alarms: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of conversations until the first alarm of each run; NEVER without one."""
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1, NEVER)
