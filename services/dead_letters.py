"""`driftline replay-dead-letters`: after a fix of code or settings, run the records behind dead letters again, once.

A letter names topic, partition and offset; the record is read there, within the topic's retention, and produced again
to the same topic. Its event id makes it the same event, so what succeeded meanwhile does not take effect twice.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from services.settings import Settings

if TYPE_CHECKING:
    import redis
    from confluent_kafka import Consumer, Message, Producer

    from streams.dead_letters import Letter

_WAIT_S = 10.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which letters."""
    parser.add_argument("--reason", default="", help="only letters with this reason")
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """0 when every chosen letter's record was found and produced, 1 when some are past their retention."""
    from confluent_kafka import Consumer, Producer  # noqa: PLC0415 - imports are paid by the process that uses them

    from services.local.redis_server import client  # noqa: PLC0415 - redis
    from streams.topics import CHATS_DEAD_LETTER  # noqa: PLC0415 - with it

    kafka = settings.kafka
    reading: dict[str, str | float | bool] = {
        "group.id": f"{kafka.prefix}replay-dead-letters", "enable.auto.commit": False, "auto.offset.reset": "error",
    }  # fmt: skip
    writing: dict[str, str | float | bool] = {"enable.idempotence": True, "partitioner": "murmur2_random"}
    consumer = Consumer(kafka.asked_once("replay", **reading))
    producer = Producer(kafka.asked_once("replay", **writing))
    again = Again(client(settings.redis.url), settings.stream.ledger_ttl_s)
    counts: Counter[str] = Counter()
    try:
        letters = [
            letter for letter in read_letters(consumer, kafka.prefix + CHATS_DEAD_LETTER)
            if args.reason in {"", letter.reason}
        ]  # fmt: skip
        for letter in letters:
            counts[_replay(letter, consumer, producer, again)] += 1
    finally:
        consumer.close()
    found = {"letters": len(letters), **{name: counts[name] for name in ("replayed", "before", "gone")}}
    print(json.dumps(found) if args.json else ", ".join(f"{k} {v}" for k, v in found.items()))  # noqa: T201 - the answer
    return 1 if counts["gone"] else 0


class Again:
    """Which letters have been run again; kept as long as the ledger."""

    def __init__(self, client: redis.Redis, ttl_s: int) -> None:
        self._client = client
        self._ttl_s = ttl_s

    def was(self, letter: Letter) -> bool:
        """Whether this letter's record was produced again before."""
        return bool(self._client.exists(self._name(letter)))

    def done(self, letter: Letter) -> None:
        """Remember that it was."""
        self._client.set(self._name(letter), 1, ex=self._ttl_s)

    @staticmethod
    def _name(letter: Letter) -> str:
        return f"asm:again:{letter.entry}:{letter.topic}:{letter.partition}:{letter.offset}"


def read_letters(consumer: Consumer, topic: str) -> Iterator[Letter]:
    """Every letter that is on the topic now, one for each place (a letter may have been produced twice)."""
    from streams.dead_letters import read  # noqa: PLC0415 - with redis

    seen = set()
    for message in _messages(consumer, topic):
        letter = read(_headers(message))
        place = (letter.topic, letter.partition, letter.offset)
        if place not in seen:
            seen.add(place)
            yield letter


def _messages(consumer: Consumer, topic: str) -> Iterator[Message]:
    """What stands on a topic, from the first record to the ends as they are now."""
    from confluent_kafka import TopicPartition  # noqa: PLC0415 - with the consumer

    partitions = consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions
    for partition in partitions:
        place = TopicPartition(topic, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=_WAIT_S)
        if high <= low:
            continue
        consumer.assign([TopicPartition(topic, partition, low)])
        while True:
            message = consumer.poll(_WAIT_S)
            if message is None or message.error():
                break
            yield message
            if (message.offset() or 0) + 1 >= high:
                break


def _headers(message: Message) -> list[tuple[str, bytes]]:
    found: Any = message.headers() or []
    return [(name, value or b"") for name, value in found]


def _replay(letter: Letter, consumer: Consumer, producer: Producer, again: Again) -> str:
    """`replayed`, `before` (it was run again already) or `gone` (past its topic's retention)."""
    from confluent_kafka import TopicPartition  # noqa: PLC0415 - with the consumer

    if again.was(letter):
        return "before"
    place = TopicPartition(letter.topic, letter.partition, letter.offset)
    low, high = consumer.get_watermark_offsets(place, timeout=_WAIT_S)
    if not low <= letter.offset < high:
        return "gone"
    consumer.assign([place])
    message = consumer.poll(_WAIT_S)
    if message is None or message.error() or message.offset() != letter.offset:
        return "gone"
    producer.produce(letter.topic, value=message.value(), key=message.key(), headers=dict(_headers(message)))
    if producer.flush(_WAIT_S):
        raise RuntimeError("the broker did not acknowledge the record; nothing was marked, run it again")
    again.done(letter)
    return "replayed"
