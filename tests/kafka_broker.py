"""Apache Kafka for tests: one KRaft broker started from its jars, which a test may kill and start again."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

START_S = 60
LOGGING = """Configuration:
  Appenders:
    Console: {name: out, target: SYSTEM_OUT, PatternLayout: {pattern: "%d %p %c %m%n"}}
  Loggers:
    Root: {level: warn, AppenderRef: {ref: out}}
"""
SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={directory}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=2000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
"""
"""Short time-outs: killed members leave after 2 s, and a killed broker is back after 4 s."""


class KafkaBroker:
    """One broker on a port of its own; its records live in `directory` and survive `kill`."""

    def __init__(
        self, libs: Path, directory: Path, port: int, controller: int, *,
        host: str = "127.0.0.1", settings: str = SETTINGS, scram: Mapping[str, str] = {}, extra: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        """`scram` user -> password, known from the first start; `extra` the settings of an admin's client."""
        self.bootstrap = f"{host}:{port}"
        self.client: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap,
            "log_level": 0,
            **extra,
        }
        self._scram = [f"SCRAM-SHA-512=[name={name},password={word}]" for name, word in scram.items()]
        self._directory = directory
        self._java = ["java", "-Xms128m", "-Xmx512m", f"-Dlog4j2.configurationFile={directory}/log4j2.yaml"]
        self._java += ["-cp", f"{libs}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "log4j2.yaml").write_text(LOGGING)
        text = settings.format(port=port, controller=controller, directory=directory)
        (directory / "server.properties").write_text(text)

    @property
    def pid(self) -> int:
        """The process of a broker that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, formatted at the first time, and wait until it answers."""
        properties = str(self._directory / "server.properties")
        log = (self._directory / "broker.log").open("ab")
        if not (self._directory / "data/meta.properties").exists():
            tool = [*self._java, "kafka.tools.StorageTool", "format"]
            name = ["--cluster-id", "AAAAAAAAAAAAAAAAAAAAAA", "--config", properties]
            users = [part for user in self._scram for part in ("--add-scram", user)]
            subprocess.run([*tool, *name, *users], stdout=log, stderr=log, check=True)
        self._process = subprocess.Popen([*self._java, "kafka.Kafka", properties], stdout=log, stderr=log)
        log.close()
        pause = threading.Event()
        for _ in range(START_S):
            if self.answers():
                return
            pause.wait(0.5)
        raise TimeoutError("Kafka did not start")

    def answers(self) -> bool:
        """Whether it serves metadata now."""
        client = AdminClient(self.client)
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def create(self, topics: Sequence[str], partitions: int = 4) -> None:
        """Create topics."""
        client = AdminClient(self.client)
        made = client.create_topics([NewTopic(name, partitions, 1) for name in topics])
        for future in made.values():
            future.result(20)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """End it in order, or kill it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
