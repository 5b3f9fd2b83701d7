"""Which Kafka offsets have had their effect, and where a reader resumes after Redis or Kafka went back in time.

One bitmap per source partition, written by the script of the effect itself (`SCRIPT`, read the bit first and set it
last), so that a rolled-back Redis and its data go back together. Scripts that use it are `SCRIPT` + their own text and
call `offset_seen(epoch, topic, part, off)` and `offset_mark(epoch, topic, part, off, ttl)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import NamedTuple

import redis

_FILES = files("streams.replay")

SCRIPT = _FILES.joinpath("offsets.lua").read_text()
"""Lua that a script prepends to read and set offset bits."""

_MARK = SCRIPT + _FILES.joinpath("offsets_mark.lua").read_text()
_RESUME = SCRIPT + _FILES.joinpath("offsets_resume.lua").read_text()

_FLOORS = "{rb:src}:of"
_BEGIN = """
local floor = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '-1')
if tonumber(ARGV[2]) > floor then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
"""

_RANGES_PER_CALL = 64
"""Ranges marked by one script call; with `_SPAN` it bounds how long others wait."""

_SPAN = 4 * 65_536
"""Offsets of a range marked by one script call: 4 chunks, 32 KiB."""


class TopicPartition(NamedTuple):
    """A partition of a Kafka topic."""

    topic: str
    partition: int


class Offset(NamedTuple):
    """The place of one Kafka record."""

    topic: str
    partition: int
    offset: int


class Offsets:
    """The offset bitmaps of one broker epoch; a chunk lives `retention_s` seconds after its last mark."""

    def __init__(self, client: redis.Redis, epoch: str, retention_s: int) -> None:
        self.epoch = epoch
        self.retention_s = retention_s
        self._mark = client.register_script(_MARK)
        self._resume = client.register_script(_RESUME)
        self._begin = client.register_script(_BEGIN)

    def begin(self, tp: TopicPartition, first_offset: int) -> None:
        """Raise a partition's floor: records below `first_offset` (the log's start) can never arrive any more."""
        self._begin(keys=[_FLOORS], args=[f"{self.epoch}:{tp.topic}:{tp.partition}", first_offset])

    def mark(self, tp: TopicPartition, offsets: Iterable[int | range]) -> None:
        """Mark offsets that have no effect of their own: filtered records, and those that a jump shows do not exist."""
        pieces = list(_pieces(offsets))
        for at in range(0, len(pieces), _RANGES_PER_CALL):
            pairs = [bound for piece in pieces[at : at + _RANGES_PER_CALL] for bound in (piece[0], piece[-1])]
            self._mark(args=[self.epoch, tp.topic, tp.partition, self.retention_s, *pairs])

    def resume_offset(self, tp: TopicPartition) -> int:
        """First offset at or above the floor without its effect: start at the lower of this and the committed one."""
        return int(self._resume(args=[self.epoch, tp.topic, tp.partition]))


def _pieces(offsets: Iterable[int | range]) -> Iterator[range]:
    """Non-empty ranges of at most `_SPAN` offsets; neighbouring offsets become one range."""
    first = last = None
    for item in offsets:
        piece = item if isinstance(item, range) else range(item, item + 1)
        for at in range(0, len(piece), _SPAN):
            part = piece[at : at + _SPAN]
            if last is not None and first is not None and part[0] == last + 1 and part[-1] - first < _SPAN:
                last = part[-1]
                continue
            if first is not None and last is not None:
                yield range(first, last + 1)
            first, last = part[0], part[-1]
    if first is not None and last is not None:
        yield range(first, last + 1)
