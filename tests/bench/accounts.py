"""A traffic file through the gateway at a multiple of its own speed; `reconcile` against the file's truth.

    driftline bench accounts FILE TRUTH [--speed 50] [--kill 2 6] [--mutate SEED] [--workers 2] [--kafka-libs DIR]

Each line is posted to /v1/events at its time, each conversation in order; what is answered 400 is sent by `driftline
ingest` at the end. On Apache Kafka and a durable Redis; `--kill A B` SIGKILLs a random worker every A to B seconds;
`--mutate` makes another file of the same schema first: other ids, other breakage (_mutations.py). Exit code 1 when any
event is not where the truth says.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.events import readable_id
from tests.bench._heading import heading, table
from tests.bench._mutations import mutated, written
from tests.bench._rig import API_KEY, Rig, jars, struck
from tests.stream_workers import until

SENDERS = 8
"""Connections to the gateway; a conversation always uses the same one."""
SETTLE_S = 180.0
PAUSE = threading.Event()
REQUIRED = {
    "message": {"event_id", "conversation_id", "seq", "ts", "role", "text"},
    "feedback": {"event_id", "conversation_id", "seq", "ts"},
    "conversation_closed": {"event_id", "conversation_id", "seq", "ts", "turns"},
}
"""Fields without which an event is malformed, by type."""


def main(argv: list[str]) -> int:
    """Replay, reconcile, compare, and print the table."""
    parser = argparse.ArgumentParser(prog="driftline bench accounts")
    parser.add_argument("file", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--speed", type=float, default=50.0)
    parser.add_argument("--kill", type=float, nargs=2, metavar="S", help="SIGKILL a worker every A to B seconds")
    parser.add_argument("--mutate", type=int, metavar="SEED")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kafka-libs", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        stream = {"speed": args.speed, "gap_s": 120, "idle_s": 1800, "rating_wait_s": 3600, "emit_after_s": 10}
        if args.mutate is not None:
            args.file, args.truth = other_file(args.file, args.truth, args.mutate, Path(folder))
        rig = Rig(Path(folder), jars(args.kafka_libs), args.workers, stream)
        try:
            strikes = struck(rig, args.kill, 1) if args.kill else nullcontext()
            with strikes:
                sent = replay(args.file, rig.gateway(), args.speed, Path(folder) / "refused.jsonl")
                code, said = rig.workers.command("ingest", str(Path(folder) / "refused.jsonl"), "--format", "traffic")
                assert code == 0, said
            report, rows = reconciled(rig, args.file, Path(folder) / "events.jsonl")
            wrong = differences(truth(args.truth), list(lines(args.file)), report, rows)
            _print(argv, sent, report, wrong, rig.workers.killed)
        finally:
            rig.close()
    return 1 if wrong else 0


def lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, packed or not."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as source:
        yield from (line for line in source if line.strip())


def truth(file: Path) -> list[dict[str, Any]]:
    """What is true of the file's records."""
    return [json.loads(line) for line in lines(file)]


def other_file(file: Path, facts: Path, seed: int, folder: Path) -> tuple[Path, Path]:
    """Another file of the same schema, and its truth."""
    made = mutated([json.loads(line) for line in lines(file)], truth(facts), seed)
    found = folder / "other.jsonl", folder / "other.truth.jsonl"
    for path, rows in zip(found, made, strict=True):
        path.write_text("".join(written(rows)))
    return found


def replay(file: Path, url: str, speed: float, refused: Path) -> Counter[int]:
    """Post every line at its time; refused ones are written to a file. Returns answers by status."""
    counts: Counter[int] = Counter()
    left = refused.open("wb")
    lock = threading.Lock()
    pools = [ThreadPoolExecutor(1) for _ in range(SENDERS)]
    doors = [Door(url) for _ in pools]
    began = time.monotonic()

    def send(door: Door, line: bytes) -> None:
        status = door.post(line)
        with lock:
            counts[status] += 1
            if status == 400:
                left.write(line if line.endswith(b"\n") else line + b"\n")

    waiting = []
    for line in lines(file):
        record = json.loads(line)
        PAUSE.wait(max(0.0, began + record.get("offset_ms", 0) / 1000 / speed - time.monotonic()))
        name = record.get("key") or (record.get("value") or {}).get("conversation_id") or ""
        at = zlib.crc32(str(name).encode()) % SENDERS
        waiting.append(pools[at].submit(send, doors[at], line))
    for future in waiting:
        future.result()
    for pool, door in zip(pools, doors, strict=True):
        pool.shutdown()
        door.close()
    left.close()
    return counts


class Door:
    """One connection to the gateway."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def post(self, body: bytes) -> int:
        """Post until it is taken or refused for good, waiting as long as the answer says; the last status."""
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        while True:
            try:
                self._connection.request("POST", "/v1/events", body, headers)
                answer = self._connection.getresponse()
                answer.read()
            except (http.client.HTTPException, OSError):
                self._connection.close()  # kept alive too long: the same event again is known, or new
                continue
            if answer.status not in {429, 503}:
                return answer.status
            PAUSE.wait(float(answer.headers["Retry-After"]))


def reconciled(rig: Rig, file: Path, events: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What `driftline reconcile` says once nothing waits any more: the summary, and a row an event."""
    report: dict[str, Any] = {}

    def settled() -> bool:
        _, said = rig.workers.command("reconcile", str(file), "--json", "--events", str(events))
        report.clear()
        report.update(json.loads(said.splitlines()[0]))
        return bool(report["waiting"] == 0)

    until(settled, SETTLE_S, 2.0)
    return report, {row["event_id"]: row for row in map(json.loads, events.read_text().splitlines())}


def expected_letters(facts: Sequence[dict[str, Any]], records: Sequence[bytes]) -> dict[str, str]:
    """Name of each record that the truth calls malformed -> why; found by id, or by key where no id is readable.

    A truth may say that a field is missing which the event's type does not have: such a record is whole.
    """
    broken = [fact for fact in facts if fact["kind"] == "malformed"]
    by_id = {fact["event_id"]: fact["malformed"] for fact in broken if fact["event_id"]}
    by_key = {fact["key"]: fact["malformed"] for fact in broken if fact["key"]}
    found = {}
    for number, line in enumerate(records, 1):
        name, key = name_of(number, line), json.loads(line).get("key")
        reason = by_key.get(key) if name.startswith("#") else by_id.get(name)
        if reason is not None and not (reason == "missing_field" and _is_whole(json.loads(line).get("value"))):
            found[name] = reason
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, dict) and REQUIRED.get(str(value.get("type")), {""}).issubset(value)


def name_of(number: int, line: bytes) -> str:
    """The id of a line's event, or its number."""
    record = json.loads(line)
    raw = record["value_raw"].encode() if "value_raw" in record else json.dumps(record.get("value")).encode()
    return readable_id(raw) or f"#{number}"


def differences(
    facts: Sequence[dict[str, Any]], records: Sequence[bytes], report: dict[str, Any], rows: dict[str, dict[str, Any]]
) -> dict[str, list[str]]:
    """Kind of difference -> names of the events that are not where the truth says."""
    letters = expected_letters(facts, records)
    dead = {name: row["reason"] for name, row in rows.items() if row["outcome"] == "dead_lettered"}
    late = {fact["event_id"] for fact in facts if fact["kind"].startswith("late")}
    once = {name: 0 if name in letters else 1 for name in rows}
    found: dict[str, Any] = {
        "missing": report["missing"],
        "waiting": [name for name, row in rows.items() if row["outcome"] == "waiting"],
        "not of the file": set(rows) ^ {name_of(number, line) for number, line in enumerate(records, 1)},
        "effect not once": [name for name, row in rows.items() if row["effects"] != once[name]],
        "dead letters": set(letters.items()) ^ set(dead.items()),
        "late ones refused": [name for name in late if rows[name]["reason"] == "late"],
    }
    return {kind: [str(name) for name in names] for kind, names in found.items() if names}


def _print(
    argv: Sequence[str], sent: Counter[int], report: dict[str, Any], wrong: dict[str, list[str]], killed: int
) -> None:
    rows = [["what", "events"], ["distinct events of the file", str(report["events"])]]
    rows += [[f"answered {status}", str(count)] for status, count in sorted(sent.items())]
    rows.append(["workers killed", str(killed)])
    for outcome in ("accepted", "rejected", "dead_lettered", "removed", "waiting", "missing"):
        value = report[outcome]
        parts = sorted(value.items()) if isinstance(value, dict) else []
        total = sum(value.values()) if parts else len(value) if isinstance(value, dict | list) else value
        rows += [[outcome, str(total)], *([f"  {reason}", str(count)] for reason, count in parts)]
    rows.append(["not as the truth says", str(sum(len(names) for names in wrong.values()))])
    rows += [[f"  {kind}: {', '.join(names[:3])}", str(len(names))] for kind, names in wrong.items()]
    sys.stdout.write(f"{heading('accounts', argv)}\n{table(rows)}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
