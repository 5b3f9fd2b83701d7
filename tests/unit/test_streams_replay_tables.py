"""All tables together: opening, late labels, fates, erasure; and a server that is full."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from services.clean import _watch
from streams.events import Annotation, Label, Sample, Split, Turn
from streams.ledger import Ledger, Outcome
from streams.replay import (
    UNIFORM,
    ConfigMismatch,
    Draw,
    Mix,
    Offset,
    Offsets,
    Part,
    Quota,
    ReplayConfig,
    ServerFull,
    TableConfig,
    TopicPartition,
    UnsafeServer,
    Wait,
    check_server,
    open_table,
    open_tables,
)
from streams.replay.audit import audit
from streams.replay.codec import sample_digest
from streams.replay.config import TrainTable
from streams.replay.erasure import erase, rewrite_aof, tombstone
from streams.replay.figures import stats
from streams.replay.lineage import seen_by
from streams.replay.probe import Probe
from streams.replay.tables import Fate, Tables
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables

FRESH = Mix((Part("fresh", "*", 1.0),))
CONFIG = ReplayConfig(train=TrainTable(samples_per_insert=0.0))


@pytest.fixture(params=sorted(executables()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own."""
    made = RedisServer(executables()[request.param], tmp_path, "--rdbcompression", "no")
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """One server for tests that leave it as it is."""
    made = RedisServer(next(iter(executables().values())), tmp_path_factory.mktemp("redis"))
    yield made.start()
    made.kill()


@pytest.fixture
def tables(shared: redis.Redis) -> Tables:
    """Empty tables."""
    shared.flushall()
    return open_tables(shared, CONFIG, KEY, "ep", configure=True)


def moment(tables: Tables) -> float:
    """Server time."""
    return float(tables.client.time()[0])


def note(i: int, target: str, *, label: Label = "bad", weight: float = 0.5) -> Annotation:
    """A late rating."""
    return Annotation(
        feedback_id=f"f{i}", conversation="x", targets=(target,), label=label, weight=weight, received_at=1.0
    )


def test_tables_route_by_split(tables: Tables) -> None:
    """Each sample lands in the table of its split."""
    now = moment(tables)
    splits: tuple[Split, ...] = ("train", "val", "test", "train")
    items = [sample(i, received_at=now, split=split) for i, split in enumerate(splits)]
    reports = tables.insert(items, [Offset("examples", 0, i) for i in range(4)])
    assert {name: report.inserted for name, report in reports.items()} == {"train": 2, "val": 1, "test": 1}


def test_tables_open_refuses_unsafe_servers(tables: Tables) -> None:
    """An eviction policy or a missing append-only file is refused with the setting's name."""
    client = tables.client
    client.config_set("maxmemory-policy", "volatile-lru")
    with pytest.raises(UnsafeServer, match="noeviction"):
        check_server(client)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("appendonly", "no")
    with pytest.raises(UnsafeServer, match="appendonly"):
        check_server(client)
    check_server(client, require_aof=False)
    client.config_set("appendonly", "yes")


def test_tables_open_warns_of_tight_servers(tables: Tables) -> None:
    """Too little memory for full tables and a fork, or an expiry that stops all calls, is said and not refused."""
    client = tables.client
    client.config_set("lazyfree-lazy-expire", "yes")
    assert check_server(client, tables=[CONFIG.train]) == ()
    client.config_set("lazyfree-lazy-expire", "no")
    client.config_set("maxmemory", CONFIG.train.max_bytes)
    found = open_tables(client, CONFIG, KEY, "ep").warnings
    client.config_set("maxmemory", 0)
    assert [warning.split(" = ")[0] for warning in found] == ["maxmemory", "lazyfree-lazy-expire"]


def test_tables_settings_that_change_later_are_noticed(tables: Tables) -> None:
    """The figures name a policy that was changed under way, and the worker's watch ends it."""
    client = tables.client
    watch = _watch(client, require_aof=True)
    assert not watch()
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "allkeys-lru" in stats(tables.train).problems[0]
        with pytest.raises(UnsafeServer, match="allkeys-lru"):
            watch()
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_tables_open_refuses_other_settings(tables: Tables) -> None:
    """A key, a bucket size or a lane's policy that differs from the stored one is a mismatch; limits may change."""
    client = tables.client
    with pytest.raises(ConfigMismatch, match="never made"):
        open_table(client, "train-b", TableConfig(), KEY)
    with pytest.raises(ConfigMismatch, match="key"):
        open_table(client, "train", CONFIG.train, b"other" * 8)
    with pytest.raises(ConfigMismatch, match="bucket"):
        open_table(client, "train", dataclasses.replace(CONFIG.train, bucket_s=5), KEY)
    tables.train.insert([sample(1, received_at=moment(tables))])
    with pytest.raises(ConfigMismatch, match="plain"):
        open_table(
            client, "train", dataclasses.replace(CONFIG.train, quotas={"*": Quota(9, "lowest")}), KEY, configure=True
        )
    open_table(client, "train", dataclasses.replace(CONFIG.train, capacity=7), KEY, configure=True)


def test_tables_relane_finds_samples_by_their_replies(tables: Tables) -> None:
    """A sample leaves quarantine by the event id of its reply, and the buffer by no lane at all; again is harmless."""
    tables.insert([sample(1, received_at=moment(tables), lane="quarantine")])
    assert isinstance(tables.train.draw(FRESH, 1, seed=1), Wait)
    assert [tables.relane(["e1", "unknown"], "chat") for _ in range(2)] == [1, 0]
    drawn = tables.train.draw(FRESH, 1, seed=1)
    assert isinstance(drawn, Draw)
    assert [tables.relane(["e1"], "") for _ in range(2)] == [1, 0]
    assert audit(tables.train) == []


def test_tables_annotation_reaches_the_stored_reply(tables: Tables) -> None:
    """A late rating changes label and weight of its reply, once per feedback, wherever the sample is stored."""
    now = moment(tables)
    tables.insert([sample(1, received_at=now, split="val")])
    assert tables.annotate(note(1, "e1"), Offset("examples", 0, 9)) == "applied"
    assert tables.annotate(note(1, "e1"), Offset("examples", 0, 9)) == "duplicate"
    assert tables.annotate(note(1, "e1"), Offset("examples", 0, 10)) == "duplicate"
    assert tables.annotate(note(2, "e1", label="good", weight=2.0)) == "applied"
    (stored,) = tables.val.samples([sample_digest(sample(1, received_at=now, split="val"), KEY)])
    assert stored is not None
    assert [(t.label, t.weight) for t in stored.turns if t.is_target] == [("good", 2.0)]
    ledger = Ledger(tables.client, KEY, 100)
    (entry,) = ledger.read([ledger.digest("f1")])
    assert entry is not None
    assert (entry.outcome, entry.effects) == (Outcome.ACCEPTED, 1)
    assert audit(tables.val) == []


def test_tables_annotation_moves_to_a_lane(tables: Tables) -> None:
    """An annotation that names a lane takes the stored sample there, whatever table holds it; the edit stays."""
    now = moment(tables)
    draft = sample(1, received_at=now, split="val")
    edit = msgspec.structs.replace(draft, sample_id="e1/edit/0")
    tables.insert([draft, edit, sample(2, received_at=now, split="val")])
    moved = msgspec.structs.replace(note(1, "e1"), lane="quarantine")
    assert tables.annotate(moved, Offset("examples", 0, 9)) == "applied"
    assert tables.annotate(moved, Offset("examples", 0, 9)) == "duplicate"
    assert {lane.name: lane.total for lane in stats(tables.val).lanes} == {"plain": 2, "quarantine": 1}
    (stored,) = tables.val.samples([sample_digest(draft, KEY)])
    assert stored is not None
    assert [t.label for t in stored.turns if t.is_target] == ["bad"]
    assert audit(tables.val, full=True) == []


def test_tables_annotations_outlive_a_replacement(tables: Tables) -> None:
    """A sample that replaces an annotated one has its label, and is found by later feedback; nothing is left behind."""
    now = moment(tables)
    old = sample(1, received_at=now)
    tables.insert([old])
    tables.annotate(note(1, "e1"))
    digest = sample_digest(old, KEY)
    new = msgspec.structs.replace(old, sample_id="e1/sft/1", replaces=digest.hex())
    assert tables.train.insert([new]).letters == "i"
    found = tables.train.samples([digest, sample_digest(new, KEY)])
    assert [s and next(t.label for t in s.turns if t.is_target) for s in found] == [None, "bad"]
    assert tables.annotate(note(1, "e1")) == "duplicate"
    assert tables.annotate(note(2, "e1", label="good", weight=2.0)) == "applied"
    (again,) = tables.train.samples([sample_digest(new, KEY)])
    assert again is not None
    assert [(t.label, t.weight) for t in again.turns if t.is_target] == [("good", 2.0)]
    assert audit(tables.train, full=True) == []


def test_tables_annotation_without_target_is_rejected(tables: Tables) -> None:
    """Feedback on a reply that nothing stores is rejected as `no_target`."""
    assert tables.annotate(note(1, "e1")) == "no_target"
    ledger = Ledger(tables.client, KEY, 100)
    (entry,) = ledger.read([ledger.digest("f1")])
    assert entry is not None
    assert (entry.outcome, entry.reason) == (Outcome.REJECTED, "no_target")


def test_tables_annotation_marks_the_draft_and_spares_the_edit(tables: Tables) -> None:
    """A bad label reaches the sample of the draft; the sample of the agent's edit keeps its own."""
    now = moment(tables)
    draft = sample(1, received_at=now)
    edit = msgspec.structs.replace(draft, sample_id="e1/edit/0")
    assert tables.train.insert([draft, edit]).letters == "ii"
    tables.annotate(note(1, "e1"))
    found = tables.train.samples([sample_digest(draft, KEY), sample_digest(edit, KEY)])
    assert [next(t.label for t in s.turns if t.is_target) for s in found if s] == ["bad", "unknown"]


def test_tables_annotation_of_weight_0_takes_the_target_away(tables: Tables) -> None:
    """A reply of weight 0 is no target."""
    now = moment(tables)
    tables.train.insert([sample(1, received_at=now)])
    tables.annotate(note(1, "e1", weight=0.0))
    (stored,) = tables.train.samples([sample_digest(sample(1, received_at=now), KEY)])
    assert stored is not None
    assert not any(turn.is_target for turn in stored.turns)


def test_tables_fates_for_reconcile(tables: Tables) -> None:
    """Resident, trained and gone, or neither: what `removed` is derived from."""
    now = moment(tables)
    items = [sample(i, received_at=now) for i in range(3)]
    tables.insert(items)
    digests = [sample_digest(item, KEY) for item in items]
    drawn = tables.train.draw(FRESH, 3, seed=1)
    assert isinstance(drawn, Draw)
    handles = [d.handle for d in drawn.records if d.handle.digest != digests[2]]
    tables.train.update(handles, [1.0, 1.0], run=1, step=1)
    tables.train.retire([digests[1], digests[2]], "superseded")
    assert tables.fates(digests) == [Fate(True, True), Fate(False, True), Fate(False, False)]  # noqa: FBT003 - a row
    assert tables.fates([]) == []


def test_tables_erase_covers_draws_in_flight(tables: Tables) -> None:
    """From the tombstone on nothing is drawn, fetched or inserted; a late update still leaves its lineage."""
    now = moment(tables)
    items = [sample(i, received_at=now, customer=f"k1:{i % 2}") for i in range(10)]
    tables.insert(items)
    before = tables.train.draw(FRESH, 10, seed=1)
    assert isinstance(before, Draw)
    customer = tables.train.customer_digest("k1:1")
    tombstone(tables.all, [customer])
    assert tables.train.fetch(before).missing == 5
    during = tables.train.draw(UNIFORM, 40, seed=2)
    assert isinstance(during, Draw)
    assert {s.customer for s in tables.train.fetch(during).samples if s} == {"k1:0"}
    receipt = tables.erase(["k1:1"])
    assert (receipt.items, [t.left for t in receipt.tables]) == (5, [0, 0, 0, 0])
    assert tables.train.fetch(before).missing == 5
    report = tables.train.update([d.handle for d in before.records], [1.0] * 10, run=1, step=3)
    assert (report.applied, report.stale) == (5, 5)
    assert seen_by(tables.train, receipt.tables[0].erased[0]).steps == ((1, 3),)
    assert tables.insert([sample(99, received_at=now, customer="k1:1")])["train"].tombstoned == 1
    assert audit(tables.train, full=True) == []


def test_tables_erase_remembers_what_had_left(tables: Tables) -> None:
    """The receipt names the steps of samples that were evicted before the erasure."""
    now = moment(tables)
    tables.insert([sample(1, received_at=now, customer="k1:x")])
    drawn = tables.train.draw(FRESH, 1, seed=1)
    assert isinstance(drawn, Draw)
    tables.train.update([drawn.records[0].handle], [1.0], run=2, step=8)
    tables.train.retire([drawn.records[0].handle.digest], "superseded")
    receipt = tables.erase(["k1:x"])
    train = receipt.tables[0]
    assert (receipt.items, train.first_step, train.last_step, train.trainings) == (0, 8, 8, 1)


def test_tables_erase_of_many_goes_in_bounded_pieces(tables: Tables) -> None:
    """A customer with 1,000 samples is gone after calls of at most 32 samples each."""
    now = moment(tables)
    tables.insert([sample(i, received_at=now, customer="k1:x") for i in range(1_000)])
    calls = int(tables.client.info("commandstats")["cmdstat_evalsha"]["calls"])
    assert tables.erase(["k1:x"]).items == 1_000
    assert int(tables.client.info("commandstats")["cmdstat_evalsha"]["calls"]) - calls > 1_000 // 32
    assert audit(tables.train, full=True) == []


def test_tables_erase_reports_an_unreachable_table(tables: Tables, server: RedisServer) -> None:
    """A server that is down leaves the receipt incomplete; repeating it completes it."""
    server.client().config_set("appendfsync", "always")  # everysec may put a write off while a slow fsync runs
    other = open_table(server.client(), "train:1", TableConfig(), KEY, configure=True)
    now = moment(tables)
    for table in (tables.train, other):
        table.insert([sample(1, received_at=now, customer="k1:x")])
    server.kill()
    customers = [other.customer_digest("k1:x")]
    receipt = erase([tables.train, other], customers)
    assert (receipt.items, receipt.unreachable, receipt.complete) == (1, ("train:1",), False)
    server.start()
    again = erase([tables.train, other], customers)
    assert (again.items, again.unreachable) == (1, ())
    assert rewrite_aof(server.client(), again, threading.Event()).complete


def test_tables_erasure_leaves_no_byte(server: RedisServer) -> None:
    """A secret stands in the append-only file before, and nowhere in it or in the dump after the rewrite."""
    client = server.client()
    client.config_set("appendfsync", "always")  # or a busy disk may hold writes back for two seconds
    tables = open_tables(client, dataclasses.replace(CONFIG, compress=False), KEY, "ep", configure=True)
    now = moment(tables)
    secret = "zanzibar-4711"
    turns = (Turn(role="customer", text=secret), Turn(role="agent", text="ok", is_target=True, event_id="e1"))
    item = msgspec.structs.replace(sample(1, received_at=now, customer="k1:x"), turns=turns)
    tables.insert([item, *(sample(i, received_at=now) for i in range(2, 50))])
    assert holding(server.folder, secret)
    receipt = rewrite_aof(client, tables.erase(["k1:x"]), threading.Event())
    assert receipt.complete
    client.save()
    assert not holding(server.folder, secret)
    assert holding(server.folder, "answer 7"), "the search itself works on what is left"


def holding(folder: Path, needle: str) -> list[Path]:
    """Files below a server's folder that hold this text."""
    return [path for path in folder.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


def test_tables_full_memory_stops_inserts_only(server: RedisServer) -> None:
    """At maxmemory an insert fails before any effect; draw, update, erase, sweep, audit and retire succeed."""
    client = server.client()
    tables = open_tables(client, dataclasses.replace(CONFIG, compress=False), KEY, "ep", configure=True)
    now = moment(tables)
    pad = "x" * 3_000
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 4_000_000)
    done = 0
    with pytest.raises(ServerFull):  # noqa: PT012 - which insert is the first to fail depends on the server
        while done < 5_000:
            tables.train.insert(group(done, now, pad), [Offset("examples", 0, done // 8)] * 8)
            done += 8
    assert audit(tables.train, full=True) == []
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 500_000)
    with pytest.raises(ServerFull):
        tables.annotate(note(1, "e1"))
    drawn = tables.train.draw(FRESH, 32, seed=1, lease_s=60)
    assert isinstance(drawn, Draw)
    assert tables.train.update([d.handle for d in drawn.records], [1.0] * 32, run=1, step=1).applied == 32
    assert not isinstance(tables.train.sample(UNIFORM, 8, seed=2), Wait)
    tables.train.sweep()
    probe = Probe(tables.train)
    while not probe.walks:
        assert probe.step() == []
    assert tables.train.retire([drawn.records[0].handle.digest], "superseded") == 1
    assert tables.erase(["k1:0"]).items > 0
    assert audit(tables.train, full=True) == []
    client.config_set("maxmemory", 0)
    assert tables.train.insert(group(done, now, pad), [Offset("examples", 0, done // 8)] * 8).letters == "ti" * 4


def group(first: int, now: float, pad: str) -> list[Sample]:
    """Eight big samples of two customers."""
    return [sample(first + i, received_at=now, reply=pad, customer=f"k1:{i % 2}") for i in range(8)]


def test_tables_promoted_replica_is_healed_by_rewinding(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A replica that misses the newest writes gives a lower resume offset; replaying from there is exact."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    name = min(executables())
    primary, replica = (
        RedisServer(executables()[name], tmp_path / folder, "--repl-diskless-sync-delay", "0") for folder in "ab"
    )
    request.addfinalizer(primary.kill)
    request.addfinalizer(replica.kill)
    first, second = primary.start(), replica.start()
    tables = open_tables(first, CONFIG, KEY, "ep", configure=True)
    now = moment(tables)
    items = [sample(i, received_at=now) for i in range(100)]
    source = [Offset("examples", 0, i) for i in range(100)]
    second.replicaof("127.0.0.1", str(primary.port))
    tables.insert(items[:60], source[:60])
    first.wait(1, 5_000)
    second.replicaof("NO", "ONE")
    tables.insert(items[60:], source[60:])
    ids = {str(c.info("server")["run_id"]) for c in (first, second)}
    primary.kill()
    assert len(ids) == 2, "a reader sees by the run id that it talks to another server"
    promoted = open_tables(second, CONFIG, KEY, "ep", configure=True)
    resume = Offsets(second, "ep", 100).resume_offset(TopicPartition("examples", 0))
    assert resume == 60
    assert promoted.insert(items[40:], source[40:])["train"].letters == "d" * 20 + "i" * 40
    assert audit(promoted.train, full=True) == []


def test_tables_a_line_has_its_own(redis_client: redis.Redis) -> None:
    """Training samples of a configured line lie apart, held-out ones together; fates and erasure cover them all."""
    redis_client.flushall()
    config = dataclasses.replace(CONFIG, lines=("b",))
    tables = open_tables(redis_client, config, KEY, configure=True)
    now = float(redis_client.time()[0])
    made = [
        msgspec.structs.replace(sample(i, received_at=now, customer="k1:x"), line="b" if i % 2 else "a")
        for i in range(4)
    ]  # fmt: skip
    held_out = msgspec.structs.replace(sample(9, received_at=now, split="val"), line="b")
    reports = tables.insert([*made, held_out])
    assert {name: report.inserted for name, report in reports.items()} == {"train": 2, "train-b": 2, "val": 1}
    drawn = tables.of("b").draw(FRESH, 4, seed=1, lease_s=60)
    assert isinstance(drawn, Draw)
    tables.of("b").update([record.handle for record in drawn.records], [1.0] * len(drawn.records), run=1, step=1)
    assert [fate.trained for fate in tables.fates(sample_digest(one, KEY) for one in made)] == [False, True] * 2
    assert tables.of("c") is tables.train
    receipt = tables.erase(["k1:x"])
    assert {table.table: len(table.erased) for table in receipt.tables if table.erased} == {"train": 2, "train-b": 2}
