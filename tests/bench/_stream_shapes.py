"""One worker shape that passes every message on, in a process of its own: what `streams.py` measures.

    python -m tests.bench._stream_shapes SHAPE BOOTSTRAP PREFIX MESSAGES

Prints one JSON line: wall and CPU seconds from the first message handled to the last one delivered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import faust
from confluent_kafka import Consumer, Producer
from prometheus_client import CollectorRegistry

from streams.app import Parts, create_app, run
from streams.config import StreamConfig
from streams.lanes import Incoming
from streams.metrics import StreamMetrics
from streams.outbox import Output, Record
from streams.topics import CHATS_RAW, CHATS_REJECTED

SURE: dict[str, str | int | float | bool] = {
    "acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4", "log_level": 0,
    "partitioner": "murmur2_random",
}  # fmt: skip


class Watch:
    """Wall and CPU seconds between the first and the last of `wanted` messages."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._seen = 0
        self._began = (0.0, 0.0)
        self.done = threading.Event()

    def begin(self) -> None:
        """A message is handled."""
        if self._began == (0.0, 0.0):
            self._began = _now()

    def count(self, *_: Any) -> None:
        """A message was delivered."""
        self._seen += 1
        if self._seen == self._wanted:
            wall, cpu = (b - a for a, b in zip(self._began, _now(), strict=True))
            sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu}) + "\n")
            sys.stdout.flush()
            self.done.set()


class Pass:
    """A stage that passes on; `watch` counts deliveries in the producer."""

    def __init__(self, topic: str, watch: Watch) -> None:
        self._topic, self._watch = topic, watch

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """The same key and value."""
        self._watch.begin()
        return [Output((Record(self._topic, record.key, record.value),)) for record in batch]

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """Never."""
        raise AssertionError(record.offset) from error


class Idle:
    """An assembler that nothing reaches."""

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """Nothing."""
        return [Output() for _ in batch]

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """Never."""
        raise AssertionError(record.offset) from error

    def turn(self, *_: Any) -> dict[Any, Any]:
        """Nothing."""
        return {}

    def open(self) -> int:
        """None."""
        return 0


class Counting:
    """A librdkafka producer that tells the watch of every delivery."""

    def __init__(self, bootstrap: str, watch: Watch) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, **SURE})
        self._watch = watch
        self.poll = self._producer.poll

    def produce(self, topic: str, *, on_delivery: Callable[[Any, Any], None], **more: Any) -> None:
        """As confluent's."""

        def report(error: Any, message: Any) -> None:
            on_delivery(error, message)
            self._watch.count()

        self._producer.produce(topic, on_delivery=report, **more)


def ours(bootstrap: str, prefix: str, watch: Watch, *, lean: bool) -> None:
    """The worker's shape: agent, lane, outbox."""
    config = StreamConfig(bootstrap=bootstrap, prefix=prefix, lean_drain=lean)
    idle: Any = Idle()
    parts = Parts(
        scrub=Pass(prefix + CHATS_REJECTED, watch), assemble=idle, insert=idle, decide=idle,
        producer=Counting(bootstrap, watch), move=lambda _: None, resume=lambda *_: None, skip=lambda *_: None,
        changed=lambda: False, metrics=StreamMetrics(CollectorRegistry()), caught=_caught,
    )  # fmt: skip
    run(create_app(config, parts), watch.done)


def _caught(where: str, error: BaseException) -> None:
    sys.stderr.write(f"{where} {error!r}\n")


def stock(bootstrap: str, prefix: str, watch: Watch) -> None:
    """A plain Faust agent that sends with the topic."""

    async def main() -> None:
        app = faust.App(
            prefix + "stock", broker=f"kafka://{bootstrap}", autodiscover=False, web_enabled=False,
            topic_disable_leader=True, topic_allow_declare=False, store="memory://", key_serializer="raw",
            value_serializer="raw", consumer_auto_offset_reset="earliest", loghandlers=[],
        )  # fmt: skip
        target = app.topic(prefix + CHATS_REJECTED, key_type=bytes, value_type=bytes)

        async def process(stream: Any) -> None:
            async for event in stream.events():
                watch.begin()
                await target.send(key=event.key, value=event.value)
                watch.count()

        app.agent(app.topic(prefix + CHATS_RAW, key_type=bytes, value_type=bytes))(process)
        app.finalize()
        await app.start()
        await asyncio.to_thread(watch.done.wait)
        await app.stop()

    asyncio.run(main())


def raw(bootstrap: str, prefix: str, watch: Watch) -> None:
    """A loop of confluent-kafka: consume, produce, commit after delivery."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": prefix + "raw", "auto.offset.reset": "earliest",
         "enable.auto.commit": False, "log_level": 0}
    )  # fmt: skip
    consumer.subscribe([prefix + CHATS_RAW])
    producer = Producer({"bootstrap.servers": bootstrap, **SURE})
    while not watch.done.is_set():
        for message in consumer.consume(500, timeout=0.1):
            watch.begin()
            producer.produce(prefix + CHATS_REJECTED, value=message.value(), key=message.key(), on_delivery=watch.count)
        producer.poll(0)
    consumer.commit(asynchronous=False)
    consumer.close()


SHAPES: Mapping[str, Callable[[str, str, Watch], None]] = {
    "raw confluent-kafka loop": raw,
    "driftline, lean drain": lambda b, p, w: ours(b, p, w, lean=True),
    "driftline, stock drain": lambda b, p, w: ours(b, p, w, lean=False),
    "Faust, event + topic.send": stock,
}


def main(argv: Collection[str]) -> int:
    """Run one shape."""
    shape, bootstrap, prefix, messages = argv
    logging.getLogger().setLevel(logging.WARNING)
    SHAPES[shape](bootstrap, prefix, Watch(int(messages)))
    return 0


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
