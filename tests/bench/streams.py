"""The worker's shape against a raw loop, quixstreams and plain Faust, doing the same work in the same run.

    driftline bench streams [--peers PYTHON] [--work pass scrub] [--messages N] [--rounds R] [--kafka-libs DIR]

On Apache Kafka. Each shape's workers join first and are warmed by a few records; then `--messages` (the slow shapes
take a tenth) are produced at once: wall time until the last one stands on the target topic, CPU of the workers'
processes. Latency: `--rate` records a second for a while, from produce to their arrival at a consumer of the target.
`--peers` is the interpreter of an environment with quixstreams. Interleaved rounds, medians.
"""

from __future__ import annotations

import argparse
import os
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
from tests.bench._stream_shapes import GROUPS, SHAPES, SOURCE, SURE, TARGET
from tests.kafka_broker import KafkaBroker
from tests.stream_workers import until

ROOT = Path(__file__).resolve().parents[2]
STOCK = "Faust, event + topic.send"
SLOW = frozenset({STOCK, "driftline, lean_drain off"})
WORDS = b"my parcel %d came without the lamp, please call me at 555-01%02d or write to jo.miller%d@example.com"
BODY = (
    b'{"event_id":"%06d","type":"message","conversation_id":"%s","seq":0,"ts":"2026-01-02T03:04:05Z",'
    b'"role":"customer","text":"%s"}'
)
READY_S, RUN_S, LATENCY_S = 60.0, 120.0, 4.0


def main(argv: list[str]) -> int:
    """Measure every shape and print the tables."""
    parser = argparse.ArgumentParser(prog="driftline bench streams")
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--work", choices=("pass", "scrub"), default="pass")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--partitions", type=int, nargs="+", default=[8], help="for our shape; the others take 8")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--peers", help="interpreter of an environment with quixstreams")
    parser.add_argument("--kafka-libs", type=Path)
    args = parser.parse_args(argv)
    shapes = [shape for shape in args.shapes if shape != "quixstreams" or args.peers]
    found: dict[tuple[str, int, int], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaBroker(jars(args.kafka_libs), Path(folder), free_port(), free_port())
        kafka.start()
        try:
            for number in range(args.rounds):
                for shape in shapes:
                    for partitions in args.partitions if shape == "driftline" else [8]:
                        for workers in args.workers:
                            course = Course(kafka, shape, args, f"r{number}w{workers}p{partitions}.", partitions)
                            found.setdefault((shape, partitions, workers), []).append(course.run(workers))
        finally:
            kafka.stop()
    _print(argv, found)
    return 0


class Course:
    """One run of one shape on topics of its own."""

    def __init__(self, kafka: KafkaBroker, shape: str, args: argparse.Namespace, prefix: str, partitions: int) -> None:
        self._kafka, self._shape, self._args = kafka, shape, args
        self._prefix = f"{list(SHAPES).index(shape)}{prefix}"
        self._messages = args.messages // (10 if shape in SLOW else 1)
        kafka.create([self._prefix + topic.name for topic in TOPICS], partitions)
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, **SURE, "queue.buffering.max.messages": 10**6})
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def run(self, workers: int) -> list[float]:
        """Messages a second, CPU seconds a message, latency p50 and p99 in seconds."""
        with self._started(workers) as processes:
            self._put(200)
            self._arrived(200)
            before, began = sum(map(_cpu_s, processes)), time.monotonic()
            self._put(self._messages)
            self._arrived(200 + self._messages)
            wall, cpu = time.monotonic() - began, sum(map(_cpu_s, processes)) - before
            times = self._latencies()
        return [self._messages / wall, cpu / self._messages, median(times), quantiles(times, n=100)[98]]

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
        return described.state.name == "STABLE" and len(owning) == workers

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
            return sum(consumer.get_watermark_offsets(p, timeout=5, cached=False)[1] for p in places) >= wanted

        done = until(all_there, RUN_S, 0.005)
        consumer.close()
        assert done, f"{self._shape}: not all records came out"

    def _latencies(self) -> list[float]:
        """Seconds from produce to arrival of records at the set rate."""
        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap, "group.id": "latency", "fetch.wait.max.ms": 5})
        partitions = consumer.list_topics(self._prefix + TARGET).topics[self._prefix + TARGET].partitions
        ends = [
            TopicPartition(self._prefix + TARGET, p, consumer.get_watermark_offsets(
                TopicPartition(self._prefix + TARGET, p), cached=False)[1])
            for p in partitions
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
        found: list[float] = []
        deadline = time.monotonic() + LATENCY_S + 30
        while len(found) < messages and time.monotonic() < deadline:
            keys = [message.key() or b"" for message in consumer.consume(500, timeout=0.01) if message.error() is None]
            found.extend(time.monotonic() - sent[key] for key in keys)
        thread.join()
        consumer.close()
        return found or [float("nan")] * 2


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _print(argv: Sequence[str], found: dict[tuple[str, int, int], list[list[float]]]) -> None:
    medians = {name: [median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    base = next((m[1] for (shape, _, workers), m in medians.items() if shape == STOCK and workers == 1), float("nan"))
    rows = [["shape", "partitions", "workers", "messages/s", "CPU us", "Faust's CPU / its", "p50 ms", "p99 ms"]]
    for (shape, partitions, workers), (rate, cpu, middle, slow) in medians.items():
        rows.append(
            [shape, str(partitions), str(workers), f"{rate:,.0f}", f"{cpu * 1e6:.0f}", f"{base / cpu:.1f}",
             f"{middle * 1000:.0f}", f"{slow * 1000:.0f}"]
        )  # fmt: skip
    sys.stdout.write(f"{heading('streams', argv)}\n{table(rows)}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
