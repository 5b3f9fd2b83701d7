"""What librdkafka says of itself every few seconds, as metrics: queues, round trips, errors of the brokers.

One process has one producer that matters; hand `KafkaFigures.heard` to it as `stats_cb`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge

INTERVAL_MS = 5_000
"""Between two reports; one costs about 0.1 ms."""

ERRORS = ("txerrs", "rxerrs", "req_timeouts")
QUANTILES = ("p50", "p99")


class KafkaFigures:
    """Gauges of one process's producer. Broker ids are no labels: the slowest broker stands for all."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "driftline_kafka_queue_messages", "Records that wait for their delivery report", registry=registry
        )
        self._bytes = Gauge("driftline_kafka_queue_bytes", "Bytes of those records", registry=registry)
        self._trip = Gauge(
            "driftline_kafka_round_trip_seconds", "Of requests to the slowest broker", ["quantile"], registry=registry
        )
        self._errors = Gauge("driftline_kafka_broker_errors", "Since the process started", ["kind"], registry=registry)
        self._up = Gauge("driftline_kafka_brokers_up", "Brokers with a connection", registry=registry)
        for quantile in QUANTILES:
            self._trip.labels(quantile)
        for kind in ERRORS:
            self._errors.labels(kind)

    def settings(self) -> dict[str, Any]:
        """What a producer is made with so that its reports arrive here."""
        return {"statistics.interval.ms": INTERVAL_MS, "stats_cb": self.heard}

    def heard(self, report: str) -> None:
        """Take one report in."""
        found = msgspec.json.decode(report)
        brokers = [broker for broker in found.get("brokers", {}).values() if broker.get("nodeid", -1) >= 0]
        self._waiting.set(found.get("msg_cnt", 0))
        self._bytes.set(found.get("msg_size", 0))
        self._up.set(sum(broker.get("state") == "UP" for broker in brokers))
        for quantile in QUANTILES:
            slowest = max((broker.get("rtt", {}).get(quantile, 0) for broker in brokers), default=0)
            self._trip.labels(quantile).set(slowest / 1e6)
        for kind in ERRORS:
            self._errors.labels(kind).set(sum(broker.get(kind, 0) for broker in brokers))
