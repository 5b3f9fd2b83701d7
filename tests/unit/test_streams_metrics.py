"""What the worker says of itself: children from the start, lag of owned partitions only, librdkafka's figures, loss."""

from __future__ import annotations

import json
import threading
from typing import Any

from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from streams.kafka_figures import KafkaFigures
from streams.metrics import StreamMetrics
from streams.unaccounted import LOOKS, Unaccounted


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """A sample of the registry."""
    return registry.get_sample_value(f"driftline_{name}", labels)


def test_metrics_exist_before_anything_happens() -> None:
    """A ratio over outcomes that never occurred is 0, not absent."""
    registry = CollectorRegistry()
    StreamMetrics(registry)
    assert value(registry, "events_total", stage="assemble", outcome="dead_lettered") == 0
    assert value(registry, "unaccounted_events", topic="chats.raw") == 0
    assert value(registry, "offsets_out_of_range_total", topic="chats.clean") == 0
    assert value(registry, "stage_duration_seconds_count", stage="scrub") == 0


def test_metrics_lag_leaves_with_its_partition() -> None:
    """A partition that another worker took over is not reported by two."""
    registry = CollectorRegistry()
    metrics = StreamMetrics(registry)
    metrics.lag("chats.raw", 3, 17)
    assert value(registry, "consumer_lag_messages", topic="chats.raw", partition="3") == 17
    metrics.gone("chats.raw", 3)
    metrics.gone("chats.raw", 4)
    assert value(registry, "consumer_lag_messages", topic="chats.raw", partition="3") is None


def test_unaccounted_counts_what_was_acknowledged_long_ago() -> None:
    """An offset without effect counts after ten looks, while its partition is ours; deleted records count for good."""
    effects = {("chats.raw", 0): 5, ("chats.raw", 1): 9}
    watch = Unaccounted(lambda topic, partition: effects[topic, partition])
    found = [watch.look({("chats.raw", 0): 8, ("chats.raw", 1): 9}) for _ in range(LOOKS + 1)]
    assert [each["chats.raw"] for each in found] == [0] * LOOKS + [3]
    effects["chats.raw", 0] = 8
    assert watch.look({("chats.raw", 0): 9}) == {"chats.raw": 0}
    watch.deleted("chats.clean", 4)
    assert watch.look({}) == {"chats.clean": 4}


def test_kafka_figures_read_a_real_report() -> None:
    """librdkafka's own report against its mock cluster fills the gauges."""
    registry, reports = CollectorRegistry(), []
    figures = KafkaFigures(registry)
    heard = threading.Event()

    def hear(report: str) -> None:
        reports.append(report)
        heard.set()

    settings: dict[str, Any] = {**figures.settings(), "statistics.interval.ms": 50, "stats_cb": hear}
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 0, **settings})
    producer.produce("t", b"v")
    producer.flush(10)
    for _ in range(200):
        producer.poll(0.05)
        if reports and any(b["state"] == "UP" for b in json.loads(reports[-1])["brokers"].values()):
            break
    figures.heard(reports[-1])
    assert value(registry, "kafka_brokers_up") == 1
    assert value(registry, "kafka_queue_messages") == 0
    assert (value(registry, "kafka_round_trip_seconds", quantile="p99") or 0) >= 0
    assert value(registry, "kafka_broker_errors", kind="txerrs") == 0
