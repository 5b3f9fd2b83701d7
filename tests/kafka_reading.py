"""The embedded broker for a whole module, and its topics read whole."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from confluent_kafka import Consumer, TopicPartition

ROOT = Path(__file__).resolve().parents[1]


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


def embedded(folder: Path) -> Iterator[str]:
    """The embedded broker in a process of its own, for as long as the generator lives; gives its address."""
    address, pause = folder / "broker.json", threading.Event()
    process = subprocess.Popen([sys.executable, "-m", "services.local.broker", str(address)], cwd=ROOT)
    for _ in range(600):
        if address.exists():
            break
        pause.wait(0.05)
    yield str(json.loads(address.read_text())["bootstrap"])
    process.terminate()
    process.wait(10)
