"""The replay buffer under crashes: server kills at random moments, append-only files cut at random bytes, long fuzz."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest
import redis

from streams.replay import UNIFORM, Draw, Offset, Offsets, Quota, ReplayConfig, TopicPartition, open_tables
from streams.replay.audit import audit
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import TrainTable
from streams.replay.erasure import erase, resume_erasures
from streams.replay.probe import Probe
from tests.replay_fuzz import KEY, Fuzzer, sample
from tests.servers import RedisServer, executables

TP = TopicPartition("examples", 0)
QUOTAS = {"*": Quota(1_500), "low": Quota(300, "lowest")}
CONFIG = ReplayConfig(train=TrainTable(capacity=2_000, quotas=QUOTAS, max_sampled=5, samples_per_insert=0))
KILLS = 8
CUTS = 60
REWIND = 500
NEW = 5_000


def opened(client: redis.Redis) -> ReplayBuffer:
    """The table of these tests, as the stream worker opens it."""
    return open_tables(client, CONFIG, KEY, "ep", configure=True).train


def owner(i: int) -> str:
    """The customer of sample i: every third is of a crowd of two hundred, whose erasure takes many scripts."""
    return f"k1:crowd{i // 600}" if i % 3 == 0 else f"k1:{i % 400}"


class Traffic:
    """Inserts, trainings, erasures and the audit beside them, and what was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.acknowledged = 0
        self.sent = 0
        self.redelivered = 0
        self.erased: set[str] = set()

    def run(self, buffer: ReplayBuffer, limit: int = 10**9) -> None:
        """Work until the server goes away, or for so many rounds."""
        now, probe = float(buffer.client.time()[0]), Probe(buffer)
        for _ in range(limit):
            found = probe.step()
            assert not found, found
            self.insert(buffer, self.acknowledged, self.rng.choice([1, 7, 32]), now)
            drawn = buffer.draw(UNIFORM, 16, seed=self.sent, lease_s=self.rng.choice([0, 5]))
            if isinstance(drawn, Draw):
                handles = [d.handle for d in drawn.records]
                buffer.update(handles, [self.rng.uniform(0.1, 9) for _ in handles], run=1, step=self.sent)
            if self.rng.random() < 0.05:
                customer = owner(self.rng.choice([self.sent // 3 * 3, self.rng.randrange(self.sent)]))
                if not erase([buffer], [buffer.customer_digest(customer)]).unreachable:
                    self.erased.add(customer)

    def insert(self, buffer: ReplayBuffer, first: int, n: int, now: float) -> int:
        """The next samples, one an offset; how many entered."""
        items = [
            sample(i, received_at=now, customer=owner(i), lane="low" if i % 5 == 0 else "plain")
            for i in range(first, first + n)
        ]
        self.sent = max(self.sent, first + n)
        report = buffer.insert(items, [Offset("examples", 0, i) for i in range(first, first + n)])
        self.acknowledged = max(self.acknowledged, first + n)
        return report.inserted


@pytest.fixture(params=sorted(executables()))
def executable(request: pytest.FixtureRequest) -> str:
    """Every server found."""
    return executables()[request.param]


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_replay_survives_kills(executable: str, fsync: str, tmp_path: Path) -> None:
    """After kill -9 at random moments nothing acknowledged is missing, nothing enters twice, every invariant holds."""
    traffic = Traffic(len(fsync))
    with RedisServer(executable, tmp_path, "--appendfsync", fsync) as server:
        for _ in range(KILLS):
            crash(server, traffic, always=fsync == "always")


def crash(server: RedisServer, traffic: Traffic, *, always: bool) -> None:
    """Kill the server under traffic, start it again, and check what it holds."""
    buffer = opened(server.start())
    killer = threading.Timer(traffic.rng.uniform(0.1, 0.6), server.kill)
    killer.start()
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        traffic.run(buffer)
    killer.join()
    client = server.start()
    buffer = opened(client)
    assert audit(buffer, full=True) == []
    resume_erasures([buffer])  # as the writer's housekeeping does within a second
    assert audit(buffer, full=True) == []
    assert client.scard("{rb:train}:er") == 0
    held = [
        customer for customer in traffic.erased if client.exists(b"{rb:train}:c:" + buffer.customer_digest(customer))
    ]
    assert always is False or held == [], "an erased customer is back"
    resume = Offsets(client, "ep", 1_000).resume_offset(TP)
    # A busy disk makes everysec hold writes back for up to two seconds: what it loses is read again from Kafka.
    assert always is False or resume >= traffic.acknowledged, "an acknowledged offset is missing"
    now = float(client.time()[0])
    # A batch that was applied and not acknowledged counts too: below the resume offset nothing may enter.
    for at in range(max(0, resume - REWIND), resume, 32):
        assert traffic.insert(buffer, at, min(32, resume - at), now) == 0
        traffic.redelivered += min(32, resume - at)
    for at in range(resume, traffic.acknowledged):
        traffic.insert(buffer, at, 1, now)
    assert Offsets(client, "ep", 1_000).resume_offset(TP) >= traffic.acknowledged
    traffic.acknowledged = max(resume, traffic.acknowledged)
    server.kill()


def test_replay_loads_any_cut_file(executable: str, tmp_path: Path) -> None:
    """An append-only file cut at any byte loads, written on and started again too, with every invariant."""
    cuts(executable, tmp_path, CUTS)


def cuts(executable: str, tmp_path: Path, count: int) -> None:
    """Cut a server's file at so many random bytes, load what is left, the later the more, write on, and load again."""
    (tmp_path / "full").mkdir()
    with RedisServer(executable, tmp_path / "full") as server:
        Traffic(3).run(opened(server.start()), limit=60)
        server.stop()
    (newest,) = [p for p in (tmp_path / "full").rglob("*.aof") if p.stat().st_size and "base" not in p.name]
    size = newest.stat().st_size
    rng = random.Random(5)
    before = -1
    for nth, cut in enumerate(sorted(rng.randrange(2_000, size) for _ in range(count))):
        folder = tmp_path / f"cut{nth}"
        shutil.copytree(tmp_path / "full", folder)
        with (folder / newest.relative_to(tmp_path / "full")).open("r+b") as file:
            file.truncate(cut)
        with RedisServer(executable, folder) as cut_server:
            client = cut_server.start()
            seq = int(client.hget("{rb:train}:n", "seq") or 0)
            if client.exists("{rb:train}:cfg"):
                assert audit(opened(client), full=True) == []
                written_on(cut_server, opened(client))
        assert seq >= before
        before = seq
        shutil.rmtree(folder)
    assert before > 0


def written_on(server: RedisServer, buffer: ReplayBuffer) -> None:
    """Some traffic, an orderly end and another start: what a cut left of a transaction must be out of the file."""
    traffic = Traffic(9)
    traffic.acknowledged = NEW
    traffic.run(buffer, limit=4)
    seq = buffer.client.hget("{rb:train}:n", "seq")
    server.stop()
    again = opened(server.start())
    assert audit(again, full=True) == []
    assert again.client.hget("{rb:train}:n", "seq") == seq


def test_replay_long_fuzz(executable: str, tmp_path: Path) -> None:
    """Random operations for some seconds, audited throughout."""
    with RedisServer(executable, tmp_path) as server:
        client = server.start()
        for seed in (101, 102):
            client.flushall()
            Fuzzer(client, seed).run(700)
