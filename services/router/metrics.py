"""What a router counts; names of observability.md and rollout.md 8, every child created at start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streams import topics

ROLES = ("stable", "canary", "previous", "other")
OUTCOMES = ("ok", "error", "timeout")
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds of one answer; 2 s is the shipped objective of the first token."""


class RouterMetrics:
    """The metric objects of one router process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.topics = (topics.CHATS_RAW, topics.EXPOSURES, topics.OUTCOMES)
        """Where a router writes."""
        self.replies = Counter(
            "driftline_reply_requests_total", "Requests by outcome", ["role", "outcome"], registry=registry
        )
        self.duration = Histogram(
            "driftline_reply_duration_seconds", "One answer", ["role"], buckets=BUCKETS, registry=registry
        )
        self.assignments = Counter(
            "driftline_assignments_total", "New conversations", ["arm", "fallback"], registry=registry
        )
        self.degraded = Counter("driftline_assignments_degraded_total", "Turns without pin store", registry=registry)
        self.denied = Counter("driftline_requests_denied_total", "Versions refused by name", registry=registry)
        self.moved = Counter("driftline_pins_moved_total", "Pins that left a version", ["reason"], registry=registry)
        self.spooled = Gauge("driftline_spool_events", "Records not yet delivered", ["topic"], registry=registry)
        self.stray = Counter("driftline_stray_placeholders_total", "Cut from answers", registry=registry)
        for role in ROLES:
            self.duration.labels(role)
            for outcome in OUTCOMES:
                self.replies.labels(role, outcome)
        for arm in ("candidate", "control", "none"):
            for fallback in ("true", "false"):
                self.assignments.labels(arm, fallback)
        for reason in ("denied", "retired", "unready"):
            self.moved.labels(reason)
        for topic in self.topics:
            self.spooled.labels(topic)
