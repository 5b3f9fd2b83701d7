"""Records on their way to Kafka: on disk before the answer goes out, gone after their delivery report.

A segment is a file of JSON lines. Its records are handed to the producer at once; the file goes when all of them
were delivered. What was not (broker away, process killed) is sent again from the file: readers drop repeats by id.
Files survive a kill of the process, not a power cut: the broker's acknowledgment is what counts in the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

SEGMENT_BYTES = 1_048_576
"""A segment is closed at this size, so that it can go while traffic never pauses."""

AGAIN_S = 2.0
"""Pause before a segment with undelivered records is sent again, seconds."""


class _Line(msgspec.Struct, frozen=True):
    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes]


@dataclass
class _Segment:
    path: Path
    written: int = 0
    delivered: int = 0
    failed: int = 0
    size: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    again_at: float = 0.0


class Spool:
    """A folder of segments before one producer. `put` and `poll` may be called from different threads."""

    def __init__(
        self, folder: Path, producer: Callable[[], Producer], clock: Callable[[], float], *, prefix: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._make = producer
        self._producer = producer()
        self._clock = clock
        self._prefix = prefix
        self._lock = threading.RLock()
        self._number = 0
        self._closed: list[_Segment] = []
        for path in sorted(folder.glob("*.jsonl")):
            self._number = int(path.stem)
            self._closed.append(_recovered(path))
        self._current, self._file = self._open()

    def put(self, topic: str, key: str, value: bytes, headers: Mapping[str, bytes] | None = None) -> None:
        """Keep a record and hand it to the producer."""
        line = _Line(topic, key.encode(), value, dict(headers or {}))
        raw = msgspec.json.encode(line) + b"\n"
        with self._lock:
            segment = self._current
            os.write(self._file, raw)
            segment.written += 1
            segment.size += len(raw)
            segment.topics[topic] = segment.topics.get(topic, 0) + 1
            self._produce(segment, line)
            if segment.size >= SEGMENT_BYTES:
                self._rotate()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take delivery reports, drop what was delivered, send again what was not."""
        self._producer.poll(timeout_s)
        with self._lock:
            whole = self._current.written and self._current.delivered == self._current.written
            if whole or self._current.failed:
                self._rotate()
            for segment in list(self._closed):
                self._tend(segment)

    def pending(self) -> dict[str, int]:
        """Records of each topic in files that still stand."""
        with self._lock:
            found: dict[str, int] = {}
            for segment in [*self._closed, self._current]:
                if segment.delivered < segment.written:
                    for topic, count in segment.topics.items():
                        found[topic] = found.get(topic, 0) + count
            return found

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait for delivery reports; what is left is sent at the next start."""
        self._producer.flush(timeout_s)
        with self._lock:
            os.close(self._file)
            for segment in [*self._closed, self._current]:
                if segment.delivered == segment.written:
                    segment.path.unlink(missing_ok=True)

    def _open(self) -> tuple[_Segment, int]:
        self._number += 1
        path = self._folder / f"{self._number:012d}.jsonl"
        return _Segment(path), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def _rotate(self) -> None:
        os.close(self._file)
        self._closed.append(self._current)
        self._current, self._file = self._open()

    def _tend(self, segment: _Segment) -> None:
        if segment.delivered == segment.written:
            segment.path.unlink(missing_ok=True)
            self._closed.remove(segment)
            return
        waiting = segment.delivered + segment.failed < segment.written
        if waiting or self._clock() < segment.again_at:
            return
        segment.again_at = self._clock() + AGAIN_S
        segment.delivered = segment.failed = 0
        for line in _lines(segment.path):
            self._produce(segment, line)

    def _produce(self, segment: _Segment, line: _Line) -> None:
        def report(error: Any, _message: object) -> None:
            with self._lock:
                if error is None:
                    segment.delivered += 1
                    return
                segment.failed += 1
                if error.fatal():
                    self._producer = self._make()

        try:
            headers: dict[str, str | bytes | None] = {**line.headers}
            self._producer.produce(
                self._prefix + line.topic, key=line.key, value=line.value, headers=headers, on_delivery=report
            )
        except (BufferError, KafkaException):
            segment.failed += 1


def _recovered(path: Path) -> _Segment:
    segment = _Segment(path)
    for line in _lines(path):
        segment.written += 1
        segment.failed += 1
        segment.topics[line.topic] = segment.topics.get(line.topic, 0) + 1
    return segment


def _lines(path: Path) -> list[_Line]:
    """The whole lines of a segment; a torn last one was never acted on."""
    found = []
    for raw in path.read_bytes().split(b"\n")[:-1]:
        try:
            found.append(msgspec.json.decode(raw, type=_Line))
        except msgspec.DecodeError:
            continue
    return found
