"""How far a producer may run ahead of its reader.

The embedded broker keeps 5 MB a partition and deletes the oldest records unread, so whoever produces into it waits
for the offsets that the reader's group has committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

AHEAD_BYTES = 2_000_000
AHEAD_RECORDS = 20_000
"""Per partition; 5 MB and 100,000 records are what the embedded broker keeps."""

REFRESH_S = 0.2
"""How often the committed offsets are asked for, seconds."""

Committed = Callable[[], Mapping[int, int]]
"""Partition -> committed offset of the reader; partitions that it has not committed yet are missing or 0."""


class Pace:
    """Counts what is sent, delivered and read, and says when there is room for more. For one thread."""

    def __init__(
        self,
        committed: Committed,
        clock: Callable[[], float],
        *,
        ahead_bytes: int = AHEAD_BYTES,
        ahead_records: int = AHEAD_RECORDS,
    ) -> None:
        self._committed = committed
        self._clock = clock
        self._limits = (ahead_bytes, ahead_records)
        self._flying = [0, 0]
        self._unread: dict[int, deque[tuple[int, int]]] = {}
        self._bytes: dict[int, int] = {}
        self._asked = -REFRESH_S

    def room(self, size: int) -> bool:
        """Whether a record of this many bytes may be sent now, whichever partition it goes to."""
        if self._fits(size) and self._clock() - self._asked < REFRESH_S:
            return True
        if self._clock() - self._asked >= REFRESH_S:
            self._refresh()
        return self._fits(size)

    def sent(self, size: int) -> None:
        """A record is on its way."""
        self._flying[0] += size
        self._flying[1] += 1

    def delivered(self, partition: int, offset: int, size: int) -> None:
        """A record lies in its partition."""
        self.failed(size)
        self._unread.setdefault(partition, deque()).append((offset, size))
        self._bytes[partition] = self._bytes.get(partition, 0) + size

    def failed(self, size: int) -> None:
        """A record is no longer on its way."""
        self._flying[0] -= size
        self._flying[1] -= 1

    def ahead(self) -> tuple[int, int]:
        """Bytes and records of ours that the reader of the fullest partition has before it."""
        records = max((len(queue) for queue in self._unread.values()), default=0)
        return max(self._bytes.values(), default=0), records

    def _fits(self, size: int) -> bool:
        # Whatever is on its way may all go to the fullest partition.
        most_bytes, most_records = self.ahead()
        idle = most_records + self._flying[1] == 0
        fits = most_bytes + self._flying[0] + size <= self._limits[0]
        return idle or (fits and most_records + self._flying[1] < self._limits[1])

    def _refresh(self) -> None:
        self._asked = self._clock()
        for partition, offset in self._committed().items():
            queue = self._unread.get(partition)
            while queue and queue[0][0] < offset:
                self._bytes[partition] -= queue.popleft()[1]


class Backlog:
    """How far a reader is behind all producers together; for those that cannot wait but must refuse.

    Bytes are not known of others' records, so half of the records is where it stops.
    """

    def __init__(self, base: Mapping[str, Any], group: str, topic: str, *, most: int = AHEAD_RECORDS // 2) -> None:
        self._offsets = ReaderOffsets(base, group, topic)
        self._most = most

    def full(self) -> bool:
        """Whether some partition holds more unread records than allowed; blocks for the broker's answer."""
        return any(unread > self._most for unread in self._offsets.unread().values())

    def close(self) -> None:
        """Give the connections back."""
        self._offsets.close()


class ReaderOffsets:
    """The committed offsets of another group, read without joining it. Close it after use."""

    def __init__(self, base: Mapping[str, Any], group: str, topic: str, timeout_s: float = 1.0) -> None:
        self._consumer = Consumer({**base, "group.id": group, "enable.auto.commit": False})
        self._topic = topic
        self._timeout_s = timeout_s

    def __call__(self) -> Mapping[int, int]:
        """Partition -> committed offset; empty while the broker does not answer, so nothing counts as read."""
        try:
            partitions = self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics[self._topic].partitions
            asked = [TopicPartition(self._topic, partition) for partition in partitions]
            found = self._consumer.committed(asked, timeout=self._timeout_s)
        except KafkaException:
            return {}
        return {part.partition: part.offset for part in found if part.offset >= 0}

    def unread(self) -> Mapping[int, int]:
        """Partition -> records behind the committed offset; empty while the broker does not answer."""
        committed = self()
        found = {}
        try:
            for partition in (
                self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics[self._topic].partitions
            ):
                place = TopicPartition(self._topic, partition)
                _, high = self._consumer.get_watermark_offsets(place, timeout=self._timeout_s)
                found[partition] = high - committed.get(partition, 0)
        except KafkaException:
            return {}
        return found

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()
