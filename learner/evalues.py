"""Sequential tests that hold at every moment, for canary and gate: e-values, on the standard library's math alone.

An e-value is evidence against a null hypothesis whose expectation under it is at most 1, so by Ville's
inequality P(ever e >= 1 / alpha) <= alpha, however often one looks. Everything is kept as log e.

    HarmTest         the candidate's bad-outcome rate is at most the control's
    NonInferiority   the candidate's rate is at least `margin` above the control's (rejecting it promotes)
    SampleRatio      each conversation met its arm with the logged probability
    log_gain         the mean of clipped paired loss differences is at most 0 (the gate's gain test)

The first three see conversations one by one, in exposure order; `p` is the probability of the candidate's
arm as logged at that draw. Predictions use earlier conversations only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

CLIP_NATS = 0.5
"""Where a paired difference is cut, nats; fixed, since a clip taken from the data is no e-value."""

BETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.95)
"""The mixture's stakes: small ones win on many small gains, large ones on few large gains."""

HARM_FLOOR = 0.02
"""Smallest harm that is bet on, as a difference of rates."""

CONTROL_CAP = 0.97
"""Highest predicted control rate; without it a control at 100 % bad would push it past the candidate's cap."""


@dataclass(slots=True)
class HarmTest:
    """Evidence that the candidate is worse; exact for any weights and any drift of the common rate.

    Its fields are its whole state; floats survive JSON exactly.
    """

    control: int = 0
    control_bad: int = 0
    candidate: int = 0
    candidate_bad: int = 0
    log_e: float = 0.0

    def predict(self) -> tuple[float, float]:
        """Bad-outcome rates bet on next: of control, and of the candidate, always at least the floor above."""
        pool = (self.control_bad + self.candidate_bad + 1) / (self.control + self.candidate + 10)
        control = min((self.control_bad + 2) / (self.control + 20), CONTROL_CAP)
        shrunk = (self.candidate_bad + 20 * pool) / (self.candidate + 20)
        return control, min(max(shrunk, control + HARM_FLOOR), 0.999)

    def update(self, *, candidate: bool, bad: bool, p: float) -> None:
        """Take in one matured conversation: its arm, its outcome, and the logged probability of the candidate."""
        control_rate, candidate_rate = self.predict()
        mixed = (1 - p) * control_rate + p * candidate_rate
        rate = candidate_rate if candidate else control_rate
        self.log_e += math.log(rate / mixed) if bad else math.log((1 - rate) / (1 - mixed))
        if candidate:
            self.candidate += 1
            self.candidate_bad += bad
        else:
            self.control += 1
            self.control_bad += bad

    def alarm(self, guardrails: int, alpha: float = 0.05) -> bool:
        """Whether harm is proven, one of `guardrails` metrics that share `alpha`."""
        return self.log_e >= math.log(guardrails / alpha)


@dataclass(slots=True)
class NonInferiority:
    """Evidence, by betting, that the candidate's rate is less than `margin` above control's; fields are the state."""

    margin: float
    seen: float = 10.0
    bad: float = 1.0
    gain: float = 0.0
    gain_squared: float = 1.0
    log_e: float = 0.0

    def update(self, *, candidate: bool, bad: bool, p: float) -> None:
        """Take in one matured conversation; one whose arm was certain (p 0 or 1) says nothing and is skipped."""
        if not 0 < p < 1:
            return
        mean = self.bad / self.seen
        worst = max((1 - mean) / p, mean / (1 - p)) - self.margin
        stake = min(max(self.gain / self.gain_squared, 0.0), 0.5 / max(worst, 1e-6))
        surplus = (bad - mean) / p if candidate else -(bad - mean) / (1 - p)
        gain = self.margin - surplus
        self.log_e += math.log1p(stake * gain)
        self.gain += gain
        self.gain_squared += gain * gain
        self.bad += bad
        self.seen += 1

    def proven(self, alpha: float = 0.05) -> bool:
        """Whether the margin holds at level `alpha`."""
        return self.log_e >= math.log(1 / alpha)


@dataclass(slots=True)
class SampleRatio:
    """Evidence that conversations are missing from one arm; `restart` at each change of weight keeps the evidence."""

    seen: int = 0
    candidates: int = 0
    log_e: float = 0.0

    def update(self, *, candidate: bool, p: float) -> None:
        """Take in one exposure; one whose arm was certain is skipped."""
        if not 0 < p < 1:
            return
        if candidate:
            self.log_e += math.log((200 * p + self.candidates) / ((200 + self.seen) * p))
            self.candidates += 1
        else:
            controls = self.seen - self.candidates
            self.log_e += math.log((200 * (1 - p) + controls) / ((200 + self.seen) * (1 - p)))
        self.seen += 1

    def restart(self) -> None:
        """Begin a new weight stage: counts start again, the product goes on."""
        self.seen = self.candidates = 0

    def alarm(self, threshold: float = 1000.0) -> bool:
        """Whether the split cannot be the one that was logged."""
        return self.log_e >= math.log(threshold)


def log_gain(differences: Sequence[float], clip: float = CLIP_NATS) -> float:
    """Log e-value against "the mean of the clipped differences is at most 0"; order does not matter.

    `differences` are loss(stable) - loss(candidate) in nats, one a conversation, paired.
    """
    steps = [min(max(x, -clip), clip) / clip for x in differences]
    logs = [sum(math.log1p(bet * z) for z in steps) for bet in BETS]
    top = max(logs)
    return top + math.log(sum(math.exp(x - top) for x in logs) / len(BETS))


def log_promotion_threshold(decision: int, promotions: int, alpha: float = 0.05) -> float:
    """Log of the e-value that the `decision`-th look (from 1) needs, after `promotions` that still stand.

    e-LOND (Xu, Ramdas 2024): levels alpha * gamma_t * (R + 1) with gamma_t = 6 / (pi t)^2, without horizon and
    under any dependence, bound the false share of promotions by alpha.
    """
    if decision < 1 or promotions < 0:
        raise ValueError(f"decision={decision}, promotions={promotions}: the first is at least 1, the second 0")
    gamma = 6 / (math.pi * decision) ** 2
    return -math.log(alpha * gamma * (promotions + 1))


def provable_gain(differences: Sequence[float], log_threshold: float, clip: float = CLIP_NATS) -> float | None:
    """Smallest mean gain, in nats, that examples spread like these would prove; None when even `clip` would not."""
    if not differences:
        return None
    mean = fmean(differences)
    centred = [x - mean for x in differences]
    if log_gain([x + clip for x in centred], clip) < log_threshold:
        return None
    low, high = 0.0, clip
    for _ in range(12):
        middle = (low + high) / 2
        if log_gain([x + middle for x in centred], clip) >= log_threshold:
            high = middle
        else:
            low = middle
    return high


def mean_bounds(values: Sequence[float], alpha: float = 0.05) -> tuple[float, float]:
    """One-sided (1 - alpha) confidence bounds, lower and upper, of the mean; Student's t. Needs two values."""
    if len(values) <= 1:
        return -math.inf, math.inf
    half = student_quantile(1 - alpha, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    mean = fmean(values)
    return mean - half, mean + half


def student_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's t by Cornish-Fisher (Abramowitz, Stegun 26.7.5); within 1e-3 from 10 degrees on."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / (freedom * freedom) + third / (freedom * freedom * freedom)
