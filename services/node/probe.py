"""Proof of effect: the engine's log-probabilities against the fingerprint in the manifest; registry-and-nodes.md 4.3.

The base's own fingerprint says how noisy the engine is; what a version must match within, and how far it must
stay from base and parent, follows from that noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from learner.registry import Probe, Reason, Refused
from services.engines import Precision

FACTOR = 4.0
"""Tolerance over noise; a reference nearer than this many times the noise cannot be told apart."""

MEAN_SHARE = 1 / 3
"""Mean differences stay this far below the largest one (measured: 1/5 to 1/4)."""

Values = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Noise:
    """How far the base's answers lie from its fingerprint on this engine, nats."""

    largest: float
    mean: float


def calibrate(measured: Values, probe: Probe, precision: Precision) -> Noise:
    """The engine's noise. Raises Refused(base) when this cannot be the base that the fingerprint was made with."""
    largest, mean = _distance(measured, probe.base_logprobs, Reason.BASE)
    floor = _floor(probe, precision)
    if largest > max(floor, probe.tolerances.refuse_above):
        raise Refused(Reason.BASE, f"the base answers {largest:.3g} nats off its fingerprint")
    return Noise(max(largest, floor / FACTOR), max(mean, floor * MEAN_SHARE / FACTOR))


def check(measured: Values, probe: Probe, noise: Noise) -> tuple[float, bool]:
    """Largest difference to the own fingerprint, and whether the proof is weak. Raises Refused(probe)."""
    largest, mean = _distance(measured, probe.logprobs, Reason.PROBE)
    limit = min(FACTOR * noise.largest, probe.tolerances.refuse_above)
    if largest > limit or mean > limit * MEAN_SHARE:
        raise Refused(Reason.PROBE, f"off its fingerprint by {largest:.3g} (mean {mean:.3g}) nats, limit {limit:.3g}")
    weak = False
    for reference in (probe.base_logprobs, probe.parent_logprobs):
        if _mean(probe.logprobs, reference) < FACTOR * noise.mean:
            weak = True
        elif mean >= _mean(measured, reference) / 2:
            raise Refused(Reason.PROBE, "as near to its base or parent as to itself")
    return largest, weak


def finite(measured: Values) -> bool:
    """Whether every value is a number."""
    return all(math.isfinite(value) for row in measured for value in row)


def base_prompts(vocab: int) -> tuple[list[list[int]], list[int]]:
    """Prompts and token ids for the base's own probe, before any manifest has brought its own."""
    span = max(vocab - 4, 1)
    prompts = [[4 + (17 * row + 7 * at) % span for at in range(8 + row)] for row in range(16)]
    return prompts, [4 + (31 * row) % span for row in range(16)]


def _floor(probe: Probe, precision: Precision) -> float:
    return probe.tolerances.fp32 if precision == "fp32" else probe.tolerances.bf16


def _distance(measured: Values, wanted: Values, reason: Reason) -> tuple[float, float]:
    if [len(row) for row in measured] != [len(row) for row in wanted] or not finite(measured):
        raise Refused(reason, "the probe's values are missing or not finite")
    differences = [abs(a - b) for x, y in zip(measured, wanted, strict=True) for a, b in zip(x, y, strict=True)]
    return max(differences), sum(differences) / len(differences)


def _mean(one: Values, other: Values) -> float:
    differences = [abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(differences) / max(len(differences), 1)
