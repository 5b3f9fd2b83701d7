"""What a test finds on review.decisions."""

from __future__ import annotations

from confluent_kafka import Consumer

from streams.review import Decision, decode
from streams.topics import REVIEW_DECISIONS


def decided(bootstrap: str, key: bytes) -> Decision:
    """The oldest decision on the topic, whose record carries the conversation's key."""
    config = {"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer(config)
    consumer.subscribe([REVIEW_DECISIONS])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    assert message.key() == key
    value = message.value()
    assert value is not None
    return decode(value)
