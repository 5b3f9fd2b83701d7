"""The one-machine broker, redis-server and supervisor."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from services.local import redis_server
from services.local.supervisor import ChildFailed, Spec, Supervisor, free_port
from streams.topics import TOPICS

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def wait_for(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(400):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("condition never became true")


def test_local_broker_carries_records_between_clients(mock_broker: dict[str, Any]) -> None:
    """A record that one process's client produces is read by another's, and every topic exists from the start."""
    producer = Producer({"bootstrap.servers": mock_broker["bootstrap"]})
    assert {t.name for t in TOPICS} <= set(producer.list_topics(timeout=5).topics)
    producer.produce("chats.raw", key=b"c", value=b"v")
    assert producer.flush(5) == 0
    consumer = Consumer(
        {"bootstrap.servers": mock_broker["bootstrap"], "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["chats.raw"])
    record = consumer.poll(15)
    assert record is not None
    assert record.value() == b"v"
    consumer.close()


def test_local_redis_refuses_a_stranger_on_the_port(redis_url: str) -> None:
    """Another server on the port is an error, not our server."""
    with pytest.raises(redis_server.NoRedisServer, match="another server"):
        redis_server.ready(redis_url, pid=1)


def test_local_supervisor_restarts_what_dies(tmp_path: Path) -> None:
    """A killed process comes back with another pid; stop leaves none behind."""
    supervisor = Supervisor(tmp_path)
    first = supervisor.start(Spec("sleeper", SLEEPER, {}))
    supervisor.kill("sleeper", signal.SIGKILL)
    wait_for(lambda: supervisor.restarts == 1)
    second = supervisor.pids()["sleeper"]
    assert second != first
    assert supervisor.peak_pss_bytes > 0
    supervisor.stop()
    assert not Path(f"/proc/{second}").exists()


def test_local_supervisor_names_what_must_not_die(tmp_path: Path) -> None:
    """The death of a process that may not be restarted ends the wait with its name and log."""
    supervisor = Supervisor(tmp_path)
    supervisor.start(Spec("broker", [sys.executable, "-c", ""], {}, free_port(), restart=False))
    with pytest.raises(ChildFailed, match=r"broker\.log"):
        supervisor.wait_ready(["broker"], 20)
    supervisor.stop()
