"""Reads a topic whole, for tests that look at what was produced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, TopicPartition


@dataclass(frozen=True)
class Read:
    """One record as it lies in its partition."""

    key: bytes | None
    value: bytes
    headers: dict[str, bytes]


def read_all(bootstrap: str, topic: str) -> list[Read]:
    """Every record of a topic, partition by partition, each in order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "auto.offset.reset": "earliest"})
    partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic, timeout=5).topics[topic].partitions]
    expected = sum(consumer.get_watermark_offsets(part, timeout=5)[1] for part in partitions)
    consumer.assign(partitions)
    found: list[tuple[int, int, Read]] = []
    while len(found) < expected:
        for message in consumer.consume(500, timeout=1):
            assert message.error() is None
            pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
            headers = dict(pairs)
            place = (message.partition() or 0, message.offset() or 0)
            found.append((*place, Read(message.key(), message.value() or b"", headers)))
    consumer.close()
    return [record for _, _, record in sorted(found, key=lambda entry: entry[:2])]
