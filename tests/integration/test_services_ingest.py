"""`driftline ingest` against the embedded broker: every record once, bytes kept, resumed where it ended."""

from __future__ import annotations

import argparse
import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given
from hypothesis import strategies as st

from services import reconcile
from services.gateway_config import IngestConfig
from services.ingest import Ingest, IngestFailed, Summary, arguments, digest, run
from services.ingest_broker import Broker, NoBroker, open_broker
from services.ingest_state import FilePositions, Position, RedisPositions, open_positions
from services.pacing import Pace, ReaderOffsets
from services.settings import KafkaConfig, KeysConfig, RedisConfig, Settings
from services.simulate import Mix, traffic
from services.source_files import agents_of
from streams.sources import SourceRecord
from streams.topics import CHATS_RAW
from tests.kafka_reading import embedded, read_all


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one embedded broker for this module."""
    yield from embedded(tmp_path_factory.mktemp("broker"))


@pytest.fixture
def settings(broker: str, redis_url: str, request: pytest.FixtureRequest) -> Settings:
    """Settings of the embedded broker, with topics of this test's own, and this module's Redis."""
    prefix = f"{request.node.name.partition('[')[0]}."
    Producer({"bootstrap.servers": broker}).list_topics(prefix + CHATS_RAW, timeout=5)
    kafka = KafkaConfig(bootstrap=broker, epoch=prefix, embedded=True, prefix=prefix)
    return Settings(kafka=kafka, redis=RedisConfig(url=redis_url))


def stored(settings: Settings) -> list[tuple[bytes | None, bytes]]:
    """Every (key, value) on chats.raw."""
    records = read_all(settings.kafka.bootstrap, settings.kafka.prefix + CHATS_RAW)
    return [(record.key, record.value) for record in records]


def call(settings: Settings, path: Path, *more: str) -> int:
    parser = argparse.ArgumentParser()
    arguments(parser)
    return run(parser.parse_args([str(path), *more]), settings)


def test_ingest_sends_a_traffic_file_once(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All records of a gzip traffic file arrive byte for byte, broken ones too; a second call sends nothing."""
    records = list(traffic(1, 60, mix=Mix(malformed=0.05)))
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress("".join(r.line() + "\n" for r in records).encode()))
    assert call(settings, path, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["sent"], first["format"], first["complete"]) == (len(records), "traffic", True)
    wanted = Counter((None if r.key is None else r.key.encode(), r.raw()) for r in records)
    assert Counter(stored(settings)) == wanted
    assert call(settings, path, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["sent"], again["skipped"]) == (0, len(records))
    assert Counter(stored(settings)) == wanted


_MAIL = "From {0} Thu Jan  1 1{1}:00:00 2026\nFrom: <{0}>\nSubject: Lamp\nMessage-ID: <{1}>\n{2}\n\n{3}\n\n"
_DATE = "Date: Thu, 01 Jan 2026 1%d:00:00 +0000"
_CHAT = '{{"turns": [{{"role": "user", "text": "q{0}"}}, {{"role": "agent", "text": "a{0}"}}]}}\n'


def repeated(head: str, part: str) -> str:
    """A head and six parts that differ in their number."""
    return head + "".join(part.format(number) for number in range(6))


FILES: dict[str, tuple[str, str]] = {
    "traffic": ("a.jsonl", "".join(record.line() + "\n" for record in traffic(2, 12))),
    "events": ("b.jsonl", "".join(json.dumps(record.value) + "\n" for record in traffic(3, 12))),
    "conversations": ("c.jsonl", repeated("", _CHAT)),
    "csv": ("d.csv", repeated("ticket_id,sender,body\n", "{0},customer,where is {0}\n{0},agent,here\n")),
    "bitext": ("e.csv", repeated("flags,instruction,category,intent,response\n", "B,ask {0},X,y,say {0}\n")),
    "mbox": (
        "f.mbox",
        _MAIL.format("ann@home.example", 0, _DATE % 0, "The lamp is dark.")
        + _MAIL.format("eve@shop.example", 1, "In-Reply-To: <0>\n" + _DATE % 1, "A new one comes.")
        + _MAIL.format("ann@home.example", 2, "In-Reply-To: <1>\n" + _DATE % 2, "Thanks!"),
    ),
    "faq": ("g.md", repeated("# Help\n\n", "## Can I return lamp {0}?\n\nYes, within a week.\n\n")),
}
"""A small file of every format."""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FILES)
def test_ingest_of_every_format_resumes_and_can_be_reconciled(
    form: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, packed: bool
) -> None:
    """Found by itself, sent once though it was stopped, and reconcile looks for the very events that were sent."""
    settings = replace(settings, kafka=replace(settings.kafka, prefix=f"{form}.{packed}.", epoch=f"{form}{packed}"))
    settings = replace(settings, keys=KeysConfig(ring={"k1": "a1" * 32}, fixed="b2" * 32))
    Producer({"bootstrap.servers": settings.kafka.bootstrap}).list_topics(settings.kafka.prefix + CHATS_RAW, timeout=5)
    name, text = FILES[form]
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    staff = ("--agents", "shop.example") if form == "mbox" else ()
    with open_broker(settings, lambda: 0.0) as broker, open_positions(settings, broker.identity) as positions:
        positions.save(digest(path, form), Position(2, complete=False))  # as a call that was stopped behind two
    assert call(settings, path, "--json", *staff) == 0
    rest = json.loads(capsys.readouterr().out)
    assert (rest["format"], rest["skipped"], rest["complete"], rest["unreadable"]) == (form, 2, True, {})
    assert call(settings, path, "--json", *staff) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == 0
    values = [json.loads(value) for _, value in stored(settings)]
    assert len(values) == rest["sent"] == rest["records"] - 2 > 0
    parser = argparse.ArgumentParser()
    reconcile.arguments(parser)
    args = parser.parse_args([str(path), *staff])
    looked = [row.event_id for row in reconcile.distinct(path, form, settings.keys.keys(), agents_of(args, ()))]
    assert {value["event_id"] for value in values} <= set(looked)
    assert len(looked) == len({value["event_id"] for value in values}) + 2
    if form == "mbox":
        assert [value["role"] for value in values if value["type"] == "message"] == ["customer"]


def test_ingest_keeps_the_order_of_a_conversation(settings: Settings, tmp_path: Path) -> None:
    """Records of one conversation lie in one partition in the order of the file, with the tenant as a header."""
    rows = [
        {"conversation_id": f"c{i}", "turns": [{"role": "user", "text": str(t)} for t in range(9)]} for i in range(20)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert call(settings, path, "--tenant", "acme") == 0
    order: dict[bytes | None, list[int]] = {}
    for key, value in stored(settings):
        order.setdefault(key, []).append(json.loads(value)["seq"])
    assert set(map(tuple, order.values())) == {tuple(range(10))}
    assert len(order) == 20


def test_ingest_goes_on_after_a_stop(settings: Settings) -> None:
    """Stopped in the middle, a second run sends exactly the rest."""
    records = [SourceRecord(b"k%d" % i, b"%d" % i) for i in range(500)]
    with open_broker(settings, lambda: 0.0) as broker, open_positions(settings, broker.identity) as positions:
        stop = threading.Event()
        first = Ingest(broker, positions, stop, lambda: 0.0)

        def some() -> Iterator[SourceRecord]:
            yield from records[:200]
            raise KeyboardInterrupt

        summary = Summary("f", "events")
        with pytest.raises(KeyboardInterrupt):
            first.run("digest", some(), summary, speed=None, tenant="")
        first.finish(summary)
        assert positions.load("digest") == Position(200, complete=False)
        rest = Summary("f", "events")
        Ingest(broker, positions, stop, lambda: 0.0).run("digest", iter(records), rest, speed=None, tenant="")
        assert (rest.sent, rest.skipped, rest.complete) == (300, 200, True)
    assert sorted(int(value) for _, value in stored(settings)) == list(range(500))


def test_ingest_waits_for_the_reader(settings: Settings) -> None:
    """Without a reader it stops after 2 MB a partition; commits let it go on; no record is deleted unread."""
    body = b"x" * 50_000
    records = [SourceRecord(b"key-%d" % i, body) for i in range(400)]
    group = settings.kafka.prefix + settings.ingest.reader_group
    now = [0.0]
    stop = threading.Event()
    with open_broker(settings, lambda: now[0]) as broker:
        assert broker.pace is not None
        done = Summary("f", "events")
        positions = FilePositions(Path("unused"), "b")
        positions.save = lambda *_: None  # type: ignore[method-assign]  # this test is about pace
        job = threading.Thread(
            target=lambda: Ingest(broker, positions, stop, lambda: now[0]).run(
                "d", iter(records), done, speed=None, tenant=""
            )
        )
        job.start()
        reader = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        reader.subscribe([settings.kafka.prefix + CHATS_RAW])
        seen = 0
        while seen < 400:
            ahead, _ = broker.pace.ahead()
            assert ahead <= 2_000_000
            got = reader.consume(40, timeout=1)
            seen += len(got)
            if got:
                reader.commit(asynchronous=False)
            now[0] += 0.5
        job.join(20)
        reader.close()
        assert not job.is_alive()
        assert done.sent == 400


def test_ingest_refuses_what_it_cannot_start(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file, an unknown format and a bad speed end with code 2 and a sentence that says what to do."""
    assert call(settings, tmp_path / "none.jsonl") == 2
    odd = tmp_path / "x.bin"
    odd.write_bytes(b"\x00\x01\x02")
    assert call(settings, odd) == 2
    assert call(settings, odd, "--speed", "0") == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in ("no such file", "--format", "wants more than 0"))


def test_ingest_names_the_broker_that_does_not_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is named with the setting to change."""
    monkeypatch.setattr("services.ingest_broker.CONTACT_S", 0.5)
    away = replace(settings, kafka=KafkaConfig(bootstrap="127.0.0.1:1"))
    with pytest.raises(NoBroker, match="DRIFTLINE_KAFKA__BOOTSTRAP"), open_broker(away, lambda: 0.0):
        pass


def test_ingest_stops_when_the_broker_fails_a_record(tmp_path: Path) -> None:
    """A delivery error ends the call with librdkafka's word, and the position stays before the record."""
    base = {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 200, "log_level": 0}
    positions = FilePositions(tmp_path, "b")
    job = Ingest(Broker(Producer(base), CHATS_RAW, None, "b"), positions, threading.Event(), lambda: 0.0)
    with pytest.raises(IngestFailed, match="_MSG_TIMED_OUT"):
        job.run("d", iter([SourceRecord(b"k", b"v")]), Summary("f", "events"), speed=None, tenant="")
    assert positions.load("d") == Position(0, complete=False)


def test_ingest_names_records_that_no_broker_takes(settings: Settings, tmp_path: Path) -> None:
    """A record above a megabyte is counted, and the ones after it are sent."""
    records = [SourceRecord(b"k", b"x" * 1_000_001), SourceRecord(b"k", b"v")]
    with open_broker(settings, lambda: 0.0) as broker:
        summary, positions = Summary("f", "events"), FilePositions(tmp_path, "b")
        Ingest(broker, positions, threading.Event(), lambda: 0.0).run(
            "d", iter(records), summary, speed=None, tenant=""
        )
    assert (summary.sent, summary.unreadable, positions.load("d").done) == (1, {"too_large": 1}, 2)


def test_ingest_keeps_the_times_of_the_file(settings: Settings, tmp_path: Path) -> None:
    """With a speed, a record is not sent before its time on the clock has come."""
    now = [0.0]
    sent: list[float] = []

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    def records() -> Iterator[SourceRecord]:
        for offset in (1000.0, 1000.0, 5000.0):
            yield SourceRecord(b"k", b"v", offset)
            sent.append(now[0])

    with open_broker(settings, lambda: 0.0) as broker:
        job = Ingest(broker, FilePositions(tmp_path, "b"), threading.Event(), clock)
        job.run("d", records(), Summary("f", "traffic"), speed=10.0, tenant="")
    assert sent[1] < 0.4 <= sent[2]


def test_ingest_positions_live_in_redis_or_in_a_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis where it answers, with a time to live; else files of this folder."""
    with open_positions(settings, "broker-1") as found:
        assert isinstance(found, RedisPositions)
        assert found.load("d") == Position()
        found.save("d", Position(3))
        assert found.load("d") == Position(3)
    monkeypatch.chdir(tmp_path)
    with open_positions(replace(settings, redis=RedisConfig(url="redis://127.0.0.1:1/0")), "broker-1") as found:
        assert isinstance(found, FilePositions)
        found.save("d", Position(4, complete=True))
        assert found.load("d") == Position(4, complete=True)
    assert IngestConfig().tenant == ""


def test_ingest_pace_counts_what_the_reader_has_not_committed() -> None:
    """Room is judged for the fullest partition, on its way included, and returns with the committed offset."""
    committed = {0: 0}
    now = [0.0]
    pace = Pace(lambda: committed, lambda: now[0], ahead_bytes=100, ahead_records=3)
    assert pace.room(500)
    pace.sent(60)
    assert not pace.room(60)
    pace.delivered(0, 0, 60)
    assert not pace.room(60)
    assert pace.room(40)
    committed[0] = 1
    assert not pace.room(60)
    now[0] = 1.0
    assert pace.room(60)
    for offset in (1, 2, 3):
        pace.sent(1)
        pace.delivered(0, offset, 1)
    assert not pace.room(1)
    pace.sent(9)
    pace.failed(9)
    assert pace.ahead() == (3, 3)


def test_ingest_reader_offsets_are_empty_without_a_broker() -> None:
    """While the broker does not answer nothing counts as read."""
    reader = ReaderOffsets({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "g", CHATS_RAW, timeout_s=0.2)
    assert reader() == {}
    reader.close()


@given(st.lists(st.tuples(st.sampled_from(["send", "deliver", "read", "fail"]), st.integers(0, 40)), max_size=80))
def test_ingest_pace_never_lets_a_partition_overflow(steps: list[tuple[str, int]]) -> None:
    """Under any order of sends, reports and reads no partition ever holds more unread than the limit allows."""
    committed = {0: 0, 1: 0}
    now = [0.0]
    pace = Pace(lambda: committed, lambda: now[0], ahead_bytes=100, ahead_records=5)
    flying: list[int] = []
    stored: dict[int, list[int]] = {0: [], 1: []}
    for step, size in steps:
        now[0] += 1
        partition = size % 2
        if step == "send" and pace.room(size):
            pace.sent(size)
            flying.append(size)
        elif step == "deliver" and flying:
            pace.delivered(partition, len(stored[partition]), flying[0])
            stored[partition].append(flying.pop(0))
        elif step == "fail" and flying:
            pace.failed(flying.pop(0))
        elif step == "read":
            committed[partition] = min(len(stored[partition]), committed[partition] + 1)
        for number, sizes in stored.items():
            unread = sizes[committed[number] :]
            assert len(unread) <= 5
            assert sum(unread) <= 100
