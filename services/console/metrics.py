"""What the console counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class ConsoleMetrics:
    """Bound to one registry; nothing is registered at import."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "driftline_console_requests_total", "Every request, by status of its answer", ["status"], registry=registry
        )
        self.decisions = Counter(
            "driftline_review_decisions_total", "Decisions that Kafka has taken", ["action"], registry=registry
        )
