"""The stream worker on Apache Kafka: killed, rebalanced, without broker, without Redis; the ledger stays exact."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from services.local.supervisor import free_port
from services.stream_lag import lag
from streams.admin import TopicsDiffer, broker_epoch, ensure_topics
from streams.config import StreamConfig
from streams.topics import CHATS_CLEAN, CHATS_RAW, TOPICS
from tests.kafka_broker import KafkaBroker
from tests.servers import RedisServer, executables
from tests.stream_workers import Workers, interleaved, outcomes, produce, raw_chats, settled, tended, until

pytestmark = pytest.mark.kafka
SEED = 20_240_607


@pytest.fixture(scope="module")
def kafka(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of this module's own, since its tests kill it."""
    broker = KafkaBroker(kafka_libs, tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, since it may be killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    found = RedisServer(next(reversed(executables().values())), folder)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def workers(kafka: KafkaBroker, server: RedisServer, tmp_path: Path) -> Iterator[Workers]:
    """Workers with topics of their own."""
    prefix = f"t{random.Random().randrange(10**6)}."
    made = Workers(tmp_path, {"bootstrap": kafka.bootstrap, "prefix": prefix}, f"redis://127.0.0.1:{server.port}/0")
    yield made
    made.close()


def assert_exact(workers: Workers, records: list[tuple[bytes, bytes]], timeout_s: float) -> None:
    """Every event accepted or rejected with a reason, each effective once."""
    found = settled(workers, records, timeout_s)
    counts = outcomes(found)
    assert counts["accepted"] + counts["rejected"] == len(found), (counts, workers.log()[-3000:])
    assert counts["accepted"] > 0.8 * len(found)
    assert {entry.effects for entry in found.values() if entry is not None} == {1}


def test_streams_kafka_crash_loop(workers: Workers, kafka: KafkaBroker) -> None:
    """Two workers, random SIGKILLs, redeliveries, a broker restart: ledger exact, each effect once, all committed."""
    rng = random.Random(SEED)
    records = interleaved(raw_chats(150, seed=4), seed=4, repeats=0.05)
    workers.start()
    stop = threading.Event()
    thread = tended(workers, 2, stop)
    strikes = iter(["worker", "worker", "broker", "worker"])

    def strike() -> None:
        ready = workers.ready(30)
        what = next(strikes, "")
        if what == "broker":
            kafka.kill()
            kafka.start()
        elif what == "worker":
            rng.choice(ready).kill()
            workers.killed += 1
        until(lambda: False, rng.uniform(0.1, 2.0))

    try:
        produce(
            kafka.bootstrap,
            records,
            every=len(records) // 5,
            pause=strike,
            prefix=str(workers.values["kafka"]["prefix"]),
        )
        assert_exact(workers, records, 120)
        assert workers.killed >= 3
        assert until(lambda: not any(lag(workers.settings, [CHATS_RAW, CHATS_CLEAN]).values()), 20, 1.0)
    finally:
        stop.set()
        thread.join(30)
    assert [workers.stop(p) for p in list(workers.running) if p.poll() is None and workers.is_ready(p)]


def test_streams_kafka_redis_away(workers: Workers, kafka: KafkaBroker, server: RedisServer) -> None:
    """Redis stopped for seconds, then killed: consumption pauses, offsets wait, and the ledger is exact."""
    records = interleaved(raw_chats(60, seed=5), seed=5)
    workers.start()
    stop = threading.Event()
    thread = tended(workers, 1, stop)
    strikes = iter(["stopped", "killed"])

    def strike() -> None:
        what = next(strikes, "")
        if what == "stopped":
            subprocess.run(["kill", f"-{int(signal.SIGSTOP)}", str(server.pid)], check=True)
            until(lambda: False, 4)
            subprocess.run(["kill", f"-{int(signal.SIGCONT)}", str(server.pid)], check=True)
        elif what == "killed":
            server.kill()
            until(lambda: False, 2)
            server.start()

    try:
        produce(
            kafka.bootstrap,
            records,
            every=len(records) // 3,
            pause=strike,
            prefix=str(workers.values["kafka"]["prefix"]),
        )
        assert_exact(workers, records, 90)
    finally:
        stop.set()
        thread.join(30)


def test_streams_kafka_static_members_come_back_without_a_rebalance(workers: Workers, kafka: KafkaBroker) -> None:
    """A named worker that is killed and restarted gets its partitions again; the other one is not disturbed."""
    records = interleaved(raw_chats(20, seed=6), seed=6)
    prefix = str(workers.values["kafka"]["prefix"])
    stream = {**workers.values["stream"], "session_timeout_s": 60}  # a slow machine may need long for the restart

    def member(name: str) -> subprocess.Popen[bytes]:
        workers.values["stream"] = {**stream, "instance": name}
        return workers.start()

    group = f"{prefix}{StreamConfig().group}"

    def owned() -> dict[str, int]:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        described = admin.describe_consumer_groups([group])[group].result(10)
        members = described.members if described.state.name == "STABLE" else []
        return {m.group_instance_id: len(m.assignment.topic_partitions) for m in members}

    def rebalances() -> float:
        found = [line for line in workers.metrics(stays).splitlines() if line.startswith("driftline_rebalances_total ")]
        return float(found[0].split()[1])

    stays, dies = member("a"), member("b")
    assert until(lambda: sorted(owned()) == ["a", "b"] and min(owned().values()) > 0, 60, 0.5)
    before, share = rebalances(), owned()
    workers.kill(dies)
    member("b")
    produce(kafka.bootstrap, records, prefix=prefix)
    assert_exact(workers, records, 90)
    assert (rebalances(), owned()) == (before, share)
    assert not any(name in workers.log() for name in ("came without", "follow the")), "chat text in a log"


def test_streams_kafka_topics_are_made_and_checked(kafka: KafkaBroker) -> None:
    """Missing topics come from the table; one with the wrong clean-up policy is refused by name."""
    config = StreamConfig(bootstrap=kafka.bootstrap, prefix="made.")
    assert ensure_topics(config) == []
    known = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    for topic in TOPICS:
        assert len(known[config.topic(topic.name)].partitions) == topic.partitions
    assert ensure_topics(config) == []
    assert broker_epoch(config, [CHATS_RAW]) == broker_epoch(config, [CHATS_RAW])
    wrong = StreamConfig(bootstrap=kafka.bootstrap, prefix="wrong.")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic("wrong.adapters.nodes", 1, 1)])["wrong.adapters.nodes"].result(20)
    until(lambda: "wrong.adapters.nodes" in admin.list_topics(timeout=5).topics, 10)
    with pytest.raises(TopicsDiffer, match=r"wrong\.adapters\.nodes: cleanup\.policy"):
        ensure_topics(wrong)
