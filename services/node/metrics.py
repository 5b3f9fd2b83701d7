"""What a node counts; names of observability.md and registry-and-nodes.md 8, every child created at start."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from learner.registry import Reason
from services.rollout_records import NodeState, VersionStatus

ROLES = ("stable", "previous", "canary", "next", "other")
STAGES = ("fetch", "verify", "load", "probe")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Seconds; the objective of all four stages together is 1 s."""


class NodeMetrics:
    """The metric objects of one node process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "driftline_adapter_verify_failures_total", "Versions refused", ["reason"], registry=registry
        )
        self.quarantines = Counter(
            "driftline_adapter_quarantines_total", "Versions given up", ["reason"], registry=registry
        )
        self.denied = Counter("driftline_adapter_denied_requests_total", "Requests at a closed door", registry=registry)
        self.restarts = Counter("driftline_engine_restarts_total", "Engine starts", registry=registry)
        self.flagged = Counter("driftline_answers_flagged_total", "Answers flagged as unsafe", registry=registry)
        self.difference = Gauge(
            "driftline_adapter_probe_difference_nats", "Largest difference of the newest probe", registry=registry
        )
        self._stages = Histogram(
            "driftline_adapter_load_duration_seconds", "On the way to READY", ["stage"], buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._states = Gauge("driftline_node_version_state", "Versions", ["role", "state"], registry=registry)
        self._generation = Gauge("driftline_node_generation", "Of the record acted on", registry=registry)
        for reason in [*Reason, "crash", "breaker"]:
            self.quarantines.labels(str(reason))
        for reason in Reason:
            self.refused.labels(reason)
        for stage in STAGES:
            self._stages.labels(stage)
        for role in ROLES:
            for state in NodeState:
                self._states.labels(role, state)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage on the way to READY."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - began)

    def show(self, statuses: Collection[VersionStatus], generation: int) -> None:
        """The node's state as gauges."""
        self._generation.set(generation)
        for role in ROLES:
            for state in NodeState:
                count = sum(1 for found in statuses if found.role == role and found.state is state)
                self._states.labels(role, state).set(count)
