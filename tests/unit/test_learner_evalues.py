"""The sequential tests: exact under their null, equal to a vectorised copy, and able to find what they look for."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from learner import evalues
from learner.evalues import HarmTest, NonInferiority, SampleRatio


def _factor(test: HarmTest, *, candidate: bool, bad: bool, p: float) -> float:
    copy = HarmTest(**asdict(test))
    copy.update(candidate=candidate, bad=bad, p=p)
    return math.exp(copy.log_e - test.log_e)


def test_evalues_identity() -> None:
    """The harm factor's expectation is the page's closed form, and at most 1 when the candidate is not worse."""
    draw = random.Random(1)
    for _ in range(2_000):
        n_control, n_candidate = draw.randrange(5_000), draw.randrange(5_000)
        test = HarmTest(n_control, draw.randint(0, n_control), n_candidate, draw.randint(0, n_candidate))
        control, candidate = test.predict()
        a, b, p = draw.random(), draw.random(), draw.random()
        mean = sum(
            (p if arm else 1 - p) * ((b if arm else a) if bad else 1 - (b if arm else a))
            * _factor(test, candidate=arm, bad=bad, p=p)
            for arm, bad in product((False, True), repeat=2)
        )  # fmt: skip
        mixed = (1 - p) * control + p * candidate
        expected = 1 + p * (1 - p) * (candidate - control) * (b - a) / (mixed * (1 - mixed))
        assert mean == pytest.approx(expected, abs=1e-12)
        assert b > a or mean <= 1 + 1e-12


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_evalues_harm_prediction_keeps_its_order(controls: int, candidates: int, x: float, y: float) -> None:
    """The bet on the candidate never lies below the bet on control, both extremes included."""
    for a, b in ((x, y), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)):
        control, candidate = HarmTest(controls, int(a * controls), candidates, int(b * candidates)).predict()
        assert 0 < control < candidate < 1


def test_evalues_certain_arms_say_nothing() -> None:
    """At weight 0 or 1 every factor is 1."""
    harm, better, ratio = HarmTest(), NonInferiority(0.03), SampleRatio()
    for p in (0.0, 1.0):
        for bad in (False, True):
            harm.update(candidate=p == 1, bad=bad, p=p)
            better.update(candidate=p == 1, bad=bad, p=p)
            ratio.update(candidate=p == 1, p=p)
    assert harm.log_e == pytest.approx(0, abs=1e-15)
    assert better.log_e == 0
    assert ratio.log_e == 0


def _reference(arms: np.ndarray, bads: np.ndarray, p: np.ndarray, margin: float) -> tuple[float, float]:
    """A vectorised copy of both tests, written from the page."""
    before = np.concatenate([[0], np.cumsum(bads)])[:-1].astype(float)
    n_b = np.concatenate([[0], np.cumsum(arms)])[:-1].astype(float)
    n_a = np.arange(len(arms)) - n_b
    bad_b = np.concatenate([[0], np.cumsum(arms * bads)])[:-1].astype(float)
    bad_a = before - bad_b
    pool = (before + 1) / (n_a + n_b + 10)
    q_a = np.minimum((bad_a + 2) / (n_a + 20), 0.97)
    q_b = np.minimum(np.maximum((bad_b + 20 * pool) / (n_b + 20), q_a + 0.02), 0.999)
    mixed = (1 - p) * q_a + p * q_b
    rate = np.where(arms == 1, q_b, q_a)
    harm = np.where(bads == 1, np.log(rate / mixed), np.log((1 - rate) / (1 - mixed))).sum()

    mean = (1 + before) / (10 + np.arange(len(arms)))
    gain = margin - np.where(arms == 1, (bads - mean) / p, -(bads - mean) / (1 - p))
    s1 = np.concatenate([[0], np.cumsum(gain)])[:-1]
    s2 = 1 + np.concatenate([[0], np.cumsum(gain**2)])[:-1]
    limit = 0.5 / np.maximum(np.maximum((1 - mean) / p, mean / (1 - p)) - margin, 1e-6)
    return float(harm), float(np.log1p(np.clip(s1 / s2, 0, limit) * gain).sum())


def test_evalues_reference() -> None:
    """The scalar tests equal a vectorised copy over 4,000 conversations with changing weights."""
    draw = np.random.default_rng(2)
    p = np.repeat([0.01, 0.05, 0.25, 0.5], 1_000)
    arms = (draw.random(4_000) < p).astype(int)
    bads = (draw.random(4_000) < np.where(arms == 1, 0.14, 0.1)).astype(int)
    harm, better = HarmTest(), NonInferiority(0.03)
    for arm, bad, weight in zip(arms, bads, p, strict=True):
        harm.update(candidate=bool(arm), bad=bool(bad), p=float(weight))
        better.update(candidate=bool(arm), bad=bool(bad), p=float(weight))
    expected_harm, expected_better = _reference(arms, bads, p, 0.03)
    assert harm.log_e == pytest.approx(expected_harm, abs=1e-6)
    assert better.log_e == pytest.approx(expected_better, abs=1e-6)


def test_evalues_sample_ratio_is_the_beta_binomial() -> None:
    """The product of factors is the beta-binomial likelihood ratio, stage by stage."""
    draw = random.Random(3)
    test, expected = SampleRatio(), 0.0
    for p, size in ((0.05, 400), (0.25, 300), (0.5, 200)):
        test.restart()
        arms = [draw.random() < p for _ in range(size)]
        for arm in arms:
            test.update(candidate=arm, p=p)
        a, b = 200 * p, 200 * (1 - p)
        hits = sum(arms)
        beta = math.lgamma(a + hits) + math.lgamma(b + size - hits) - math.lgamma(200 + size)
        expected += beta - (math.lgamma(a) + math.lgamma(b) - math.lgamma(200))
        expected -= hits * math.log(p) + (size - hits) * math.log(1 - p)
    assert test.log_e == pytest.approx(expected, abs=1e-8)


def test_evalues_state_survives_json() -> None:
    """A test that is stored and read back goes on bit for bit."""
    draw = random.Random(4)
    harm, better = HarmTest(), NonInferiority(0.02)
    for step in range(400):
        if step == 200:
            harm = HarmTest(**json.loads(json.dumps(asdict(harm))))
            better = NonInferiority(**json.loads(json.dumps(asdict(better))))
            kept = (HarmTest(**asdict(harm)), NonInferiority(**asdict(better)))
        arm, bad = draw.random() < 0.25, draw.random() < 0.1
        for test in (harm, better) if step < 200 else (harm, better, *kept):
            test.update(candidate=arm, bad=bad, p=0.25)
    assert (harm, better) == kept


def test_evalues_order_matters() -> None:
    """Fed in order of arrival, bad candidate outcomes first, an A/A test alarms: order is part of the contract."""
    alarms = {"exposure": 0, "arrival": 0}
    for seed in range(60):
        draw = random.Random(seed)
        seen = [(draw.random() < 0.5, draw.random() < 0.1) for _ in range(2_000)]
        early = sorted(enumerate(seen), key=lambda item: item[0] + (0 if item[1] == (True, True) else 400))
        for name, order in (("exposure", seen), ("arrival", [item for _, item in early])):
            test, fired = HarmTest(), False
            for arm, bad in order:
                test.update(candidate=arm, bad=bad, p=0.5)
                fired = fired or test.alarm(1)
            alarms[name] += fired
    assert alarms["exposure"] <= 6
    assert alarms["arrival"] >= 50


def test_evalues_gain_is_fair_under_the_null() -> None:
    """Under symmetric and skewed nulls the mean e-value is at most 1 within noise."""
    draw = np.random.default_rng(5)
    size = (800, 100)
    for noise in (draw.normal(0, 0.1, size), 0.1 * draw.standard_t(3, size), 0.1 * (1 - draw.exponential(1, size))):
        mean = float(np.mean([math.exp(evalues.log_gain([float(x) for x in row])) for row in noise]))
        assert mean < 1.6


def test_evalues_gain_ignores_order_and_clips() -> None:
    """The e-value depends on the set of differences only, and one outlier counts no more than the clip."""
    draw = random.Random(6)
    values = [draw.gauss(0.05, 0.1) for _ in range(200)]
    shuffled = draw.sample(values, len(values))
    assert evalues.log_gain(values) == pytest.approx(evalues.log_gain(shuffled), rel=1e-12)
    assert evalues.log_gain([*values, 50.0]) == evalues.log_gain([*values, evalues.CLIP_NATS])
    assert evalues.log_gain([]) == 0


def test_evalues_thresholds_spend_at_most_alpha() -> None:
    """Levels without a promotion sum to alpha over an endless sequence; promotions give alpha back."""
    spent = sum(math.exp(-evalues.log_promotion_threshold(t, 0)) for t in range(1, 20_000))
    assert 0.0499 < spent < 0.05
    assert evalues.log_promotion_threshold(25, 3) == pytest.approx(evalues.log_promotion_threshold(25, 0) - math.log(4))
    assert math.exp(evalues.log_promotion_threshold(25, 0)) == pytest.approx(20_562, rel=1e-3)
    with pytest.raises(ValueError, match="decision=0"):
        evalues.log_promotion_threshold(0, 0)


def test_evalues_provable_gain_is_where_proof_begins() -> None:
    """Examples shifted by the smallest provable gain prove it; a little less does not."""
    draw = random.Random(7)
    noise = [draw.gauss(0, 0.1) for _ in range(300)]
    threshold = evalues.log_promotion_threshold(25, 0)
    least = evalues.provable_gain(noise, threshold)
    assert least is not None
    assert 0.01 < least < 0.05
    centre = sum(noise) / len(noise)
    assert evalues.log_gain([x - centre + least for x in noise]) >= threshold
    assert evalues.log_gain([x - centre + least - 0.001 for x in noise]) < threshold
    assert evalues.provable_gain(noise[:3], threshold) is None


@pytest.mark.parametrize("freedom", [10, 23, 127, 300])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_evalues_student_quantile(level: float, freedom: int) -> None:
    """The t quantile is scipy's."""
    assert evalues.student_quantile(level, freedom) == pytest.approx(float(stats.t.ppf(level, freedom)), abs=2e-3)


def test_evalues_bounds_cover() -> None:
    """A one-sided 95 % bound covers the mean about 95 % of the time."""
    draw = np.random.default_rng(8)
    covered = sum(evalues.mean_bounds([float(x) for x in draw.normal(0, 0.1, 64)])[1] >= 0 for _ in range(2_000))
    assert 0.935 <= covered / 2_000 <= 0.965
    assert evalues.mean_bounds([1.0]) == (-math.inf, math.inf)
