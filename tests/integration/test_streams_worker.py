"""The stream worker as a process, over the embedded broker and a real Redis: accounted, once, stopped in time."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import redis

from services.stream_lag import lag
from streams.events import Message, encode
from streams.ledger import Outcome
from streams.topics import CHATS_CLEAN, CHATS_DEAD_LETTER, EXAMPLES
from tests.kafka_reading import read_all
from tests.stream_workers import Workers, entries, interleaved, outcomes, produce, raw_chats, settled, until

_FORM = (
    '{"event_id":"%s","type":"message","conversation_id":"%s","seq":0,"ts":"2024-01-01T00:00:00Z",'
    '"role":"%s","text":"hi"}'
)
BAD = [
    (b"bad-1", b'{"event_id": "b1", "type": "mess', "truncated_json"),
    (b"bad-2", b"hello", "not_json"),
    (b"bad-3", (_FORM % ("b3", "bad-3", "wizard")).encode(), "unknown_role"),
    (b"other", (_FORM % ("b4", "bad-4", "agent")).encode(), "bad_key"),
]


def test_streams_worker_accounts_for_everything(workers: Workers, mock_broker: dict[str, Any], tmp_path: Path) -> None:
    """Good events end accepted or rejected, bad ones as dead letters, repeated ones once; reconcile agrees."""
    process = workers.start()
    chats = raw_chats(30, seed=1)
    records = interleaved(chats, seed=1, repeats=0.1)
    bad = [(key, value) for key, value, _ in BAD]
    produce(mock_broker["bootstrap"], [*records[:40], *bad, *records[40:]])
    found = settled(workers, records, 40)
    counts = outcomes(found)
    assert counts["accepted"] + counts["rejected"] == len(found), counts
    assert counts["accepted"] > 0.8 * len(found)
    assert all(entry is not None and entry.effects == 1 for entry in found.values())

    file = tmp_path / "traffic.jsonl"
    lines = [{"key": k.decode(), "value_raw": v.decode()} for k, v in [*records, *bad]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, said = workers.command("reconcile", str(file), "--json", "--events", str(tmp_path / "events.jsonl"))
    told = json.loads(said.splitlines()[0])
    assert code == 0
    assert told["events"] == len(found) + len(bad)
    assert told["dead_lettered"] == {reason: 1 for _, _, reason in BAD}
    assert told["missing"] == []
    assert told["waiting"] == 0
    letters = read_all(mock_broker["bootstrap"], CHATS_DEAD_LETTER)
    assert sorted(read.headers["__connect.errors.exception.message"].decode() for read in letters) == sorted(
        reason for _, _, reason in BAD
    )
    assert not any(read.value for read in letters)
    assert "driftline_events_total" in workers.metrics(process)
    began = time.monotonic()
    assert workers.stop(process) == 0
    assert time.monotonic() - began < 6


def test_streams_worker_goes_faust_s_own_way_too(workers: Workers, mock_broker: dict[str, Any]) -> None:
    """With the lean drain off, or a Faust that it does not know, the same events are accounted for, and it ends."""
    workers.values["stream"] = {**workers.values["stream"], "lean_drain": False}
    process = workers.start()
    records = interleaved(raw_chats(12, seed=8), seed=8, repeats=0.1)
    produce(mock_broker["bootstrap"], records)
    found = settled(workers, records, 60)
    counts = outcomes(found)
    assert counts["accepted"] + counts["rejected"] == len(found), counts
    assert all(entry is not None and entry.effects == 1 for entry in found.values())
    assert workers.stop(process) == 0


def test_streams_worker_survives_kills(workers: Workers, mock_broker: dict[str, Any]) -> None:
    """SIGKILL while events stream: none lost, none effective twice, order kept, every sample once."""
    rng = random.Random(7)
    chats = raw_chats(60, seed=2)
    records = interleaved(chats, seed=2, repeats=0.05)
    process = workers.start()

    def strike() -> None:
        nonlocal process
        until(lambda: False, rng.uniform(0.0, 1.5))
        workers.kill(process)
        process = workers.start()

    produce(mock_broker["bootstrap"], records, every=len(records) // 3, pause=strike)
    found = settled(workers, records, 60)
    counts = outcomes(found)
    assert counts["accepted"] + counts["rejected"] == len(found), (counts, workers.log()[-2000:])
    assert {entry.effects for entry in found.values() if entry is not None} == {1}
    first_seen: dict[str, list[int]] = {}
    for read in read_all(mock_broker["bootstrap"], CHATS_CLEAN):
        event = json.loads(read.value)
        order = first_seen.setdefault(event["conversation"], [])
        if event["seq"] not in order:
            order.append(event["seq"])
    assert all(order == sorted(order) for order in first_seen.values())
    held = [json.loads(read.value) for read in read_all(mock_broker["bootstrap"], EXAMPLES)]
    targets: dict[str, set[str]] = {}
    for sample in (record for record in held if record["type"] == "sample"):
        for turn in sample["turns"]:
            if turn.get("is_target"):
                targets.setdefault(turn["event_id"], set()).add(sample["sample_id"])
    assert all(len(names) == 1 for names in targets.values())


def test_streams_worker_holds_a_piece_of_a_value(workers: Workers, mock_broker: dict[str, Any]) -> None:
    """A turn that may be a piece waits for the next, a last one until the time is over; nothing stays behind."""
    workers.values["scrub"] = {"hold_s": 1.0}
    process = workers.start()
    records = [
        (name, encode(Message(
            event_id=f"{name.decode()}-{seq}", conversation_id=name.decode(), seq=seq, ts="2026-01-02T03:04:05Z",
            role="customer", text=text,
        )))
        for name, seq, text in [(b"joined", 0, "starts 400"), (b"joined", 1, "then 0012 3456"), (b"lone", 0, "so 300")]
    ]  # fmt: skip
    produce(mock_broker["bootstrap"], records)
    settled(workers, records, 30)
    said = {
        event["event_id"]: event["text"]
        for event in (json.loads(read.value) for read in read_all(mock_broker["bootstrap"], CHATS_CLEAN))
    }
    assert said["joined-0"] == "starts <ACCOUNT_ID_1>"
    assert set(said) == {"joined-0", "joined-1", "lone-0"}
    assert until(lambda: not any(lag(workers.settings).values()), 10)
    assert workers.stop(process) == 0


def test_streams_worker_answers_erasures(workers: Workers, mock_broker: dict[str, Any], redis_url: str) -> None:
    """A customer with an open chat is forgotten: the worker says so, its state is gone, its events are erased."""
    workers.values["stream"] = {**workers.values["stream"], "idle_s": 300}
    workers.start()
    names = [f"erase-{seq}" for seq in range(3)]
    bodies = [
        {
            "event_id": name, "type": "message", "conversation_id": "gone", "seq": seq, "ts": "2026-01-02T03:04:05Z",
            "role": "customer", "text": f"please look after my parcel number {seq}", "customer": {"id": "jo-77"},
        }
        for seq, name in enumerate(names)
    ]  # fmt: skip
    records = [(b"gone", json.dumps(body).encode()) for body in bodies]
    produce(mock_broker["bootstrap"], records)
    assert until(lambda: outcomes(entries(workers, records))["waiting"] == len(names), 20)
    code, said = workers.command("forget", "jo-77", "--await", "clean", "--wait", "30")
    assert code == 0, said
    receipt = json.loads(said)
    assert receipt["receipts"] == {"broker": True, "clean": True}
    found = entries(workers, records)
    assert {(entry.outcome, entry.reason) for entry in found.values() if entry} == {(Outcome.REMOVED, "erased")}
    assert redis.Redis.from_url(redis_url).keys("asm:c:*") == []


def test_streams_worker_runs_dead_letters_again_once(workers: Workers, mock_broker: dict[str, Any]) -> None:
    """After a fix, the record behind a letter takes effect; a second call finds nothing to do."""
    process = workers.start()
    chats = raw_chats(1, seed=3)
    records = next(iter(chats.values()))
    texts = [json.loads(value).get("text") or "" for _, value in records]
    workers.stop(process)
    workers.values["scrub"] = {"max_chars": 5}
    process = workers.start()
    produce(mock_broker["bootstrap"], records)
    long = sum(len(text) > 5 for text in texts)
    assert until(lambda: outcomes(entries(workers, records))["dead_lettered"] == long, 20)
    workers.stop(process)
    del workers.values["scrub"]
    process = workers.start()
    code, said = workers.command("replay-dead-letters", "--json")
    assert (code, json.loads(said.splitlines()[0])["replayed"]) == (0, long), said
    assert until(lambda: not outcomes(entries(workers, records))["dead_lettered"], 30)
    found = settled(workers, records, 30)
    assert {entry.outcome for entry in found.values() if entry} <= {Outcome.ACCEPTED, Outcome.REJECTED}
    _, again = workers.command("replay-dead-letters", "--json")
    assert json.loads(again.splitlines()[0])["replayed"] == 0
