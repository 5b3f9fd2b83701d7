"""Apache Kafka over TLS and SCRAM with ACLs: each process does its own work as its own user, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from services.cli import COMMANDS
from streams.acls import FEED_GROUP, GROUPS, command_line, grants, processes
from streams.topics import CHATS_RAW, TOPICS
from tests.certificates import Authority
from tests.secure_kafka import ADMIN, SecureKafka
from tests.stream_workers import Workers, raw_chats, settled, until

pytestmark = pytest.mark.kafka
WAIT_S = 30
PROBE, SHOP = "probe.", "shop."
REFUSED = "TOPIC_AUTHORIZATION_FAILED"


@pytest.fixture(scope="module")
def secure(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with users, whose topics and rights `driftline topics` has made under two prefixes."""
    made = SecureKafka(kafka_libs, tmp_path_factory.mktemp("secure"))
    made.broker.start()
    try:
        for prefix in (PROBE, SHOP):
            operator = workers_of(made, tmp_path_factory.mktemp("operator"), ADMIN, prefix, "redis://127.0.0.1:1/0")
            code, said = operator.command("topics", "--acls", "--apply", "--replication", "1")
            assert code == 0, said
            assert "--operation WRITE --topic" in said
        yield made
    finally:
        made.broker.stop()


def workers_of(secure: SecureKafka, folder: Path, user: str, prefix: str, redis_url: str) -> Workers:
    """Processes of one user."""
    kafka = {"bootstrap": secure.broker.bootstrap, "prefix": prefix, "extra": secure.credentials(user)}
    return Workers(folder, kafka, redis_url)


def written(secure: SecureKafka, process: str) -> dict[str, str]:
    """Topic -> what became of a record that the process's user produced: `ok`, or the error's name."""
    found: dict[str, str] = {}

    def report(error: KafkaError | None, message: Any) -> None:
        found[message.topic().removeprefix(PROBE)] = "ok" if error is None else error.name()

    # An idempotent producer needs the right to write something; as driftline's are, where the process writes at all.
    idempotent = any(process in topic.writers for topic in TOPICS)
    more = {"enable_idempotence": str(idempotent).lower(), "message_timeout_ms": str(WAIT_S * 1000)}
    producer = Producer(secure.client(f"driftline-{process}", **more))
    for topic in TOPICS:
        producer.produce(PROBE + topic.name, key=b"k", value=b"v", partition=0, on_delivery=report)
    assert producer.flush(WAIT_S) == 0
    return found


def read(secure: SecureKafka, process: str) -> dict[str, str]:
    """Topic -> `ok` when the process's user was given a record of it, or the error's name."""
    group = next((name for name in GROUPS.get(process, {})), FEED_GROUP)
    more = {"group_id": PROBE + group, "auto_offset_reset": "earliest", "enable_auto_commit": "false"}
    consumer = Consumer(secure.client(f"driftline-{process}", **more))
    found: dict[str, str] = {}
    for topic in TOPICS:
        error = consumer.list_topics(PROBE + topic.name, timeout=WAIT_S).topics[PROBE + topic.name].error
        if error is not None:  # it may not even be described, and a consumer would wait for it without a word
            found[topic.name] = error.name()
    consumer.assign([TopicPartition(PROBE + topic.name, 0, 0) for topic in TOPICS if topic.name not in found])

    def all_known() -> bool:
        for message in consumer.consume(100, 0.05):
            error, topic = message.error(), message.topic()
            if topic is not None:
                found.setdefault(topic.removeprefix(PROBE), "ok" if error is None else error.name())
        return len(found) == len(TOPICS)

    until(all_known, WAIT_S)
    consumer.close()
    return found


@pytest.fixture(scope="module")
def seeded(secure: SecureKafka) -> SecureKafka:
    """The same broker with a record in partition 0 of every topic that is probed."""
    producer = Producer(secure.client(ADMIN))
    for topic in TOPICS:
        producer.produce(PROBE + topic.name, key=b"k", value=b"v", partition=0)
    assert producer.flush(WAIT_S) == 0
    return secure


@pytest.mark.parametrize("process", processes())
def test_kafka_security_each_process_does_its_work_only(seeded: SecureKafka, process: str) -> None:
    """A process's user writes and reads the topics that the table names it for, and is refused all others."""
    writes = {topic.name: "ok" if process in topic.writers else REFUSED for topic in TOPICS}
    reads = {topic.name: "ok" if process in topic.readers else REFUSED for topic in TOPICS}
    assert written(seeded, process) == writes
    assert read(seeded, process) == reads


def test_kafka_security_no_process_joins_anothers_group(secure: SecureKafka) -> None:
    """Who may see the workers' offsets cannot take their partitions."""
    settings = secure.client("driftline-reconcile", group_id=SHOP + "driftline-clean")
    consumer = Consumer(settings)
    consumer.subscribe([SHOP + CHATS_RAW])
    seen: set[str] = set()

    def refused() -> bool:
        message = consumer.poll(0.05)
        error = None if message is None else message.error()
        seen.update([] if error is None else [error.name()])
        return bool(seen)

    until(refused, WAIT_S)
    consumer.close()
    assert seen <= {"GROUP_AUTHORIZATION_FAILED", REFUSED}
    assert seen


def refusals(settings: dict[str, str]) -> set[str]:
    """Names of the errors that a client meets which cannot connect."""
    seen: set[str] = set()

    def note(error: KafkaError) -> None:
        seen.add(error.name())

    client = Producer({**settings, "error_cb": note})
    until(lambda: client.poll(0.05) >= 0 and bool(seen - {"_ALL_BROKERS_DOWN"}), WAIT_S)
    return seen - {"_ALL_BROKERS_DOWN"}


def test_kafka_security_wrong_credentials_are_refused(secure: SecureKafka, tmp_path: Path) -> None:
    """A wrong password, a broker of another authority, and a client's certificate of another authority."""
    user = "driftline-clean"
    stranger = Authority(tmp_path, "stranger")
    alien = str(stranger.issue("client"))
    assert refusals(secure.client(user, sasl_password="guessed")) == {"_AUTHENTICATION"}
    assert refusals(secure.client(user, ssl_ca_location=str(stranger.ca))) == {"_SSL"}
    foreign = refusals(secure.client(user, ssl_certificate_location=alien, ssl_key_location=alien))
    assert foreign <= {"_SSL", "_TRANSPORT"}
    assert foreign


def test_kafka_security_the_worker_runs_as_its_own_user(secure: SecureKafka, redis_url: str, tmp_path: Path) -> None:
    """`ingest`, `clean` and `reconcile`, each as its own user over SASL_SSL: 200 chats are accounted for."""
    folders = {name: tmp_path / name for name in ("ingest", "clean", "reconcile")}
    for folder in folders.values():
        folder.mkdir()
    parts = {name: workers_of(secure, folder, f"driftline-{name}", SHOP, redis_url) for name, folder in folders.items()}
    records = [record for chat in raw_chats(200, seed=4).values() for record in chat]
    file = tmp_path / "traffic.jsonl"
    lines = [{"key": key.decode(), "value_raw": value.decode()} for key, value in records]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        parts["clean"].start()
        code, said = parts["ingest"].command("ingest", str(file), "--format", "traffic")
        assert code == 0, said
        settled(parts["clean"], records, 90)

        def told() -> dict[str, Any]:
            _, answer = parts["reconcile"].command("reconcile", str(file), "--json")
            found: dict[str, Any] = json.loads(answer.splitlines()[0])
            return found

        found = told()
        assert (found["events"], found["missing"], found["waiting"]) == (len(records), [], 0)
        assert found["accepted"] + sum(found["rejected"].values()) == len(records)
        assert found["accepted"] > 0.8 * len(records)
    finally:
        parts["clean"].close()


def test_kafka_security_the_table_names_commands_and_prints_them() -> None:
    """Every user is a command's, and what is printed for kafka-acls says what the table grants."""
    assert set(processes()) <= set(COMMANDS)
    assert {grant.operation for grant in grants()} == {"READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"}
    assert not [grant for grant in grants("p.") if not grant.name.startswith("p.")]
    one = next(grant for grant in grants("p.") if grant.process == "gateway")
    assert command_line(one, "g w") == ("--add --allow-principal 'User:g w' --operation WRITE --topic p.chats.raw")
