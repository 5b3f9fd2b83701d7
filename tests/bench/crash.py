"""The crash loop: turns stream while workers die, the broker dies, commits are refused; then every id is accounted.

    driftline bench crash [--turns 20000] [--rate 150] [--kill 1 4] [--term 5 30] [--brokers 2] [--refuse 0.01]

On Apache Kafka and a durable Redis, with redelivered and poison records. `--kill A B` SIGKILLs a random ready worker
every A to B seconds, `--term` ends one in order, `--brokers` counts SIGKILLs of the broker, `--refuse` is the share of
offset commits that are answered with an error. Exit code 1 unless: every produced id is accounted, each effect
happened once, order is kept at each stage, every reply is trained by one sample, each poison record has its letter,
and at rest the committed offsets are the ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from confluent_kafka import Producer

from services.stream_lag import lag
from streams.topics import CHATS_CLEAN, CHATS_DEAD_LETTER, CHATS_RAW, EXAMPLES
from tests.bench._heading import heading, table
from tests.bench._rig import Rig, jars, struck
from tests.kafka_reading import read_all
from tests.stream_workers import Record, interleaved, outcomes, raw_chats, settled, until

TURNS_A_CHAT = 8
SETTLE_S = 180.0
FATAL = '"reason": "worker"'
"""In the log of a worker that gives up, to be restarted."""
STREAM = {"gap_s": 3, "idle_s": 20, "emit_after_s": 1, "rating_wait_s": 20, "session_timeout_s": 3}


def main(argv: list[str]) -> int:
    """Stream, strike, wait, judge, and print the table."""
    parser = argparse.ArgumentParser(prog="driftline bench crash")
    parser.add_argument("--turns", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=150.0, help="records a second")
    parser.add_argument("--kill", type=float, nargs=2, default=(1.0, 4.0), metavar="S")
    parser.add_argument("--term", type=float, nargs=2, default=(5.0, 30.0), metavar="S")
    parser.add_argument("--brokers", type=int, default=2)
    parser.add_argument("--refuse", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kafka-libs", type=Path)
    args = parser.parse_args(argv)
    chats = raw_chats(args.turns // TURNS_A_CHAT, args.seed)
    chats = {name: with_piece(events) if at % 7 == 0 else events for at, (name, events) in enumerate(chats.items())}
    records = with_poison(interleaved(chats, args.seed, repeats=0.03), args.turns // 1_000)
    entry = ("tests.faulty_worker", str(args.refuse), str(args.seed))
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), jars(args.kafka_libs), args.workers, STREAM, entry, more={"scrub": {"hold_s": 1.0}})
        try:
            ended: Counter[str] = Counter()
            with (
                struck(rig, args.kill, args.seed),
                struck(rig, args.term, args.seed + 1, lambda rng: rig.end_worker(rng, ended)),
            ):
                produced = stream(rig, records, args.rate, args.brokers)
            began = monotonic()
            verdict = judge(rig, [record for record in records if b'"poison' not in record[1]], produced)
            rows = [["what", "found"], ["records produced", str(len(produced))], *verdict[0]]
            rows += [
                ["workers killed / ended in order", f"{rig.workers.killed} / {ended['ended']}"],
                ["broker killed", str(rig.restarts)],
                ["workers that ended by themselves", str(rig.workers.log().count(FATAL))],
                ["settled after the last record, s", f"{monotonic() - began:.0f}"],
                ["WRONG", ", ".join(verdict[1]) or "nothing"],
            ]
            sys.stdout.write(f"{heading('crash', argv)}\n{table(rows)}\n")
            return 1 if verdict[1] else 0
        finally:
            rig.close()


def with_piece(events: Sequence[Record]) -> list[Record]:
    """A chat whose third turn may be a piece of a value, so that it is held for the next."""
    key, value = events[2]
    return [*events[:2], (key, json.dumps({**json.loads(value), "text": "it starts 400"}).encode()), *events[3:]]


def with_poison(records: Sequence[Record], count: int) -> list[Record]:
    """The records with as many that cannot be read, spread over the stream."""
    found = list(records)
    step = max(1, len(found) // (count + 1))
    for number in range(count):
        found.insert((number + 1) * step, (b"poison-%d" % number, b'{"event_id": "poison-%d", "type' % number))
    return found


def stream(rig: Rig, records: Sequence[Record], rate: float, brokers: int) -> set[str]:
    """Produce at a rate, killing the broker at even distances; the ids whose delivery was reported."""
    producer = Producer(
        {"bootstrap.servers": rig.kafka.bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random",
         "message.timeout.ms": 0, "linger.ms": 5, "log_level": 0}
    )  # fmt: skip
    produced: set[str] = set()
    kills = {(number + 1) * len(records) // (brokers + 1) for number in range(brokers)}
    pause, began = threading.Event(), monotonic()
    for number, (key, value) in enumerate(records):
        name = value.split(b'"event_id":', 1)[1].lstrip().split(b'"')[1].decode()
        producer.produce(
            CHATS_RAW, value=value, key=key,
            on_delivery=partial(_delivered, produced, name),
        )  # fmt: skip
        producer.poll(0)
        if number in kills:
            threading.Thread(target=rig.restart_broker).start()
        pause.wait(max(0.0, began + number / rate - monotonic()))
    producer.flush()
    return produced


def _delivered(produced: set[str], name: str, error: object, _message: object) -> None:
    if error is None:
        produced.add(name)


def judge(rig: Rig, records: Sequence[Record], produced: set[str]) -> tuple[list[list[str]], list[str]]:
    """Rows of the table, and what is wrong."""
    entries = settled(rig.workers, records, SETTLE_S)
    counts = outcomes(entries)
    poison = {name for name in produced if name.startswith("poison")}
    letters = {r.headers["__connect.errors.offset"] for r in read_all(rig.kafka.bootstrap, CHATS_DEAD_LETTER)}
    caught_up = until(lambda: not any(lag(rig.workers.settings, [CHATS_RAW, CHATS_CLEAN]).values()), 30, 1.0)
    twice, disorder, many = order(rig.kafka.bootstrap)
    effects = Counter(entry.effects for entry in entries.values() if entry is not None)
    checks = {
        "ids lost": counts["none"] or produced ^ (set(entries) | poison),
        "still waiting": counts["waiting"],
        "effects other than 1": set(effects) - {1},
        "order broken": disorder,
        "replies in several samples": many,
        "poison without a letter": len(poison) > len(letters),
        "offsets not committed": not caught_up,
    }
    rows = [
        ["distinct ids produced", str(len(produced))],
        *([outcome, str(count)] for outcome, count in sorted(counts.items())),
        ["poison records / letters' places", f"{len(poison)} / {len(letters)}"],
        ["clean records written again", str(twice)],
    ]
    return rows, [what for what, found in checks.items() if found]


def order(bootstrap: str) -> tuple[int, int, int]:
    """Repeats on chats.clean, conversations whose first occurrences are out of order, replies in several samples."""
    seen: dict[str, list[int]] = {}
    total = 0
    for read in read_all(bootstrap, CHATS_CLEAN):
        event = json.loads(read.value)
        total += 1
        turns = seen.setdefault(event["conversation"], [])
        if event["seq"] not in turns:
            turns.append(event["seq"])
    disorder = sum(turns != sorted(turns) for turns in seen.values())
    targets: dict[str, set[str]] = {}
    for read in read_all(bootstrap, EXAMPLES):
        sample = json.loads(read.value)
        for turn in sample.get("turns", ()):
            if turn.get("is_target"):
                targets.setdefault(turn["event_id"], set()).add(sample["sample_id"])
    return total - sum(map(len, seen.values())), disorder, sum(len(names) > 1 for names in targets.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
