"""Topics read whole, without a consumer group: state that every process keeps a copy of, and telemetry.

A reader of state takes the end offsets first and acts only after it has read up to them (`caught_up`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from streams.acls import FEED_GROUP

ASK_S = 2.0
"""How often the broker is asked for end offsets, seconds: the proof that it is there."""


@dataclass(frozen=True)
class Record:
    """One Kafka record; `timestamp` in seconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float


def producer_settings(base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a producer whose records arrive once and in order while it lives."""
    return {
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "message.timeout.ms": 30_000,
        "queue.buffering.max.kbytes": 32_768,
        **base,
    }


def make_producer(base: Mapping[str, Any]) -> Producer:
    """A producer; connects in the background."""
    return Producer(producer_settings(base))


def send(producer: Producer, topic: str, key: str, value: bytes) -> None:
    """Produce without waiting; a full queue drops it, since the next report says the same and more."""
    with suppress(BufferError, KafkaException):
        producer.produce(topic, key=key, value=value)
    producer.poll(0)


class TopicFeed:
    """Every partition of some topics from their beginning, or from `starts` ((topic, partition) -> offset)."""

    def __init__(
        self,
        base: Mapping[str, Any],
        topics: Sequence[str],
        clock: Callable[[], float],
        *,
        prefix: str = "",
        starts: Mapping[tuple[str, int], int] | None = None,
        ask_s: float = ASK_S,
    ) -> None:
        self._prefix = prefix
        self._topics = [prefix + name for name in topics]
        self._clock = clock
        self._starts = dict(starts or {})
        self._ask_s = ask_s
        self._asked = -ask_s
        self._ends: dict[tuple[str, int], int] | None = None
        self._targets: dict[tuple[str, int], int] = {}
        self.positions: dict[tuple[str, int], int] = {}
        """(topic, partition) -> next offset to be read."""
        self.contact: float | None = None
        """When the broker last answered with all that it has, and it was read: seconds of the clock."""
        self.heard_s = 0.0
        """For how long the broker has been answering, seconds: ages counted by it stand still while it is away."""
        self._consumer = Consumer(
            {
                "group.id": prefix + FEED_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # an absent broker is told twenty times a second here, and by the process's producer too
                "log_level": 0,
                **base,
            }
        )

    @property
    def caught_up(self) -> bool:
        """True once everything that was there at the start has been read."""
        return self._ends is not None and not self._targets

    @property
    def known(self) -> bool:
        """True once the broker has told what there is to read; before, `poll` returns at once."""
        return self._ends is not None

    def poll(self, timeout_s: float, limit: int = 500) -> list[Record]:
        """The next records; an empty list when there are none in time or the broker is away."""
        if not self._ask():
            return []
        found = []
        for message in self._consumer.consume(limit, timeout_s):
            error = message.error()
            if error is None:
                found.append(self._record(message))
            elif error.name() == "_UNKNOWN_PARTITION":
                self._ends = None
        self._settle()
        return found

    def lag(self) -> int | None:
        """Records that were there when the broker last answered and are unread; None before it ever did."""
        if self._ends is None:
            return None
        return sum(max(0, end - self.positions.get(at, 0)) for at, end in self._ends.items())

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _ask(self) -> bool:
        """Learn partitions and end offsets now and then; True once there is something to read from."""
        now = self._clock()
        if now - self._asked < self._ask_s:
            return self._ends is not None
        self._asked = now
        try:
            first = self._ends is None
            ends = self._look()
            if first:
                self._assign(ends)
            self._ends = ends
            if self.contact is not None and now - self.contact <= 3 * self._ask_s:
                self.heard_s += now - self.contact
            self.contact = now
        except KafkaException:
            return self._ends is not None
        return True

    def _look(self) -> dict[tuple[str, int], int]:
        known = self._consumer.list_topics(timeout=1.0).topics
        ends = {}
        for topic in self._topics:
            if topic not in known or known[topic].error is not None or not known[topic].partitions:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            for partition in known[topic].partitions:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=1.0)
                ends[topic.removeprefix(self._prefix), partition] = high
                self.positions.setdefault((topic.removeprefix(self._prefix), partition), low)
        return ends

    def _assign(self, ends: Mapping[tuple[str, int], int]) -> None:
        for at in ends:
            if self.positions[at] <= self._starts.get(at, -1) <= ends[at]:
                self.positions[at] = self._starts[at]
        self._targets = {at: end for at, end in ends.items() if end > self.positions[at]}
        self._consumer.assign(
            [TopicPartition(self._prefix + topic, part, self.positions[topic, part]) for topic, part in ends]
        )

    def _settle(self) -> None:
        self._targets = {at: end for at, end in self._targets.items() if self.positions[at] < end}

    def _record(self, message: Any) -> Record:
        topic = message.topic().removeprefix(self._prefix)
        self.positions[topic, message.partition()] = message.offset() + 1
        stamp = message.timestamp()[1] / 1000
        return Record(topic, message.partition(), message.offset(), message.key(), message.value(), stamp)
