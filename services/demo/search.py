"""Looks for planted personal data in everything that is stored or shown downstream of the scrubber."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray

from streams.events import encode_record
from streams.replay.codec import PoisonedPayload, decode_payload

_RUN = re.compile(rb"\d(?:[ ().+/_-]{0,2}\d){5,}")
_LEAST_DIGITS = 7
"""Shorter numbers occur by chance."""
_GROUPS = 20
"""Most groups of digits of one number: a card number in single digits has 16."""


_WORD = 8
_PREFIX = 6
"""Bytes of a value by which all values are looked for at once; only those whose beginning occurs are searched whole."""

_TABLE_BITS = 20
_FEW = 16
"""Values that are faster looked for one by one."""
_AT_ONCE = 500
"""Redis keys of one round trip."""

WHOLE: Mapping[str, tuple[str, ...]] = {
    "string": ("GET",), "hash": ("HGETALL",), "set": ("SMEMBERS",), "zset": ("ZRANGE", "0", "-1"),
    "list": ("LRANGE", "0", "-1"), "stream": ("XRANGE", "-", "+"),
}  # fmt: skip
"""Type of a key -> the command that reads all of it, and what follows the key."""
_PIECE = 1 << 22
_SILENCES = 10
"""Seconds without a record after which the broker is taken to keep some back."""


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
        likely: Collection[bytes] = self._texts
        if len(folded) > _PIECE and len(self._texts) > _FEW:
            near = _beginnings(folded, {needle[:_PREFIX] for needle in self._texts})
            likely = [needle for needle in self._texts if needle[:_PREFIX] in near]
        found = {self._texts[needle] for needle in likely if needle in folded}
        if self._digits:
            numbers = {number for run in set(_RUN.findall(haystack)) for number in _numbers(run)}
            found |= {value for needle, value in self._digits.items() if needle in numbers}
        return found


def _numbers(run: bytes) -> Iterator[bytes]:
    """What a run of grouped digits can be read as: any neighbouring groups, but no part of one (a time holds many)."""
    groups = re.findall(rb"\d+", run)
    for start in range(len(groups)):
        for stop in range(start + 1, min(start + _GROUPS, len(groups)) + 1):
            yield b"".join(groups[start:stop])


def _beginnings(haystack: bytes, wanted: Collection[bytes]) -> set[bytes]:
    """Which of these beginnings occur, all looked for in one pass; shorter ones are taken to occur."""
    keys = {int.from_bytes(start, "little"): start for start in wanted if len(start) == _PREFIX}
    table = np.zeros(1 << _TABLE_BITS, dtype=bool)
    table[_hashed(np.fromiter(keys, dtype=np.uint64, count=len(keys)))] = True
    found = {start for start in wanted if len(start) < _PREFIX}
    padded = haystack + bytes(_WORD)
    for at in range(0, len(haystack), _PIECE):
        size = min(_PIECE, len(haystack) - at)
        # every offset is read as a word of eight bytes, of which the first ones count
        words = np.ndarray((size,), np.uint64, padded, offset=at, strides=(1,)) & np.uint64((1 << 8 * _PREFIX) - 1)
        likely = np.unique(words[table[_hashed(words)]])
        found |= {keys[key] for key in map(int, likely) if key in keys}
    return found


def _hashed(windows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits spread by Fibonacci hashing."""
    return (windows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _TABLE_BITS)


def present(needles: Needles, places: Sequence[tuple[str, bytes]]) -> set[str]:
    """The planted values that stand anywhere, in one pass over everything."""
    return needles.within(b"\n".join(content for _, content in places))


def search(needles: Needles, places: Sequence[tuple[str, bytes]]) -> list[Found]:
    """Every planted value found, once a place; what is nowhere is not looked for in each."""
    return located(present(needles, places), places)


def located(values: Collection[str], places: Sequence[tuple[str, bytes]]) -> list[Found]:
    """Where values that `present` gave stand, once a place."""
    if not values:
        return []
    fewer = Needles(values)
    return [Found(value, place) for place, content in places for value in sorted(fewer.within(content))]


def redis_contents(client: Any) -> Iterator[tuple[str, bytes]]:
    """Every value of every key, of every type, payloads unpacked. `client` is a redis.Redis that answers bytes."""
    keys = list(client.scan_iter(count=1000))
    for at in range(0, len(keys), _AT_ONCE):
        some = keys[at : at + _AT_ONCE]
        kinds = [kind.decode() for kind in _pipelined(client, [("TYPE", key) for key in some])]
        there = [(key, kind) for key, kind in zip(some, kinds, strict=True) if kind != "none"]
        contents = _pipelined(client, [(WHOLE[kind][0], key, *WHOLE[kind][1:]) for key, kind in there])
        for (key, _), content in zip(there, contents, strict=True):
            name = key.decode(errors="replace")
            yield name, key
            for part in _parts(content):
                yield name, unpacked(part)


def _pipelined(client: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Answers of many commands in one round trip."""
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    answers: list[Any] = pipe.execute()
    return answers


def _parts(answer: Any) -> Iterator[bytes]:
    """Every string of an answer, however nested."""
    if isinstance(answer, bytes):
        yield answer
    elif isinstance(answer, Mapping):
        for pair in answer.items():
            yield from _parts(pair)
    elif isinstance(answer, Iterable) and not isinstance(answer, str):
        for part in answer:
            yield from _parts(part)


def unpacked(value: bytes) -> bytes:
    """A stored value, and behind it the text of a replay payload that is one."""
    with suppress(PoisonedPayload, msgspec.DecodeError):
        return value + b"\n" + encode_record(decode_payload(value, None, b""))
    return value


def topic_contents(kafka: Mapping[str, Any], topics: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Key, headers and value of every record that these topics hold by now. Raises TimeoutError."""
    consumer = Consumer({"group.id": "driftline-search", "enable.auto.commit": False, **kafka})
    try:
        ends = _ends(consumer, topics)
        consumer.assign([TopicPartition(topic, number, low) for (topic, number), (low, _) in ends.items()])
        unread = {at for at, (low, high) in ends.items() if low < high}
        silent = 0
        while unread and silent < _SILENCES:
            messages = consumer.consume(1000, 1.0)
            silent = 0 if messages else silent + 1
            for message in messages:
                at = (str(message.topic()), int(message.partition() or 0))
                if message.error() is not None or at not in ends:
                    continue
                yield at[0], _whole(message)
                if (message.offset() or 0) + 1 >= ends[at][1]:
                    unread.discard(at)
        if unread:
            raise TimeoutError(f"the broker kept back {', '.join(sorted(topic for topic, _ in unread))}")
    finally:
        consumer.close()


def _ends(consumer: Consumer, topics: Sequence[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """First and next offset of every partition."""
    found = {}
    for topic in topics:
        for number in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=5)
            found[topic, number] = (low, high)
    return found


def _whole(message: Any) -> bytes:
    headers = message.headers() or []
    parts = [message.key(), *(value for _, value in headers), message.value()]
    return b"\n".join(part if isinstance(part, bytes) else b"" for part in parts)


def file_contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder.parent)), path.read_bytes()
