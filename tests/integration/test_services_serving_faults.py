"""Serving while its neighbours are away: Redis, the broker, nodes and the controller; rollout.md 6."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from learner.registry import BASE
from services.local import redis_server
from services.topic_feed import TopicFeed
from streams.events import Message, decode
from streams.rollout_events import decode_exposure
from streams.topics import CHATS_RAW, EXPOSURES
from tests.fleet import ADMIN, Fleet, Shop, until


@pytest.fixture
def fleet(tmp_path: Path, mock_broker: dict[str, Any], redis_client: redis.Redis, redis_url: str) -> Iterator[Fleet]:
    """Two nodes, a router and a controller; nothing is ever promoted here."""
    del redis_client  # emptied the server
    found = Fleet(Shop(tmp_path), mock_broker["bootstrap"], redis_url, nodes=2, matured=(10_000, 10_000))
    try:
        found.start()
        yield found
    finally:
        found.stop()


def records(fleet: Fleet, topic: str, read: Callable[[Any], Any]) -> list[Any]:
    """Everything that stands on a topic, decoded."""
    feed = TopicFeed(fleet.settings.kafka.client("test"), [topic], time.monotonic)
    found: list[Any] = []
    for _ in range(200):
        found += feed.poll(0.1)
        if feed.caught_up:
            break
    feed.close()
    return [read(record) for record in found]


def canary(fleet: Fleet, seed: int) -> str:
    """A version that runs as canary."""
    version = fleet.shop.publish(seed)
    fleet.announce(version)
    until(partial(fleet.running, version), "canary", 60)
    return version


def test_serving_goes_on_while_redis_hangs(fleet: Fleet, redis_url: str) -> None:
    """Hash alone, marked degraded, turns numbered afterwards; the controller freezes and then goes on."""
    version = canary(fleet, 1)
    pid = int(redis_server.client(redis_url).info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        generation = fleet.record()["generation"]
        times = []
        for number in range(20):
            began = time.monotonic()
            assert fleet.ask("hello", f"hung-{number}").status_code == 200
            times.append(time.monotonic() - began)
        assert sorted(times)[15] < 1.0, "only those who find out wait for a time-out"
        assert fleet.record()["generation"] == generation
        headers = {"Authorization": f"Bearer {ADMIN}"}
        killed = httpx.post(f"{fleet.router}/v1/rollout/kill", headers=headers, timeout=10).json()
        assert killed == {"killed": version, "everywhere": False}
        assert {fleet.ask("hello", f"killed-{number}").json()["model"] for number in range(10)} == {BASE}
    finally:
        os.kill(pid, signal.SIGCONT)
    found: list[Message] = []

    def numbered() -> bool:
        events = records(fleet, CHATS_RAW, lambda record: decode(record.key, record.value))
        found[:] = [e for e in events if isinstance(e, Message) and e.conversation_id == "hung-19"]
        return len(found) == 2

    until(numbered, "turns of the time without Redis")
    assert sorted((event.role, event.seq) for event in found) == [("assistant", 1), ("customer", 0)]
    exposures = records(fleet, EXPOSURES, lambda record: decode_exposure(record.value))
    assert sum(exposure.degraded for exposure in exposures) >= 19


def test_serving_goes_on_while_the_broker_hangs(fleet: Fleet, mock_broker: dict[str, Any]) -> None:
    """Answers and kill switch without Kafka; exposures and turns come from the spool afterwards, each once."""
    version = canary(fleet, 2)
    pid = mock_broker["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = {fleet.ask("hello", f"dark-{number}").json()["model"] for number in range(40)}
        assert seen == {BASE, version}, "the last record goes on"
        httpx.post(f"{fleet.router}/v1/rollout/kill", headers={"Authorization": f"Bearer {ADMIN}"}, timeout=10)
        assert {fleet.ask("hello", f"dark-{number}").json()["model"] for number in range(40)} == {BASE}
    finally:
        os.kill(pid, signal.SIGCONT)
    until(partial(fleet.denied, version), "denied", 60)

    def exposed() -> bool:
        ids = [e.conversation_id for e in records(fleet, EXPOSURES, lambda record: decode_exposure(record.value))]
        return len(set(ids)) >= 40

    until(exposed, "exposures from the spool", 60)


def test_serving_survives_a_killed_node_and_a_killed_controller(fleet: Fleet) -> None:
    """No request fails when a node dies; it comes back from its disk; a new controller resumes the same rollout."""
    version = canary(fleet, 3)
    before = fleet.record()
    fleet.end("node-1", kill=True)
    for number in range(30):
        assert fleet.ask("hello", f"one-node-{number}").status_code == 200
    fleet.end("rollout", kill=True)
    fleet.start_process("rollout", ["rollout", "run"], {})
    fleet.start_node("node-1")
    fleet.wait_ready("node-1")
    fleet.wait_ready("rollout")
    after = fleet.record()
    assert (after["canary"], after["rollout_id"], after["salt"]) == (version, before["rollout_id"], before["salt"])
    assert after["generation"] >= before["generation"]
    assert after["stable"] == BASE


def test_serving_lets_one_of_two_controllers_decide(fleet: Fleet) -> None:
    """A second controller waits for the lease; when the first is stopped it takes over and the first is fenced."""
    port = fleet.admin["rollout"]
    fleet.processes["first"] = fleet.processes.pop("rollout")
    fleet.start_process("rollout", ["rollout", "run"], {})
    until(lambda: "another controller holds the lease" in readyz(fleet), "second waits")
    fleet.processes["first"].send_signal(signal.SIGSTOP)
    try:
        fleet.wait_ready("rollout")
        version = canary(fleet, 4)
    finally:
        fleet.processes["first"].send_signal(signal.SIGCONT)
    until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503, "first is fenced")
    assert fleet.record()["canary"] == version


def readyz(fleet: Fleet) -> str:
    """What the controller says of itself."""
    try:
        return httpx.get(f"http://127.0.0.1:{fleet.admin['rollout']}/readyz", timeout=2).text
    except httpx.HTTPError:
        return ""
