"""The worker's shape against a raw loop, quixstreams and plain Faust, doing the same work in the same run.

    driftline bench streams [--peers PYTHON] [--work pass scrub] [--messages N] [--rounds R] [--kafka-libs DIR]
                            [--save FILE]

On Apache Kafka. Each shape's workers join first and are warmed by a few records; then they are stopped (SIGSTOP) while
`--messages` (the slow shapes take a tenth) are produced, and go on: wall time until the last one stands on the target
topic, CPU of the workers, of the broker and of this process meanwhile. Latency: `--rate` records a second for a while,
from produce to their arrival at a consumer of the target, in two parts: until the work is done on them (one way through
the broker, and the worker's reading) and from then on (its writing, and the other way). `--peers` is the interpreter of
an environment with quixstreams. Interleaved rounds, medians; with `--save` over the rounds of earlier runs too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.local.supervisor import free_port
from streams.topics import TOPICS
from tests.bench._heading import heading, table
from tests.bench._rig import jars
from tests.bench._stream_shapes import GROUPS, SHAPES, SOURCE, SURE, TARGET, worked_at
from tests.kafka_broker import KafkaBroker
from tests.stream_workers import until

ROOT = Path(__file__).resolve().parents[2]
ALONE = "no worker: once through the broker"
STOCK = "Faust, event + topic.send"
SLOW = frozenset({STOCK, "driftline, lean_drain off"})
WORDS = b"my parcel %d came without the lamp, please call me at 555-01%02d or write to jo.miller%d@example.com"
BODY = (
    b'{"event_id":"%06d","type":"message","conversation_id":"%s","seq":0,"ts":"2026-01-02T03:04:05Z",'
    b'"role":"customer","text":"%s"}'
)
READY_S, RUN_S, LATENCY_S = 60.0, 120.0, 4.0
WARM_S = 6.0
LOOK_S = 0.05
"""Between two looks at the target topic: asking costs the broker CPU, which the workers share."""
PERCENTILES = (50, 99)


def main(argv: list[str]) -> int:
    """Measure every shape and print the tables."""
    parser = argparse.ArgumentParser(prog="driftline bench streams")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="records a second of the latency; 0 leaves it out")
    parser.add_argument("--work", choices=("pass", "scrub"), default="pass")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--partitions", type=int, nargs="+", default=[8], help="for our shape; the others take 8")
    parser.add_argument("--shapes", nargs="+", default=[ALONE, *SHAPES], choices=[ALONE, *SHAPES])
    parser.add_argument("--peers", help="interpreter of an environment with quixstreams")
    parser.add_argument("--kafka-libs", type=Path)
    parser.add_argument("--save", type=Path, help="JSON lines: figures of each round are added, and read again")
    args = parser.parse_args(argv)
    shapes = [shape for shape in args.shapes if shape != "quixstreams" or args.peers]
    found = _saved(args.save)
    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaBroker(jars(args.kafka_libs), Path(folder), free_port(), free_port())
        kafka.start()
        try:
            _warm(kafka)
            for number in range(args.rounds):
                for shape in shapes:
                    for partitions in args.partitions if shape == "driftline" else [8]:
                        for workers in args.workers if shape != ALONE else [0]:
                            course = Course(kafka, shape, args, f"r{number}w{workers}p{partitions}.", partitions)
                            figures = course.run(workers)
                            found.setdefault((shape, partitions, workers), []).append(figures)
                            _save(args.save, [shape, partitions, workers, figures])
        finally:
            kafka.stop()
    _print(argv, found)
    return 0


def _warm(kafka: KafkaBroker) -> None:
    """Let the broker's just-in-time compiler see what is coming: cold, it takes twice the CPU for a message."""
    kafka.create(["warm"], 8)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **SURE, "queue.buffering.max.messages": 10**6})
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "warm", "log_level": 0})
    consumer.assign([TopicPartition("warm", partition, 0) for partition in range(8)])
    read, until_s = 0, time.monotonic() + WARM_S
    while time.monotonic() < until_s:
        for number in range(2_000):
            producer.produce("warm", value=WORDS % (number, number % 100, number), key=b"%d" % number)
        producer.flush()
        read += len(consumer.consume(2_000, timeout=0.05))
    assert read
    consumer.close()


class Course:
    """One run of one shape on topics of its own."""

    def __init__(self, kafka: KafkaBroker, shape: str, args: argparse.Namespace, prefix: str, partitions: int) -> None:
        self._kafka, self._shape, self._args = kafka, shape, args
        self._prefix = f"{[ALONE, *SHAPES].index(shape)}{prefix}"
        self._partitions = partitions
        self._messages = args.messages // (10 if shape in SLOW else 1)
        kafka.create([self._prefix + topic.name for topic in TOPICS], partitions)
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, **SURE, "queue.buffering.max.messages": 10**6})
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def run(self, workers: int) -> list[float]:
        """Messages a second; CPU seconds a message of workers, broker, bench; latencies and their two parts."""
        if self._shape == ALONE:
            return [float("nan")] * 4 + self._latencies()
        with self._started(workers) as processes:
            self._put(200)
            self._arrived(200)
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            self._put(self._messages)
            before, began = self._spent(processes), time.monotonic()
            for process in processes:
                process.send_signal(signal.SIGCONT)
            self._arrived(200 + self._messages)
            wall, after = time.monotonic() - began, self._spent(processes)
            figures = [self._messages / wall, *((b - a) / self._messages for a, b in zip(before, after, strict=True))]
            return figures + (self._latencies() if self._args.rate else [])

    def _spent(self, processes: Sequence[subprocess.Popen[bytes]]) -> list[float]:
        """CPU seconds so far of the workers, of the broker, and of this process."""
        return [sum(_cpu_s(process.pid) for process in processes), _cpu_s(self._kafka.pid), time.process_time()]

    @contextmanager
    def _started(self, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
        python = self._args.peers if self._shape == "quixstreams" else sys.executable
        names = [self._shape, self._args.work, self._kafka.bootstrap, self._prefix]
        site = [sysconfig.get_path("purelib")] if python != sys.executable else []
        command = [python, "-m", "tests.bench._stream_shapes", *names, *site]
        with tempfile.TemporaryFile() as log:
            processes = [subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) for _ in range(workers)]
            try:
                joined = until(lambda: self._joined(workers), READY_S, 0.2)
                log.seek(0)
                assert joined, f"{self._shape} did not join: {log.read()[-2000:].decode()}"
                yield processes
            finally:
                for process in processes:
                    process.kill()
                    process.wait(10)

    def _joined(self, workers: int) -> bool:
        """Whether the group is stable and every worker owns partitions of the source."""
        group = self._prefix + GROUPS[self._shape]
        try:
            described = self._admin.describe_consumer_groups([group])[group].result(10)
        except (TimeoutError, KafkaException):
            return False
        parts = [member.assignment.topic_partitions for member in described.members]
        owning = [p for p in parts if any(tp.topic == self._prefix + SOURCE for tp in p)]
        return described.state.name == "STABLE" and len(owning) == min(workers, self._partitions)

    def _put(self, messages: int) -> None:
        for number in range(messages):
            name = b"c%d" % (number % 997)
            value = BODY % (number, name, WORDS % (number, number % 100, number))
            self._producer.produce(self._prefix + SOURCE, value=value, key=name)
            self._producer.poll(0)
        self._producer.flush()

    def _arrived(self, wanted: int) -> None:
        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap, "group.id": "ends"})
        partitions = consumer.list_topics(self._prefix + TARGET).topics[self._prefix + TARGET].partitions

        def all_there() -> bool:
            places = [TopicPartition(self._prefix + TARGET, p) for p in partitions]
            try:
                return sum(consumer.get_watermark_offsets(p, timeout=5, cached=False)[1] for p in places) >= wanted
            except KafkaException:  # a topic that was made a moment ago
                return False

        done = until(all_there, RUN_S, LOOK_S)
        consumer.close()
        assert done, f"{self._shape}: not all records came out"

    def _latencies(self) -> list[float]:
        """At the set rate, seconds from produce to arrival, to the work, and from there: p50 and p99 of each."""
        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap, "group.id": "latency", "fetch.wait.max.ms": 5})
        topic = self._prefix + (SOURCE if self._shape == ALONE else TARGET)
        places = [TopicPartition(topic, p) for p in consumer.list_topics(topic).topics[topic].partitions]
        ends = [
            TopicPartition(topic, place.partition, consumer.get_watermark_offsets(place, cached=False)[1])
            for place in places
        ]  # fmt: skip
        consumer.assign(ends)
        sent: dict[bytes, float] = {}
        messages, rate, pause = int(self._args.rate * LATENCY_S), self._args.rate, threading.Event()

        def send() -> None:
            began = time.monotonic()
            for number in range(messages):
                pause.wait(max(0.0, began + number / rate - time.monotonic()))
                name = b"l%d" % number
                sent[name] = time.monotonic()
                body = BODY % (number, name, WORDS % (number, number % 100, number))
                self._producer.produce(self._prefix + SOURCE, value=body, key=name)
                self._producer.poll(0)
            self._producer.flush()

        thread = threading.Thread(target=send)
        thread.start()
        found: list[tuple[float, float, float]] = []
        deadline = time.monotonic() + LATENCY_S + 30
        while len(found) < messages and time.monotonic() < deadline:
            messages_read = [message for message in consumer.consume(500, timeout=0.01) if message.error() is None]
            now = time.monotonic()
            for message in messages_read:
                began = sent[message.key() or b""]
                worked = now if self._shape == ALONE else worked_at(message.value() or b"")
                found.append((now - began, worked - began, now - worked))
        thread.join()
        consumer.close()
        assert found, f"{self._shape}: nothing arrived"
        return [quantiles(part, n=100)[p - 1] for part in zip(*found, strict=True) for p in PERCENTILES]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _saved(file: Path | None) -> dict[tuple[str, int, int], list[list[float]]]:
    found: dict[tuple[str, int, int], list[list[float]]] = {}
    for line in file.read_text().splitlines() if file is not None and file.exists() else ():
        shape, partitions, workers, figures = json.loads(line)
        found.setdefault((shape, partitions, workers), []).append(figures)
    return found


def _save(file: Path | None, row: Sequence[object]) -> None:
    if file is not None:
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")


def _print(argv: Sequence[str], found: dict[tuple[str, int, int], list[list[float]]]) -> None:
    medians = {name: [median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    base = next((m[1] for (shape, _, workers), m in medians.items() if shape == STOCK and workers == 1), float("nan"))
    names = "shape|partitions|workers|rounds|messages/s|CPU us: workers|broker|bench|Faust's CPU / its"
    rows = [[*names.split("|"), *(f"{part} p{p} ms" for part in ("all", "to work", "from work") for p in PERCENTILES)]]
    for (shape, partitions, workers), (rate, *rest) in sorted(medians.items()):
        spent, times = rest[:3], rest[3:]
        rows.append(
            [shape, str(partitions), str(workers), str(len(found[shape, partitions, workers])), f"{rate:,.0f}",
             *(f"{one * 1e6:.0f}" for one in spent), f"{base / spent[0]:.1f}",
             *([f"{one * 1000:.0f}" for one in times] or ["-"] * (3 * len(PERCENTILES)))]
        )  # fmt: skip
    sys.stdout.write(f"{heading('streams', argv)}\n{table(rows)}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
