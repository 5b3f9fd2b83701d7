"""The learner's metrics; names as in observability.md, every child created at start."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from learner.batch import COMPONENTS
from learner.labels import HEADS
from learner.publish import Judged
from learner.train import Learner
from learner.update import Outcome, StepReport

STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a step of the demo's base takes about half a second, one of a 7B on a GPU about one."""

GATE_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: scoring a few hundred conversations."""

HEADS_EVERY = 10
"""Steps between two readings of the heads' quality."""

HEAD_MEASURES = {"f1": "Macro F1", "accuracy": "Accuracy", "precision": "Macro precision", "recall": "Macro recall"}

WAITS = ("limiter", "empty", "paused")
CAUSES = ("canary", "gate", "spikes")


class LearnerMetrics:
    """Counts around the loop and the worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, label: str = "", values: tuple[str, ...] = ()) -> Counter:
            made = Counter(f"driftline_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)
            return made

        def gauge(name: str, text: str, label: str = "", values: tuple[str, ...] = ()) -> Gauge:
            made = Gauge(f"driftline_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)
            return made

        self._steps = counter("learner_steps_total", "Optimizer steps", "outcome", get_args(Outcome))
        self._tokens = counter("learner_tokens_total", "Tokens trained on")
        self._by_component = counter(
            "learner_tokens_by_component_total", "Tokens trained on, by origin", "component", COMPONENTS
        )
        self._quarantined = counter(
            "learner_quarantined_total", "Examples set apart", "reason", ("loss", "spelling", "order", "readmitted")
        )
        self._no_signal = counter(
            "learner_no_signal_total", "Steps without any example for an objective", "objective", ("ratings", "edits")
        )
        self._waits = counter("learner_wait_seconds_total", "Time without enough to train on", "cause", WAITS)
        self._rollbacks = counter("learner_rollbacks_total", "Restarts from a published version", "cause", CAUSES)
        self.superseded = counter("learner_superseded_total", "Samples retired because their fact changed")
        self._loss = gauge("learner_loss", "Mean token cross-entropy, nats", "split", ("train", "holdout"))
        self._norm = gauge("learner_gradient_norm", "Before clipping")
        self._prequential = gauge("learner_prequential_loss", "Loss on fresh examples before training on them, nats")
        self.decisions = counter(
            "gate_decisions_total", "Decisions of the gate", "decision", ("promote", "refuse", "abstain")
        )
        self._publishes = counter(
            "adapter_publishes_total", "Versions by outcome", "outcome", ("ok", "refused", "failed")
        )
        self.last_publish = gauge("adapter_last_publish_timestamp_seconds", "When the newest version was committed")
        self._sd = gauge("gate_paired_sd_nats", "Spread of the paired differences")
        self._heads = {
            measure: gauge(f"head_{measure}_ratio", f"{text} of the newest turns, before learning them", "head", HEADS)
            for measure, text in HEAD_MEASURES.items()
        }
        self._log_e = gauge("gate_log_e", "Evidence of the last decision")
        self._threshold = gauge("gate_log_threshold", "What it was compared with")
        self._wait = gauge("gate_wait_seconds", "First candidate since the last promotion until the promotion")
        self._kl = gauge("anchor_kl_nats", "KL to the base on anchors", "role", ("candidate", "stable"))
        self._step_seconds = Histogram(
            "driftline_learner_step_duration_seconds", "One step", buckets=STEP_BUCKETS, registry=registry
        )
        self._gate_seconds = Histogram(
            "driftline_gate_duration_seconds", "One decision", buckets=GATE_BUCKETS, registry=registry
        )
        self.checkpoint_seconds = Histogram(
            "driftline_learner_checkpoint_duration_seconds", "One checkpoint", buckets=STEP_BUCKETS, registry=registry
        )
        self._told: dict[str, dict[str, int]] = {}
        """By line, as the other two."""
        self._heads_at: dict[str, int] = {}
        self._told_rollbacks: dict[tuple[str, str], int] = {}

    def stepped(self, report: StepReport, seconds: float, *, rated: bool, edited: bool) -> None:
        """Book one step."""
        self._steps.labels(report.outcome).inc()
        self._step_seconds.observe(seconds)
        for component, tokens in report.tokens.items():
            self._by_component.labels(component).inc(tokens)
            self._tokens.inc(tokens)
        self._quarantined.labels("loss").inc(len(report.quarantined) - report.noise - report.salad)
        self._quarantined.labels("spelling").inc(report.noise)
        self._quarantined.labels("order").inc(report.salad)
        self._quarantined.labels("readmitted").inc(len(report.readmitted))
        if not rated:
            self._no_signal.labels("ratings").inc()
        if not edited:
            self._no_signal.labels("edits").inc()
        if report.losses:
            self._loss.labels("train").set(sum(report.losses.values()) / len(report.losses))
        if report.fresh_loss is not None:
            self._prequential.set(report.fresh_loss)
        self._norm.set(report.norm)

    def waited(self, learner: Learner, seconds: float) -> None:
        """Book a pause by its cause, and what the learner counts itself."""
        waits, told = learner.feed.waits, self._told.get(learner.config.line, {})
        cause = max(waits, key=lambda name: waits[name] - told.get(name, 0))
        self._told[learner.config.line] = dict(waits)
        self._waits.labels(cause).inc(seconds)

    def counted(self, learner: Learner) -> None:
        """Carry over the rollbacks and what the heads are worth."""
        heads, line = learner.trajectory.heads, learner.config.line
        known_at = self._heads_at.get(line, 0)
        if heads.steps >= known_at + HEADS_EVERY or heads.steps < known_at:
            self._heads_at[line] = heads.steps
            for name, report in heads.reports().items():
                for measure, kept in self._heads.items():
                    kept.labels(name).set(getattr(report, measure))
        for cause, count in learner.rollbacks.items():
            known = self._told_rollbacks.get((line, cause), 0)
            self._rollbacks.labels(cause).inc(count - known)
            self._told_rollbacks[line, cause] = count

    def judged(self, judged: Judged, waited_s: float) -> None:
        """Book one decision; `waited_s` since the first candidate after the last promotion."""
        decision = judged.decision
        self.decisions.labels(decision.verdict).inc()
        if decision.verdict == "promote":
            self._publishes.labels("ok").inc()
            self._wait.set(waited_s)
        elif decision.verdict == "refuse":
            self._publishes.labels("refused").inc()
        self._gate_seconds.observe(judged.seconds)
        self._sd.set(decision.paired_sd)
        self._log_e.set(decision.log_e)
        self._threshold.set(decision.log_threshold)
        for entry in decision.evidence:
            if entry.guard == "gauge" and entry.outcome != "not_applicable":
                self._kl.labels("candidate").set(entry.value)
        if judged.stable_kl is not None:
            self._kl.labels("stable").set(judged.stable_kl)
        if judged.heldout.examples:
            self._loss.labels("holdout").set(judged.heldout.nll)

    def publish_failed(self) -> None:
        """A decision or a publish ended in an error."""
        self._publishes.labels("failed").inc()
