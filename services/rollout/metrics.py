"""What the controller counts; names of observability.md and rollout.md 8, every child created at start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from services.rollout.evidence import Evidence
from services.rollout.machine import Phase, State
from streams.rollout_events import Metric

FRESHNESS_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds; the objective of 300 s is a bound."""

ROLLBACK_BUCKETS = (0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
"""Seconds; the objective of 60 s is a bound."""

DECISIONS = {"promote": "promote", "roll_back": "roll_back", "hold": "hold"}
ARMS = ("candidate", "control")


class RolloutMetrics:
    """The metric objects of one controller process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"driftline_{name}", text, labels, registry=registry)

        self._state = gauge("canary_state", "The phase that is 1", "state")
        self._weight = gauge("canary_weight_ratio", "Share of new conversations for the candidate")
        self._log_e = gauge("canary_log_e", "Evidence", "metric", "test")
        self._bad = gauge("canary_bad_ratio", "Bad conversations", "metric", "arm")
        self._srm = gauge("canary_srm_log_e", "Evidence that conversations are missing")
        self._age = gauge("canary_telemetry_age_seconds", "Since exposures and outcomes were read to their end")
        self._generation = gauge("rollout_generation", "Of the newest record")
        self.conversations = Counter(
            "driftline_canary_conversations_total", "Matured conversations", ["arm"], registry=registry
        )
        self.late = Counter(
            "driftline_canary_late_outcomes_total", "Outcomes after their window", ["arm"], registry=registry
        )
        self.decisions = Counter("driftline_canary_decisions_total", "Decisions", ["decision"], registry=registry)
        self.fenced = Counter("driftline_rollout_fenced_total", "Writes refused", registry=registry)
        self.skewed = Counter("driftline_negative_durations_total", "Clocks that disagree", registry=registry)
        self.freshness = Histogram(
            "driftline_adapter_freshness_seconds", "Sample to servable", buckets=FRESHNESS_BUCKETS, registry=registry
        )
        self.rollback = Histogram(
            "driftline_canary_rollback_duration_seconds", "Decision to last node off", buckets=ROLLBACK_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._served = Info("driftline_adapter_version", "Served versions", ["role"], registry=registry)
        self._counted = dict.fromkeys(ARMS, (0, 0))
        for arm in ARMS:
            self.conversations.labels(arm)
            self.late.labels(arm)
            for metric in Metric:
                self._bad.labels(metric, arm)
        for metric in Metric:
            for test in ("harm", "promotion"):
                self._log_e.labels(metric, test)
        for decision in DECISIONS:
            self.decisions.labels(decision)

    def show(self, state: State, evidence: Evidence, age_s: float) -> None:
        """The controller's state as gauges."""
        record = state.record
        for phase in Phase:
            self._state.labels(phase).set(phase is state.phase)
        self._weight.set(record.weight)
        self._generation.set(record.generation)
        self._srm.set(evidence.srm.log_e)
        self._age.set(age_s)
        for metric, harm in evidence.harm.items():
            self._log_e.labels(metric, "harm").set(harm.log_e)
            self._log_e.labels(metric, "promotion").set(evidence.promotion[metric].log_e)
            self._bad.labels(metric, "candidate").set(harm.candidate_bad / max(harm.candidate, 1))
            self._bad.labels(metric, "control").set(harm.control_bad / max(harm.control, 1))
        for arm in ARMS:
            matured, late = self._counted[arm]
            self.conversations.labels(arm).inc(max(evidence.matured[arm] - matured, 0))
            self.late.labels(arm).inc(max(evidence.late[arm] - late, 0))
            self._counted[arm] = (evidence.matured[arm], evidence.late[arm])
        named = {"stable": record.stable, "canary": record.canary, "next": record.next, "previous": record.previous}
        for role, version in named.items():
            if version:
                self._served.labels(role).info({"version": version})
            else:
                self._served.labels(role).info({"version": ""})
