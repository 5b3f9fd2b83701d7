"""How far the stream worker's group is behind: end of each partition minus what the group has committed."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from services.settings import Settings
from streams.topics import CHATS_CLEAN, CHATS_RAW

_WAIT_S = 10.0


def lag(settings: Settings, topics: Sequence[str] = (CHATS_RAW, CHATS_CLEAN)) -> dict[tuple[str, int], int]:
    """Topic (without prefix) and partition -> records that the group has not committed."""
    kafka = settings.kafka
    group = kafka.prefix + settings.stream.group
    options: dict[str, str | float | bool] = {"group.id": group, "enable.auto.commit": False, "log_level": 3}
    consumer = Consumer(kafka.client("lag", **options))
    try:
        found = {}
        for name in topics:
            topic = kafka.prefix + name
            partitions = consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions
            for place in consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=_WAIT_S):
                low, high = consumer.get_watermark_offsets(place, timeout=_WAIT_S, cached=False)
                found[name, place.partition] = max(0, high - max(low, place.offset))
        return found
    finally:
        consumer.close()
