"""`driftline ingest FILE`: a file of chats onto chats.raw, once; a second call goes on where the first ended."""

from __future__ import annotations

import argparse
import gzip
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from services import source_files
from services.ingest_broker import Broker, NoBroker, open_broker
from services.ingest_progress import progress
from services.ingest_state import Position, Positions, open_positions
from services.settings import SettingsError
from streams.sources import Chat, SourceRecord, Unreadable, chat_records, read

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from services.settings import Settings

SAVE_S = 1.0
"""How often the position in the file is saved, seconds."""
MAX_RECORD = 1_000_000
"""Largest value that is sent, bytes: brokers take 1 MiB with key and headers by default."""

_WAIT_S = 0.02


@dataclass
class Summary:
    """What became of a file."""

    file: str
    format: str
    records: int = 0
    """Of the file, as far as it was read."""
    sent: int = 0
    """Acknowledged by the broker in this call."""
    skipped: int = 0
    """Sent by an earlier call."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """Reason -> parts of the file that hold no chat."""
    bytes: int = 0
    seconds: float = 0.0
    complete: bool = False


class IngestFailed(Exception):
    """The broker refused a record for good; the message is librdkafka's."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `driftline ingest`."""
    source_files.arguments(parser)
    parser.add_argument("--speed", type=float, metavar="X", help="keep the file's own times, X times as fast")
    parser.add_argument("--tenant", help="tenant of the chats (default: setting ingest.tenant)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ingest the file. Exit code 0 done, 1 stopped before its end or nothing in it was a chat, 2 not started."""
    if args.speed is not None and not args.speed > 0:
        return _refuse(f"--speed {args.speed}: wants more than 0")
    try:
        form = source_files.format_of(args)
    except SettingsError as error:
        return _refuse(str(error))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(open_broker(settings, time.monotonic))
        except NoBroker as error:
            return _refuse(str(error))
        positions = stack.enter_context(open_positions(settings, broker.identity))
        show = stack.enter_context(progress(args.file, shown=sys.stderr.isatty()))
        ingest = Ingest(broker, positions, stop, time.monotonic)
        agents = source_files.agents_of(args, settings.ingest.agents)
        tenant = args.tenant if args.tenant is not None else settings.ingest.tenant
        summary = Summary(str(args.file), form)
        try:
            records = _records(args.file, form, agents, summary, show)
            ingest.run(digest(args.file, form), records, summary, speed=args.speed, tenant=tenant)
        except KeyboardInterrupt:
            ingest.finish(summary)
        except (IngestFailed, OSError, EOFError, gzip.BadGzipFile) as error:
            ingest.finish(summary)
            sys.stderr.write(f"driftline ingest: {error}\n")
    _report(summary, as_json=args.json)
    garbage = summary.unreadable and not summary.sent + summary.skipped
    return 0 if summary.complete and not garbage else 1


class Ingest:
    """Sends the records of one file in order, as fast as the reader follows, and remembers how far it is."""

    def __init__(self, broker: Broker, positions: Positions, stop: threading.Event, clock: Callable[[], float]) -> None:
        self._producer = broker.producer
        self._topic = broker.topic
        self._pace = broker.pace
        self._positions = positions
        self._stop = stop
        self._clock = clock
        self._name = ""
        self._done = 0
        self._above: set[int] = set()
        self._error = ""
        self._saved = 0.0
        self._sent = 0

    def run(
        self, name: str, records: Iterator[SourceRecord], summary: Summary, *, speed: float | None, tenant: str
    ) -> None:
        """Send what has not been sent yet. `name` is the file's digest. Raises `IngestFailed`."""
        began = self._clock()
        self._name, before = name, self._positions.load(name)
        self._done = before.done
        headers = [("tenant", tenant.encode())] if tenant else []
        first: float | None = None
        for number, record in enumerate(records):
            summary.records += 1
            if number < before.done:
                summary.skipped += 1
                continue
            if speed and record.offset_ms is not None:
                first = record.offset_ms if first is None else first
                self._wait_until(began + (record.offset_ms - first) / 1000 / speed)
            if len(record.value) > MAX_RECORD:
                summary.unreadable["too_large"] = summary.unreadable.get("too_large", 0) + 1
                self._pass(number)
                continue
            self._send(number, record, headers)
            summary.bytes += len(record.value)
            if self._stop.is_set():
                break
        else:
            summary.complete = True
        self.finish(summary)
        summary.seconds = round(self._clock() - began, 3)

    def finish(self, summary: Summary) -> None:
        """Wait for what is on its way, and save the position."""
        while len(self._producer) and not self._error and not self._stop.is_set():
            self._turn(0.1)
        summary.sent = self._sent
        self._positions.save(self._name, Position(self._done, complete=summary.complete and not self._error))
        if self._error:
            summary.complete = False
            raise IngestFailed(self._error)

    def _send(self, number: int, record: SourceRecord, headers: list[tuple[str, bytes]]) -> None:
        size = len(record.value) + len(record.key or b"") + 80
        while self._pace is not None and not self._pace.room(size) and not self._stop.is_set():
            self._turn(_WAIT_S)

        def delivered(error: KafkaError | None, message: Message) -> None:
            self._delivered(number, size, error, message)

        while not self._stop.is_set():
            try:
                self._producer.produce(
                    self._topic, record.value, record.key, on_delivery=delivered, headers=list(headers)
                )
                break
            except BufferError:
                self._turn(_WAIT_S)
        if self._pace is not None:
            self._pace.sent(size)
        self._turn(0)

    def _turn(self, wait_s: float) -> None:
        self._producer.poll(wait_s)
        if self._error:
            raise IngestFailed(self._error)
        if self._clock() - self._saved >= SAVE_S:
            self._saved = self._clock()
            self._positions.save(self._name, Position(self._done, complete=False))

    def _wait_until(self, moment: float) -> None:
        while not self._stop.is_set() and (left := moment - self._clock()) > 0:
            self._turn(min(left, 0.1))

    def _delivered(self, number: int, size: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._error = f"{error.name()}: {error.str()}"
            if self._pace is not None:
                self._pace.failed(size)
            return
        self._sent += 1
        if self._pace is not None:
            self._pace.delivered(message.partition() or 0, message.offset() or 0, size)
        self._pass(number)

    def _pass(self, number: int) -> None:
        # Partitions answer in any order; the position is the end of the gapless part.
        self._above.add(number)
        while self._done in self._above:
            self._above.discard(self._done)
            self._done += 1


def _records(
    path: Path, form: str, agents: list[str], summary: Summary, show: Callable[[Any, int], None]
) -> Iterator[SourceRecord]:
    started = datetime.now(UTC).timestamp()
    origin: float | None = None
    with source_files.opened(path) as lines:
        for item in read(lines, form, path.name.split(".")[0], agents):
            show(summary, _place(lines))
            if isinstance(item, Unreadable):
                summary.unreadable[item.reason] = summary.unreadable.get(item.reason, 0) + 1
            elif isinstance(item, Chat):
                times = [line.at for line in item.lines if line.at is not None]
                origin = min(times) if origin is None and times else origin
                yield from chat_records(item, origin if times and origin is not None else started)
            else:
                yield item


def _place(lines: IO[bytes]) -> int:
    """Bytes of the file that were read, as they lie on the disk."""
    packed = lines.fileobj if isinstance(lines, gzip.GzipFile) else lines
    return int(packed.tell())


def digest(path: Path, form: str) -> str:
    """Under what a file's position is remembered: its bytes, and the format as which they are read."""
    with path.open("rb") as file:
        found = sha256(form.encode())
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:32]


def _refuse(problem: str) -> int:
    sys.stderr.write(f"driftline ingest: {problem}\n")
    return 2


def _report(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
        return
    state = "done" if summary.complete else "stopped"
    sys.stdout.write(
        f"{summary.file} ({summary.format}): {state}, {summary.sent} records sent in {summary.seconds:.1f} s, "
        f"{summary.skipped} were there already\n"
    )
    for reason, count in sorted(summary.unreadable.items()):
        sys.stdout.write(f"  unreadable, {reason}: {count}\n")
