"""Topics read whole: everything that was there before the first act, offsets to resume from, a broker that hangs."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from confluent_kafka import Producer

from services.local.supervisor import free_port
from services.node.safety import Safety
from services.topic_feed import TopicFeed, make_producer, send
from streams.quality import QualityConfig
from streams.rollout_events import Metric, decode_outcome
from streams.topics import EXPOSURES, NODES, OUTCOMES, ROLLOUT


def feed_of(broker: dict[str, Any], *names: str, **more: Any) -> TopicFeed:
    """A feed that asks often."""
    base = {"bootstrap.servers": broker["bootstrap"], "log_level": 0}
    return TopicFeed(base, names, time.monotonic, ask_s=0.1, **more)


def read_to_end(feed: TopicFeed) -> list[Any]:
    """All that is there."""
    found: list[Any] = []
    for _ in range(600):
        found += feed.poll(0.05)
        if feed.caught_up and feed.lag() == 0:
            return found
    raise TimeoutError


def fill(broker: dict[str, Any], topic: str, count: int) -> None:
    """Numbered records."""
    producer = Producer({"bootstrap.servers": broker["bootstrap"]})
    for number in range(count):
        producer.produce(topic, key=f"k{number}", value=str(number))
    assert producer.flush(10) == 0


def test_topic_feed_is_caught_up_only_after_what_was_there(mock_broker: dict[str, Any]) -> None:
    """Every record of every partition and topic, then `caught_up`; what comes later is read too."""
    fill(mock_broker, ROLLOUT, 30)
    feed = feed_of(mock_broker, ROLLOUT, NODES)
    assert not feed.caught_up
    assert not feed.known
    found = read_to_end(feed)
    assert sorted(int(record.value) for record in found) == list(range(30))
    assert {record.topic for record in found} == {ROLLOUT}
    fill(mock_broker, NODES, 3)
    later: list[Any] = []
    for _ in range(200):
        later += feed.poll(0.05)
        if len(later) == 3:
            break
    assert {record.topic for record in later} == {NODES}
    assert all(record.timestamp > 1_700_000_000 for record in later), "seconds, not milliseconds"
    feed.close()


def test_topic_feed_resumes_at_given_offsets(mock_broker: dict[str, Any]) -> None:
    """From `starts` where they exist; an offset that the broker does not have means from the beginning."""
    fill(mock_broker, EXPOSURES, 40)
    first = feed_of(mock_broker, EXPOSURES)
    read_to_end(first)
    ends = dict(first.positions)
    first.close()
    partition = max(ends, key=lambda at: ends[at])
    starts = {at: end for at, end in ends.items() if at != partition} | {partition: ends[partition] + 1000}
    again = feed_of(mock_broker, EXPOSURES, starts=starts)
    found = read_to_end(again)
    assert {(record.topic, record.partition) for record in found} == {partition}
    assert len(found) == ends[partition]
    again.close()


def test_topic_feed_stops_its_clock_while_the_broker_hangs(mock_broker: dict[str, Any]) -> None:
    """No contact, no ageing; calls come back in time; afterwards it goes on."""
    feed = feed_of(mock_broker, ROLLOUT)
    read_to_end(feed)
    os.kill(mock_broker["pid"], signal.SIGSTOP)
    try:
        before = feed.contact
        heard, began = feed.heard_s, time.monotonic()
        for _ in range(3):
            assert feed.poll(0.05) == []
        assert time.monotonic() - began < 6
        assert feed.contact == before
        assert feed.heard_s == heard
    finally:
        os.kill(mock_broker["pid"], signal.SIGCONT)
    for _ in range(600):
        feed.poll(0.05)
        if feed.contact != before:
            break
    assert feed.contact != before
    feed.close()


def test_topic_feed_send_never_waits() -> None:
    """With nobody there, and with a full queue, a report is dropped, and the caller goes on."""
    base = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0, "queue.buffering.max.messages": 3}
    producer = make_producer(base)
    began = time.monotonic()
    for number in range(10):
        send(producer, NODES, "node-1", b"%d" % number)
    assert time.monotonic() - began < 1
    producer.purge()


def test_node_safety_flags_personal_data_and_abuse(mock_broker: dict[str, Any]) -> None:
    """An address that the model made up, or an insult, is an outcome of the conversation; placeholders are none."""
    counted: list[int] = []
    producer = make_producer({"bootstrap.servers": mock_broker["bootstrap"]})
    safety = Safety(QualityConfig(), producer, "", wall=lambda: 5.0, count=lambda: counted.append(1))
    safety.look("fixed:c1", "Dear <PERSON_1>, your refund takes 5 days.")
    safety.look("fixed:c2", "Please write to maria.lopez@example.org today.")
    safety.look("fixed:c3", "You are a stupid idiot, go to hell.")
    safety.look("", "Please write to maria.lopez@example.org today.")
    assert len(counted) == 3
    assert producer.flush(10) == 0
    feed = feed_of(mock_broker, OUTCOMES)
    found = [decode_outcome(record.value) for record in read_to_end(feed)]
    assert {each.conversation_id for each in found} == {"fixed:c2", "fixed:c3"}
    assert {(each.metric, each.bad, each.source) for each in found} == {(Metric.SAFETY, True, "node")}
    feed.close()
