from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from learner.gate import Account, Decision, Evidence
from learner.metrics import LearnerMetrics
from learner.publish import Held, Judged
from learner.update import StepReport


def test_metrics_say_what_a_step_had_no_signal_for() -> None:
    """A step without ratings or edits is counted for each, and what was set apart by its reason."""
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    report = StepReport(
        1, "ok", 0.5, {"fresh": 8, "rehearsal": 16, "anchor": 8, "copy": 0}, {"a": 1.0}, 1.0, ("a", "b", "c"), (),
        noise=1, salad=1,
    )  # fmt: skip
    metrics.stepped(report, 0.1, rated=True, edited=False)
    metrics.stepped(report, 0.1, rated=False, edited=False)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"driftline_learner_{name}", labels)

    assert value("no_signal_total", objective="ratings") == 1
    assert value("no_signal_total", objective="edits") == 2
    assert [value("quarantined_total", reason=one) for one in ("loss", "spelling", "order")] == [2, 2, 2]
    assert value("tokens_by_component_total", component="rehearsal") == 32


def test_metrics_show_both_sides_of_the_gauge() -> None:
    """The distance to the base is shown of the candidate and of what customers have."""
    registry = CollectorRegistry()
    metrics = LearnerMetrics(registry)
    decision = Decision("abstain", (Evidence("gauge", "pass", value=0.25, limit=0.6),), Account(), paired_sd=0.1)
    candidate: Any = SimpleNamespace(name="a-step1")
    metrics.judged(Judged(candidate, decision, "base", None, "", 0, 0.1, lambda: Held(0, 0.0, 0.0), 0.125), 1.0)
    shown = [registry.get_sample_value("driftline_anchor_kl_nats", {"role": role}) for role in ("candidate", "stable")]
    assert shown == [0.25, 0.125]
    assert registry.get_sample_value("driftline_gate_paired_sd_nats") == 0.1
