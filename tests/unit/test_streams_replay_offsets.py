"""Offset bitmaps against a set of integers, on every server found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.replay.offsets import SCRIPT, Offsets, TopicPartition
from tests.servers import RedisServer, executables

TP = TopicPartition("chats.clean", 3)
DAY = 86_400


@pytest.fixture(scope="module", params=sorted(executables()))
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of each server found."""
    folder: Path = tmp_path_factory.mktemp("redis")
    server = RedisServer(executables()[request.param], folder)
    connected = server.start()
    yield connected
    connected.close()
    server.kill()


@pytest.fixture
def offsets(client: redis.Redis) -> Offsets:
    """Empty bitmaps."""
    client.flushall()
    return Offsets(client, "epoch", DAY)


def first_missing(marked: set[int], floor: int) -> int:
    """The model: what `resume_offset` must answer."""
    while floor in marked:
        floor += 1
    return floor


_places = st.one_of(st.integers(0, 40), st.integers(65_500, 65_560), st.integers(131_060, 131_090))
_ranges = st.builds(lambda first, size: range(first, first + size), _places, st.integers(0, 70_000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_places, marks=st.lists(st.one_of(_places, _ranges), max_size=8))
def test_offsets_resume_like_a_set(offsets: Offsets, client: redis.Redis, first: int, marks: list[int | range]) -> None:
    """The resume offset is the first unmarked one at or above the floor, and every bit reads as it was written."""
    client.flushall()
    offsets.begin(TP, first)
    offsets.mark(TP, marks)
    marked = {o for item in marks for o in (item if isinstance(item, range) else [item])}
    assert offsets.resume_offset(TP) == first_missing(marked, first)
    seen = client.register_script(SCRIPT + "return offset_seen(ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))")
    for probe in {0, 1, 7, 8, 65_535, 65_536, first} | {item if isinstance(item, int) else item.stop for item in marks}:
        assert bool(seen(args=["epoch", *TP, probe])) == (probe in marked)


def test_offsets_full_chunk_then_next(offsets: Offsets) -> None:
    """A full chunk leads on into the next one, and a missing chunk does not look like offset 0 of it."""
    offsets.mark(TP, [range(65_536)])
    assert offsets.resume_offset(TP) == 65_536
    offsets.mark(TP, [65_536, 65_538])
    assert offsets.resume_offset(TP) == 65_537


def test_offsets_survive_expired_chunks(offsets: Offsets, client: redis.Redis) -> None:
    """Once the floor has moved, a chunk that expired does not send the reader back."""
    offsets.mark(TP, [range(70_000)])
    assert offsets.resume_offset(TP) == 70_000
    assert client.delete("{rb:src}:o:epoch:chats.clean:3:0", "{rb:src}:o:epoch:chats.clean:3:1") == 2
    assert offsets.resume_offset(TP) == 70_000


def test_offsets_floor_only_rises(offsets: Offsets) -> None:
    """Beginning again below the floor changes nothing; above it, it wins."""
    offsets.begin(TP, 100)
    offsets.begin(TP, 50)
    assert offsets.resume_offset(TP) == 100
    offsets.begin(TP, 120)
    assert offsets.resume_offset(TP) == 120


def test_offsets_epochs_and_partitions_are_apart(offsets: Offsets, client: redis.Redis) -> None:
    """A broker that begins again at offset 0 has an epoch, hence bitmaps, of its own."""
    offsets.mark(TP, [0])
    assert Offsets(client, "other", DAY).resume_offset(TP) == 0
    assert offsets.resume_offset(TopicPartition("chats.clean", 4)) == 0


def test_offsets_chunks_expire_after_retention(offsets: Offsets, client: redis.Redis) -> None:
    """A chunk lives for the source's retention after its last mark."""
    offsets.mark(TP, [5, range(9, 40)])
    assert DAY - 5 < client.ttl("{rb:src}:o:epoch:chats.clean:3:0") <= DAY


def test_offsets_reload_after_script_flush(offsets: Offsets, client: redis.Redis) -> None:
    """SCRIPT FLUSH between calls is not seen by the caller."""
    offsets.mark(TP, [0])
    client.script_flush()
    assert offsets.resume_offset(TP) == 1


def test_offsets_beyond_32_bits(offsets: Offsets) -> None:
    """Offsets above 2^32 are exact."""
    big = 2**40 + 3
    offsets.begin(TP, big)
    offsets.mark(TP, [big, big + 1])
    assert offsets.resume_offset(TP) == big + 2
