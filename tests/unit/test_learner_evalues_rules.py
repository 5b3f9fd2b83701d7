"""Calibration and power of the harm test beside the peers' rules, in the short form of the bench, same draws."""

from __future__ import annotations

import numpy as np
import pytest

from learner.evalues import HarmTest
from tests.bench import canary

RUNS = 100


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, np.ndarray]]:
    """Every rule on every setting of the page's table, one seed."""
    draw = np.random.default_rng(7)
    settings = (*canary.NULLS[:3], *canary.HARMS)
    return {
        one.name: {rule: np.concatenate(times) for rule, times in canary._measure(one, RUNS, draw).items()}
        for one in settings
    }


def test_evalues_vectorised_copy_is_the_shipped_test() -> None:
    """The bench's vectorised harm test equals learner/evalues.py on the same conversations."""
    draws = canary._draws(canary.HARMS[1], 1, np.random.default_rng(3))
    test, log_e = HarmTest(), []
    for arm, bad, p in zip(draws.arm[0, :4000].tolist(), draws.bad[0].tolist(), draws.p[0].tolist(), strict=False):
        test.update(candidate=arm > 0, bad=bad > 0, p=p)
        log_e.append(test.log_e)
    assert np.allclose(canary.harm_log_e(draws)[0, :4000], log_e, atol=1e-6)


def test_evalues_calibration(found: dict[str, dict[str, np.ndarray]]) -> None:
    """False alarms stay near 5 % and far below those of peeking and thresholds."""
    for name in ("A/A 10 %", "A/A 10 % drift", "A/A 1 %"):
        shares = {rule: float((times < canary.NEVER).mean()) for rule, times in found[name].items()}
        assert shares[canary.OURS] <= 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5
        if "10 %" in name:
            assert shares[canary.OURS] <= min(shares["z-peeking"], shares["Argo-like"]) / 4


def test_evalues_power(found: dict[str, dict[str, np.ndarray]]) -> None:
    """Harm is found earlier than by Flagger's rule in every setting, and hardly later than by the asymptotic one."""
    for setting in canary.HARMS:
        median = {rule: float(np.median(times)) for rule, times in found[setting.name].items()}
        assert median[canary.OURS] <= 0.7 * median["Flagger-like"]
        assert setting.name == "10->60" or median[canary.OURS] <= 1.15 * median["AsympCS"]
