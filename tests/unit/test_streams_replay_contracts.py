"""What a table promises beside its operations: what a draw writes, what sweeps leave, what outlives what."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from streams.replay import UNIFORM, Draw, Offset, Quota, TableConfig, Wait, open_table
from streams.replay.audit import audit
from streams.replay.erasure import erase
from streams.replay.figures import stats
from streams.replay.rewrite import rewritten
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "{rb:train}"


def dumped(client: redis.Redis) -> dict[bytes, object]:
    """Every key with its value as the server would dump it; the counters by name."""
    keys: list[Any] = client.keys()
    return {key: client.hgetall(key) if key.endswith(b":n") else client.dump(key) for key in keys}


def test_contracts_draw_without_lease_writes_one_counter(redis_client: redis.Redis) -> None:
    """Drawing and fetching leave every key as it was, but for the count of drawn samples."""
    table = open_table(redis_client, "train", TableConfig(), KEY, configure=True)
    now = float(redis_client.time()[0])
    table.insert([sample(i, received_at=now, lane=f"l{i % 3}") for i in range(50)])
    before: dict[bytes, Any] = dumped(redis_client)
    drawn = table.draw(UNIFORM, 8, seed=1)
    assert isinstance(drawn, Draw)
    table.fetch(drawn)
    table.sample(UNIFORM, 8, seed=2)
    after: dict[bytes, Any] = dumped(redis_client)
    counters = b"{rb:train}:n"
    assert {name for name in after[counters] if after[counters][name] != before[counters].get(name)} == {b"smp"}
    assert {key for key in after if key != counters and after[key] != before[key]} == set()


def test_contracts_learner_waits_for_the_first_samples(redis_client: redis.Redis) -> None:
    """Below `min_size` a draw is a wait that says how many there are."""
    table = open_table(redis_client, "train", TableConfig(min_size=3), KEY, configure=True)
    now = float(redis_client.time()[0])
    table.insert([sample(i, received_at=now) for i in range(2)])
    assert table.draw(UNIFORM, 1, seed=1) == Wait("empty", 2)
    table.insert([sample(2, received_at=now)])
    assert isinstance(table.draw(UNIFORM, 1, seed=1), Draw)


def test_contracts_sweep_trims_the_queue_of_a_lane_that_only_expires(redis_client: redis.Redis) -> None:
    """A lane that nothing is evicted from never pops its queue; sweeps do, so that it stays short."""
    config = TableConfig(ttl_s=40, bucket_s=10, quotas={"*": Quota(1_000)})
    start = float(redis_client.time()[0]) + 1_000_000
    table = open_table(redis_client, "train", config, KEY, configure=True, test_clock=start)
    for round_ in range(4):
        now = start + round_ * 30
        redis_client.hset(f"{PREFIX}:cfg", "clock", now)
        table.insert([sample(round_ * 100 + i, received_at=now) for i in range(100)])
        table.sweep(10_000)
    trimmed = table.sweep(10_000).trimmed
    assert redis_client.llen(f"{PREFIX}:q:0") == stats(table).counters["n"] == 200
    assert trimmed == 0
    assert audit(table, full=True) == []


def test_contracts_tombstones_last_as_long_as_the_source(redis_client: redis.Redis) -> None:
    """Until then nothing of the customer enters, whatever its date, and each offset is consumed."""
    config = TableConfig(source_retention_s=100, ttl_s=10_000)
    start = float(redis_client.time()[0]) + 1_000_000
    table = open_table(redis_client, "train", config, KEY, "ep", configure=True, test_clock=start)
    erase([table], [table.customer_digest("k1:x")])
    for i, received_at in enumerate((start - 500, start, start + 50)):
        item = sample(i, received_at=received_at, customer="k1:x")
        assert table.insert([item], [Offset("examples", 0, i)]).letters == "t"
        assert table.insert([item], [Offset("examples", 0, i)]).letters == "d"
    redis_client.hset(f"{PREFIX}:cfg", "clock", start + 99)
    table.sweep()
    assert redis_client.zcard(f"{PREFIX}:tomb") == 1
    redis_client.hset(f"{PREFIX}:cfg", "clock", start + 101)
    table.sweep()
    assert redis_client.zcard(f"{PREFIX}:tomb") == 0
    assert table.insert([sample(9, received_at=start + 101, customer="k1:x")]).letters == "i"


def test_contracts_lane_numbers_are_never_given_again(redis_client: redis.Redis) -> None:
    """A lane that emptied keeps its number, also when the table is opened with other quotas."""
    table = open_table(redis_client, "train", TableConfig(), KEY, configure=True)
    now = float(redis_client.time()[0])
    table.insert([sample(i, received_at=now, lane=f"l{i}") for i in range(4)])
    before: dict[Any, Any] = redis_client.hgetall(f"{PREFIX}:lanes")
    assert table.erase_chunk(table.customer_digest("k1:c"))[1] == 0
    quotas = {"*": Quota(30, "reservoir"), "new": Quota(5)}
    table = open_table(redis_client, "train", TableConfig(quotas=quotas), KEY, configure=True)
    table.insert([sample(10 + i, received_at=now, lane=lane) for i, lane in enumerate(("new", "l2", "other"))])
    after: dict[Any, Any] = redis_client.hgetall(f"{PREFIX}:lanes")
    assert {lane: after[lane] for lane in before} == before
    assert len(set(after.values())) == len(after) == 6


def test_contracts_clock_of_a_test_is_for_new_tables(redis_client: redis.Redis) -> None:
    """A table that was made without one goes by the server's clock for ever."""
    open_table(redis_client, "train", TableConfig(), KEY, configure=True)
    open_table(redis_client, "train", TableConfig(), KEY, configure=True, test_clock=1.0)
    assert redis_client.hget(f"{PREFIX}:cfg", "clock") is None


@pytest.mark.parametrize("name", sorted(executables()))
def test_contracts_rewrite_begins_after_the_call(name: str, tmp_path: Path) -> None:
    """One that runs already may have missed the deletion: it is waited for, and another begun; a failed one shows."""
    with RedisServer(executables()[name], tmp_path) as server:
        client = server.start()
        client.set("key", "value")
        client.bgrewriteaof()
        assert rewritten(client, threading.Event().wait)
        shutil.rmtree(tmp_path)
        try:
            assert not rewritten(client, threading.Event().wait)
        except redis.ResponseError as error:
            assert "in progress" not in str(error)  # noqa: PT017 - Redis 7 refuses, 6.2 begins and fails
        tmp_path.mkdir()


def test_contracts_package_loads_neither_torch_nor_prometheus() -> None:
    """The buffer imports streams and redis; figures are exported, and models trained, elsewhere."""
    code = (
        "import sys, pkgutil, importlib, streams.replay\n"
        "for m in pkgutil.iter_modules(streams.replay.__path__): importlib.import_module('streams.replay.' + m.name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in {'torch', 'prometheus_client', 'services', 'learner'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
