"""Nodes, router and controller as processes on a real redis-server and the embedded broker: the canary end to end."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from learner.registry import BASE
from services.settings import child_environment
from services.topic_feed import TopicFeed
from streams.events import Message, decode
from streams.rollout_events import Exposure, Metric, Outcome, decode_exposure, encode
from streams.topics import CHATS_RAW, EXPOSURES, OUTCOMES
from tests.fleet import ADMIN, ROOT, Fleet, Shop, until


@pytest.fixture
def fleet(tmp_path: Path, mock_broker: dict[str, Any], redis_client: redis.Redis, redis_url: str) -> Iterator[Fleet]:
    """Two nodes, a router and a controller, ready."""
    del redis_client  # emptied the server
    found = Fleet(Shop(tmp_path), mock_broker["bootstrap"], redis_url, nodes=2)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def records(fleet: Fleet, topic: str) -> list[Any]:
    """Everything that stands on a topic."""
    feed = TopicFeed(fleet.settings.kafka.client("test"), [topic], lambda: 0.0)
    found: list[Any] = []
    for _ in range(100):
        found += feed.poll(0.1)
        if feed.caught_up:
            break
    feed.close()
    return found


def ask_until(fleet: Fleet, done: str, prefix: str, limit: int = 600) -> Counter[str]:
    """New conversations, one after the other, until `done` is the stable version; gives answers by version."""
    seen: Counter[str] = Counter()
    for number in range(limit):
        answer = fleet.ask(f"hello {number}", f"{prefix}-{number}")
        assert answer.status_code == 200
        assert answer.json()["model"] == answer.headers["x-driftline-version"]
        seen[answer.json()["model"]] += 1
        if number % 10 == 0 and fleet.record()["stable"] == done:
            return seen
    raise AssertionError(f"{done} was not promoted: {fleet.record()}")


def test_serving_promotes_a_good_version_and_records_every_turn(fleet: Fleet) -> None:
    """Base answers first; a published version goes canary -> stable; exposures and turns are on their topics."""
    first = fleet.ask("my parcel is late, mail me at jo@example.org", "first", user="jo")
    assert first.json()["model"] == BASE
    version = fleet.shop.publish(1)
    fleet.announce(version)
    seen = ask_until(fleet, version, "new")
    assert seen[version] >= 10
    again = fleet.ask("and again", "first")
    assert again.json()["model"] == BASE, "a pinned conversation keeps its version while it is loaded"

    exposures = [decode_exposure(record.value) for record in records(fleet, EXPOSURES)]
    by_conversation = Counter(exposure.conversation_id for exposure in exposures)
    assert max(by_conversation.values()) == 1
    assert {exposure.p for exposure in exposures} >= {0.25, 0.5}
    arms = {exposure.arm: exposure.version for exposure in exposures if exposure.p in {0.25, 0.5}}
    assert arms == {"candidate": version, "control": BASE}

    events = [decode(record.key, record.value) for record in records(fleet, CHATS_RAW)]
    mine = sorted(
        (event for event in events if isinstance(event, Message) and event.conversation_id == "first"),
        key=lambda event: event.seq,
    )
    assert [(event.role, event.seq) for event in mine] == [
        ("customer", 0), ("assistant", 1), ("customer", 2), ("assistant", 3),
    ]  # fmt: skip
    assert mine[0].text == "my parcel is late, mail me at jo@example.org"
    assert mine[0].customer == {"id": "jo"}
    assert mine[1].adapter == BASE
    assert mine[1].answer_id == first.json()["id"]


def test_serving_rolls_a_live_regression_back_and_denies_it(fleet: Fleet) -> None:
    """Customers of the candidate say it is bad: it is rolled back, denied, and nobody meets it again."""
    version = fleet.shop.publish(2)
    fleet.announce(version)
    sent: set[str] = set()
    answers = 0
    for number in range(600):
        answer = fleet.ask(f"hello {number}", f"bad-{number}")
        assert answer.status_code == 200
        answers += answer.json()["model"] == version
        if number % 10 == 0:
            for exposure in (decode_exposure(record.value) for record in records(fleet, EXPOSURES)):
                complain(fleet, exposure, version, sent)
            if version in fleet.record()["deny"]:
                break
    record = fleet.record()
    assert record["deny"] == [version]
    assert record["stable"] == BASE
    assert record["reason"] == "harm: negative"
    assert answers <= 200
    for number in range(20):
        assert fleet.ask("hello", f"after-{number}").json()["model"] == BASE
    headers = {"Authorization": f"Bearer {ADMIN}"}
    assert fleet.ask("hello", "operator", model=version, headers=headers).status_code == 404


def complain(fleet: Fleet, exposure: Exposure, version: str, sent: set[str]) -> None:
    """What the stream worker makes of a thumbs down: a `negative` outcome of each conversation of the version."""
    if exposure.version == version and exposure.conversation_id not in sent:
        sent.add(exposure.conversation_id)
        outcome = Outcome(
            conversation_id=exposure.conversation_id, metric=Metric.NEGATIVE, bad=True, event_ts=exposure.ts + 0.1
        )
        fleet.producer.produce(OUTCOMES, key=exposure.conversation_id, value=encode(outcome))
    fleet.producer.flush(5)


def heard_of(fleet: Fleet, version: str) -> bool:
    """The router knows that a version is switched off."""
    return version in fleet.status()["killed"] or fleet.denied(version)


def test_serving_switches_a_candidate_off_by_each_of_three_ways(fleet: Fleet) -> None:
    """The router's own POST, the key in Redis and the command each take the candidate's customers to stable."""
    for number, way in enumerate(("post", "redis", "command")):
        version = fleet.shop.publish(10 + number)
        fleet.announce(version)
        until(partial(fleet.running, version), way)
        pinned = next(
            name for name in (f"{way}-{n}" for n in range(200)) if fleet.ask("hello", name).json()["model"] == version
        )
        if way == "post":
            headers = {"Authorization": f"Bearer {ADMIN}"}
            killed = httpx.post(f"{fleet.router}/v1/rollout/kill", headers=headers, timeout=5)
            assert killed.json() == {"killed": version, "everywhere": True}
        elif way == "redis":
            redis.Redis.from_url(str(fleet.values["redis"]["url"])).sadd("pin:kill:a", version)
            until(partial(heard_of, fleet, version), "killed", 2)
        else:
            command = [sys.executable, "-m", "services.cli", "rollout", "rollback", "--actor", "tester"]
            done = subprocess.run(
                command, env=child_environment(fleet.values), cwd=ROOT, capture_output=True, check=True
            )
            assert b"rollback: generation" in done.stdout
            until(partial(fleet.denied, version), "denied", 2)
        assert fleet.ask("and now", pinned).json()["model"] == BASE
        until(partial(fleet.denied, version), "denied")
        until(lambda: fleet.record()["canary"] is None, "over")


def test_serving_refuses_a_version_with_a_number_that_is_none(fleet: Fleet) -> None:
    """A re-signed version with one NaN is refused by every node, denied by the controller, and never answers."""
    version = fleet.shop.publish_poisoned(3)
    fleet.announce(version)
    until(partial(fleet.denied, version), "denied")
    assert fleet.record()["reason"] == "numbers"
    assert {fleet.ask("hello", f"c-{n}").json()["model"] for n in range(10)} == {BASE}
