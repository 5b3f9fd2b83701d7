"""How far the stream worker's group is behind: end of each partition minus what the group has committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, TopicPartition

from services.settings import Settings
from streams.topics import CHATS_CLEAN, CHATS_RAW

_WAIT_S = 10.0

Place = tuple[str, int]
"""Topic (without prefix) and partition."""


def lag(settings: Settings, topics: Sequence[str] = (CHATS_RAW, CHATS_CLEAN)) -> dict[Place, int]:
    """Records of each partition that the group has not committed."""
    with _group(settings) as consumer:
        bounds = _bounds(settings, consumer, topics)
        committed = _committed(settings, consumer, list(bounds))
        return {place: max(0, high - max(low, committed[place])) for place, (low, high) in bounds.items()}


def ends(settings: Settings, topics: Sequence[str]) -> dict[Place, int]:
    """The ends of all partitions that hold records now."""
    with _group(settings) as consumer:
        return {place: high for place, (low, high) in _bounds(settings, consumer, topics).items() if high > low}


def passed(settings: Settings, marks: Mapping[Place, int]) -> bool:
    """Whether the group has committed everything before these offsets."""
    with _group(settings) as consumer:
        committed = _committed(settings, consumer, list(marks))
    return all(committed[place] >= mark for place, mark in marks.items())


@contextmanager
def _group(settings: Settings) -> Iterator[Consumer]:
    """A client that may look at the group's offsets and does not join it."""
    group = settings.kafka.prefix + settings.stream.group
    options: dict[str, str | float | bool] = {"group.id": group, "enable.auto.commit": False}
    consumer = Consumer(settings.kafka.asked_once("lag", **options))
    try:
        yield consumer
    finally:
        consumer.close()


def _bounds(settings: Settings, consumer: Consumer, topics: Sequence[str]) -> dict[Place, tuple[int, int]]:
    found = {}
    for name in topics:
        topic = settings.kafka.prefix + name
        for partition in consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions:
            place = TopicPartition(topic, partition)
            found[name, partition] = consumer.get_watermark_offsets(place, timeout=_WAIT_S, cached=False)
    return found


def _committed(settings: Settings, consumer: Consumer, places: Sequence[Place]) -> dict[Place, int]:
    """What the group has committed; below 0 where it never did."""
    asked = [TopicPartition(settings.kafka.prefix + topic, partition) for topic, partition in places]
    found = consumer.committed(asked, timeout=_WAIT_S) if asked else []
    return {place: part.offset for place, part in zip(places, found, strict=True)}
