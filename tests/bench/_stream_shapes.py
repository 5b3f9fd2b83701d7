"""One worker shape, in a process of its own: what `streams.py` measures.

    python -m tests.bench._stream_shapes SHAPE WORK BOOTSTRAP PREFIX [SITE]

Reads PREFIX + chats.raw, does the work, writes PREFIX + chats.rejected, until SIGTERM. SITE is appended to the module
path: a peer's own environment lacks what our work imports.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.lanes import Incoming
    from streams.outbox import Output

SURE: dict[str, str | int | float | bool] = {
    "acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4", "log_level": 0,
    "partitioner": "murmur2_random",
}  # fmt: skip
SOURCE, TARGET = "chats.raw", "chats.rejected"

Work = Callable[[bytes | None, bytes], bytes]
"""Key and value of a record -> the value that goes on."""
Shape = Callable[[str, str, Work, threading.Event], None]


def passed(_key: bytes | None, value: bytes) -> bytes:
    """Nothing but the time: the shape alone."""
    return b"%s%020d" % (value, time.monotonic_ns())


def worked_at(value: bytes) -> float:
    """When the work was done on a record, seconds on this machine's monotonic clock."""
    return int(value[-20:]) / 1e9


def scrubber() -> Work:
    """Decode, mask with the full rules, encode; conversations' states in memory, so that only the shape differs."""
    from streams.events import decode, encode_record  # noqa: PLC0415 - peers' environments pass SITE first
    from streams.scrub import ConversationState, Keys, Scrubber, ScrubConfig  # noqa: PLC0415

    made = Scrubber(ScrubConfig(), Keys("k", {"k": b"k" * 32}, b"f" * 32))

    def work(key: bytes | None, value: bytes) -> bytes:
        (clean,), _ = made.scrub_event(decode(key, value), ConversationState(), received_at=0.0, offset=(0, 0))
        return passed(key, encode_record(clean))

    return work


class Pass:
    """A stage that does the work."""

    def __init__(self, topic: str, work: Work) -> None:
        self._topic, self._work = topic, work

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One record each."""
        from streams.outbox import Output, Record  # noqa: PLC0415 - ours alone needs it

        return [Output((Record(self._topic, r.key, self._work(r.key, r.value or b"")),)) for r in batch]

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """Never."""
        raise AssertionError(record.offset) from error


class Idle(Pass):
    """An assembler that nothing reaches."""

    def turn(self, *_: Any) -> dict[Any, Any]:
        """Nothing."""
        return {}

    def open(self) -> int:
        """None."""
        return 0


def ours(bootstrap: str, prefix: str, work: Work, stop: threading.Event, *, lean: bool) -> None:
    """The worker's shape: consumer, lane, outbox."""
    from confluent_kafka import Producer  # noqa: PLC0415 - each shape loads its own clients
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from streams.app import Parts, create_app, run  # noqa: PLC0415
    from streams.config import StreamConfig  # noqa: PLC0415
    from streams.metrics import StreamMetrics  # noqa: PLC0415

    config = StreamConfig(bootstrap=bootstrap, prefix=prefix, lean_drain=lean)
    idle: Any = Idle("", work)
    parts = Parts(
        scrub=Pass(prefix + TARGET, work), assemble=idle, insert=idle, decide=idle,
        producer=Producer({"bootstrap.servers": bootstrap, **SURE}), move=lambda _: None, resume=lambda *_: None,
        skip=lambda *_: None, effects_to=lambda *_: 0, changed=lambda: False,
        metrics=StreamMetrics(CollectorRegistry()), caught=_caught,
    )  # fmt: skip
    run(create_app(config, parts), stop)


def _caught(where: str, error: BaseException) -> None:
    sys.stderr.write(f"{where} {error!r}\n")


def stock(bootstrap: str, prefix: str, work: Work, stop: threading.Event) -> None:
    """A plain Faust agent that sends with the topic."""
    import faust  # noqa: PLC0415 - this shape's client

    async def main() -> None:
        app = faust.App(
            prefix + "stock", broker=f"kafka://{bootstrap}", autodiscover=False, web_enabled=False,
            topic_disable_leader=True, topic_allow_declare=False, store="memory://", key_serializer="raw",
            value_serializer="raw", consumer_auto_offset_reset="earliest", loghandlers=[],
            datadir=str(Path(gettempdir(), "driftline-faust")),
        )  # fmt: skip
        target = app.topic(prefix + TARGET, key_type=bytes, value_type=bytes)

        async def process(stream: Any) -> None:
            async for event in stream.events():
                await target.send(key=event.key, value=work(event.key, event.value))

        app.agent(app.topic(prefix + SOURCE, key_type=bytes, value_type=bytes))(process)
        app.finalize()
        await app.start()
        await asyncio.to_thread(stop.wait)
        await app.stop()

    asyncio.run(main())


def raw(bootstrap: str, prefix: str, work: Work, stop: threading.Event) -> None:
    """A loop of confluent-kafka: consume, produce, flush, commit."""
    from confluent_kafka import Consumer, Producer  # noqa: PLC0415 - this shape's client

    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": prefix + "raw", "auto.offset.reset": "earliest",
         "enable.auto.commit": False, "log_level": 0}
    )  # fmt: skip
    consumer.subscribe([prefix + SOURCE])
    producer = Producer({"bootstrap.servers": bootstrap, **SURE})
    while not stop.is_set():
        found = consumer.consume(2_000, timeout=0.02)
        for message in found:
            producer.produce(prefix + TARGET, value=work(message.key(), message.value() or b""), key=message.key())
        if found:
            producer.flush()
            consumer.commit(asynchronous=False)
    consumer.close()


def quix(bootstrap: str, prefix: str, work: Work, stop: threading.Event) -> None:
    """quixstreams with bytes in and out."""
    from quixstreams import Application  # type: ignore[import-not-found] # noqa: PLC0415 - a peer's environment

    app = Application(
        broker_address=bootstrap, consumer_group=prefix + "quix", auto_offset_reset="earliest", loglevel=None,
        producer_extra_config={k: v for k, v in SURE.items() if k != "log_level"}, commit_interval=0.3,
        auto_create_topics=False, state_dir=str(Path(gettempdir(), "driftline-quix")),
    )  # fmt: skip
    source = app.topic(prefix + SOURCE, value_deserializer="bytes", key_deserializer="bytes")
    target = app.topic(prefix + TARGET, value_serializer="bytes", key_serializer="bytes")
    rows = app.dataframe(source).apply(lambda value, key, *_: work(key, value), metadata=True)
    rows.to_topic(target)
    threading.Thread(target=lambda: (stop.wait(), app.stop()), daemon=True).start()
    app.run()


SHAPES: Mapping[str, Shape] = {
    "raw confluent-kafka loop": raw,
    "driftline": lambda b, p, w, s: ours(b, p, w, s, lean=True),
    "driftline, lean_drain off": lambda b, p, w, s: ours(b, p, w, s, lean=False),
    "quixstreams": quix,
    "Faust, event + topic.send": stock,
}
GROUPS = {
    "raw confluent-kafka loop": "raw", "driftline": "driftline-clean", "driftline, lean_drain off": "driftline-clean",
    "quixstreams": "quix", "Faust, event + topic.send": "stock",
}  # fmt: skip
"""Consumer group of each shape, behind its prefix."""


def main(argv: Collection[str]) -> int:
    """Run one shape until SIGTERM."""
    shape, kind, bootstrap, prefix, *site = argv
    sys.path.extend([*site, str(Path(__file__).resolve().parents[2])])
    logging.getLogger().setLevel(logging.WARNING)
    stop = threading.Event()
    if shape != "quixstreams":  # which sets its own handlers
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    SHAPES[shape](bootstrap, prefix, scrubber() if kind == "scrub" else passed, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
