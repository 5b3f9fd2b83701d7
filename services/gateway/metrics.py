"""What the gateway counts; names are those of the observability page."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Outcome = Literal[
    "accepted", "unauthorized", "malformed", "too_large", "timeout", "throttled", "duplicate", "unavailable"
]

OUTCOMES: dict[int, Outcome] = {
    401: "unauthorized", 400: "malformed", 413: "too_large", 408: "timeout", 429: "throttled", 503: "unavailable",
}  # fmt: skip
"""Status of an answer -> outcome of its request."""


class GatewayMetrics:
    """Bound to one registry; nothing is registered at import."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "driftline_webhook_requests_total", "Every request, by answer", ["source", "outcome"], registry=registry
        )
        self.events = Counter(
            "driftline_events_total", "Chat events leaving a stage", ["stage", "outcome"], registry=registry
        )
        self.rejections = Counter(
            "driftline_rejections_total", "Why events were not taken", ["stage", "reason"], registry=registry
        )
        self.duration = Histogram(
            "driftline_stage_duration_seconds",
            "Wall time of one request until Kafka acknowledged",
            ["stage"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2),
            registry=registry,
        )
        self.queued = Gauge("driftline_gateway_queued_bytes", "Bytes that wait for Kafka", registry=registry)
        self.uncaptured = Counter(
            "driftline_gateway_uncaptured_total", "Chats that went through the proxy unrecorded", registry=registry
        )
