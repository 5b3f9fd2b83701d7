"""The broker as ingest sees it: a producer, and on the embedded broker the pace of its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

from services.pacing import Pace, ReaderOffsets
from services.topic_feed import producer_settings
from streams.topics import CHATS_RAW

if TYPE_CHECKING:
    from services.settings import Settings

CONTACT_S = 5.0
"""Longest wait for the broker's first answer, seconds."""


class NoBroker(Exception):
    """Kafka does not answer; the message says where it was looked for and what to set."""


@dataclass(frozen=True)
class Broker:
    """What ingest needs of it."""

    producer: Producer
    topic: str
    pace: Pace | None
    identity: str


@contextmanager
def open_broker(settings: Settings, clock: Callable[[], float]) -> Iterator[Broker]:
    """Connect. Raises `NoBroker`."""
    kafka = settings.kafka
    topic = kafka.prefix + CHATS_RAW
    # 0: a broker that is away makes ingest wait, not lose.
    more = {"message.timeout.ms": 0, "compression.type": "lz4", "log_level": 3}
    producer = Producer({**producer_settings(kafka.client("ingest")), **more, **kafka.extra})
    try:
        metadata = producer.list_topics(topic, timeout=CONTACT_S)
    except KafkaException:
        where = f"{kafka.bootstrap} does not answer; start `driftline up`, or set kafka.bootstrap"
        raise NoBroker(f"kafka.bootstrap = {where} (DRIFTLINE_KAFKA__BOOTSTRAP)") from None
    identity = kafka.epoch or metadata.cluster_id or "kafka"
    if not kafka.embedded:
        yield Broker(producer, topic, None, identity)
        return
    reader = ReaderOffsets(kafka.client("ingest-reader"), kafka.prefix + settings.ingest.reader_group, topic)
    try:
        yield Broker(producer, topic, Pace(reader, clock), identity)
    finally:
        reader.close()
