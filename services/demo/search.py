"""Looks for planted personal data in everything that is stored or shown downstream of the scrubber."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from streams.events import encode_record
from streams.replay.codec import PoisonedPayload, decode_payload

_RUN = re.compile(rb"\d(?:[ ().+/_-]{0,2}\d){5,}")
_LEAST_DIGITS = 7
"""Shorter numbers occur by chance."""


@dataclass(frozen=True)
class Found:
    """A planted value that was seen where it must not be."""

    value: str
    place: str


class Needles:
    """Values to look for: as text without case, and as bare digits where they are long enough."""

    def __init__(self, values: Iterable[str]) -> None:
        self._texts: dict[bytes, str] = {}
        self._digits: dict[bytes, str] = {}
        for value in values:
            self._texts[value.casefold().encode()] = value
            digits = re.sub(r"\D", "", value)
            # a value that is mostly letters (a password, an address) is no number
            if len(digits) >= _LEAST_DIGITS and len(digits) * 2 >= len(value):
                self._digits[digits.encode()] = value

    def within(self, haystack: bytes) -> set[str]:
        """The values that these bytes hold."""
        folded = haystack.decode(errors="replace").casefold().encode()
        found = {value for needle, value in self._texts.items() if needle in folded}
        if self._digits:
            runs = {re.sub(rb"\D", b"", run) for run in _RUN.findall(haystack)}
            found |= {value for needle, value in self._digits.items() if any(needle in run for run in runs)}
        return found


def search(needles: Needles, places: Sequence[tuple[str, bytes]]) -> list[Found]:
    """Every planted value found, once a place: all places at once first, each by itself only for what was found."""
    everything = needles.within(b"\n".join(content for _, content in places))
    if not everything:
        return []
    fewer = Needles(everything)
    return [Found(value, place) for place, content in places for value in sorted(fewer.within(content))]


def redis_contents(client: Any) -> Iterator[tuple[str, bytes]]:
    """Every value of every key, of every type, payloads unpacked. `client` is a redis.Redis that answers bytes."""
    for key in client.scan_iter(count=1000):
        name = key.decode(errors="replace")
        kind = client.type(key).decode()
        yield name, key
        for part in _parts(client, key, kind):
            yield name, unpacked(part)


def _parts(client: Any, key: bytes, kind: str) -> Iterator[bytes]:
    if kind == "string":
        yield client.get(key) or b""
    elif kind == "hash":
        for name, value in client.hscan_iter(key, count=500):
            yield name
            yield value
    elif kind == "set":
        yield from client.sscan_iter(key, count=500)
    elif kind == "zset":
        yield from (member for member, _ in client.zscan_iter(key, count=500))
    elif kind == "list":
        yield from client.lrange(key, 0, -1)
    elif kind == "stream":
        for _, fields in client.xrange(key):
            yield from fields.values()


def unpacked(value: bytes) -> bytes:
    """A stored value, and behind it the text of a replay payload that is one."""
    with suppress(PoisonedPayload, msgspec.DecodeError):
        return value + b"\n" + encode_record(decode_payload(value, None, b""))
    return value


def topic_contents(kafka: Mapping[str, Any], topics: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Key, headers and value of every record of these topics."""
    consumer = Consumer(
        {"group.id": "driftline-search", "enable.auto.commit": False, "enable.partition.eof": True, **kafka}
    )
    try:
        for topic in topics:
            yield from _topic(consumer, topic)
    finally:
        consumer.close()


def _topic(consumer: Consumer, topic: str) -> Iterator[tuple[str, bytes]]:
    for number in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
        partition = TopicPartition(topic, number)
        low, high = consumer.get_watermark_offsets(partition, timeout=5)
        consumer.assign([TopicPartition(topic, number, low)])
        at = low
        while at < high:
            message = consumer.poll(5)
            if message is None or message.error() is not None:
                break
            at = (message.offset() or 0) + 1
            headers: Any = message.headers() or []
            parts = [message.key(), *(value for _, value in headers), message.value()]
            yield topic, b"\n".join(part if isinstance(part, bytes) else b"" for part in parts)


def file_contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder.parent)), path.read_bytes()
