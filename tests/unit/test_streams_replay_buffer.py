"""One table of the replay buffer, operation by operation, on every server found."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from streams.events import Sample
from streams.ledger import Ledger, Outcome
from streams.replay import (
    UNIFORM,
    Draw,
    Mix,
    Offset,
    Part,
    Quota,
    ReplayBuffer,
    ReplayError,
    TableConfig,
    Wait,
    open_table,
)
from streams.replay.audit import audit
from streams.replay.codec import sample_digest
from streams.replay.figures import stats, top
from streams.replay.lineage import Seen, seen_by
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables

DAY = 86_400
FRESH = Mix((Part("fresh", "*", 1.0),))


@pytest.fixture(scope="module", params=sorted(executables()))
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of each server found."""
    folder: Path = tmp_path_factory.mktemp("redis")
    server = RedisServer(executables()[request.param], folder)
    connected = server.start()
    yield connected
    connected.close()
    server.kill()


@pytest.fixture
def now(client: redis.Redis) -> int:
    """Server time on an empty server."""
    client.flushall()
    return int(client.time()[0])


def table(client: redis.Redis, **changes: object) -> ReplayBuffer:
    """A training table with some settings changed."""
    config = dataclasses.replace(TableConfig(), **changes)  # type: ignore[arg-type]  # fields are named by the tests
    return open_table(client, "train", config, KEY, "ep", configure=True)


def clock(client: redis.Redis, now: float) -> None:
    """Set the test clock of a table that was made with one."""
    client.hset("{rb:train}:cfg", "clock", now)


def many(n: int, now: float, **more: object) -> list[Sample]:
    """n samples of different conversations."""
    return [sample(i, received_at=now, **more) for i in range(n)]  # type: ignore[arg-type]  # as `sample` takes them


def offsets(n: int, first: int = 0) -> list[Offset]:
    """n offsets in a row."""
    return [Offset("examples", 0, first + i) for i in range(n)]


def drawn(answer: Draw | Wait) -> Draw:
    """The draw, which must not be a wait."""
    assert isinstance(answer, Draw)
    return answer


def test_buffer_insert_returns_what_was_stored(client: redis.Redis, now: int) -> None:
    """What goes in comes out equal, and the audit is clean."""
    buffer = table(client)
    items = many(100, now)
    report = buffer.insert(items, offsets(100))
    assert (report.inserted, report.size) == (100, 100)
    batch = buffer.fetch(drawn(buffer.draw(FRESH, 100, seed=1)))
    assert sorted(s.sample_id for s in batch.samples if s) == sorted(s.sample_id for s in items)
    assert {s.sample_id: s for s in batch.samples if s} == {s.sample_id: s for s in items}
    assert audit(buffer, full=True) == []


def test_buffer_redelivery_inserts_nothing(client: redis.Redis, now: int) -> None:
    """The offset bit stops redelivery even of evicted samples; digest and claims stop another offset."""
    buffer = table(client, quotas={"*": Quota(10)})
    items = many(30, now)
    assert buffer.insert(items, offsets(30)).evicted == 20
    assert buffer.insert(items, offsets(30)).duplicate == 30
    assert buffer.insert(items, offsets(30, 100)).duplicate == 30


def test_buffer_group_shares_one_offset(client: redis.Redis, now: int) -> None:
    """All samples of one offset enter together, and all of them are duplicates the second time."""
    buffer = table(client)
    items, one = many(5, now), [Offset("examples", 0, 7)] * 5
    assert buffer.insert(items, one).letters == "iiiii"
    assert buffer.insert(items, one).letters == "ddddd"
    with pytest.raises(ValueError, match="more than 64"):
        buffer.insert(many(65, now), [Offset("examples", 0, 8)] * 65)


def test_buffer_insert_files_the_ledger(client: redis.Redis, now: int) -> None:
    """Every event of a stored sample is accepted under its digest; of a refused one rejected with the reason."""
    buffer = table(client)
    good, bad = many(2, now)
    bad = msgspec.structs.replace(
        bad, turns=(*bad.turns[:1], msgspec.structs.replace(bad.turns[1], weight=float("nan")))
    )
    assert buffer.insert([good, bad], offsets(2)).letters == "ir"
    ledger = Ledger(client, KEY, DAY)
    entries = ledger.read([ledger.digest(event) for event in ("q0", "e0", "q1", "e1")])
    digest = sample_digest(good, KEY).hex()
    assert [(e.outcome, e.effects, e.samples) for e in entries[:2] if e] == [(Outcome.ACCEPTED, 1, (digest,))] * 2
    assert [(e.outcome, e.reason) for e in entries[2:] if e] == [(Outcome.REJECTED, "bad_weight")] * 2


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_buffer_unusable_weight_is_rejected_and_consumed(client: redis.Redis, now: int, weight: float) -> None:
    """A weight that is not finite and above 0 leaves nothing behind but its consumed offset."""
    buffer = table(client)
    items = many(1, now, weight=weight)
    assert buffer.insert(items, offsets(1)).letters == "r"
    assert buffer.insert(items, offsets(1)).letters == "d"
    assert stats(buffer).counters["n"] == 0
    assert audit(buffer, full=True) == []


def test_buffer_oversize_item_evicts_nothing(client: redis.Redis, now: int) -> None:
    """An item above max_item_bytes is rejected before anything leaves for it."""
    buffer = table(client, max_item_bytes=400, max_bytes=4_000)
    buffer.insert(many(10, now))
    noise = random.Random(1)
    big = sample(99, received_at=now, reply="".join(noise.choices("abcdefghijklmnop", k=5_000)))
    report = buffer.insert([big])
    assert (report.letters, report.evicted, report.size) == ("r", 0, 10)


def test_buffer_clears_targets_that_another_sample_trains(client: redis.Redis, now: int) -> None:
    """A reply is trained once: a later sample keeps it as context, and is a duplicate when no target is left."""
    buffer = table(client)
    first, other = many(2, now)
    both = msgspec.structs.replace(
        other, sample_id="e1/sft/0", turns=first.turns + other.turns, event_ids=(*first.event_ids, *other.event_ids)
    )
    assert buffer.insert([first]).letters == "i"
    assert buffer.insert([both]).letters == "i"
    (stored,) = buffer.samples([sample_digest(both, KEY)])
    assert stored is not None
    assert [turn.is_target for turn in stored.turns] == [False, False, False, True]
    copy = msgspec.structs.replace(first, sample_id="e0x/sft/0")
    assert buffer.insert([copy]).letters == "d"


def test_buffer_replacement_takes_the_place(client: redis.Redis, now: int) -> None:
    """A sample that replaces a stored one removes it and keeps its targets, however it is called."""
    buffer = table(client)
    (first,) = many(1, now)
    buffer.insert([first])
    digest = sample_digest(first, KEY)
    new = msgspec.structs.replace(first, sample_id="e0/sft/1", replaces=digest.hex())
    same = msgspec.structs.replace(first, replaces=digest.hex())
    assert buffer.insert([same]).letters == "i"
    assert buffer.insert([new]).letters == "i"
    assert stats(buffer).counters["n"] == 1
    assert buffer.samples([sample_digest(new, KEY)])[0] == new
    assert audit(buffer, full=True) == []


def test_buffer_replacement_of_nothing_is_not_stored(client: redis.Redis, now: int) -> None:
    """Where the old sample was refused, has left or was replaced already, nothing enters."""
    buffer = table(client)
    first, other = many(2, now)
    new = msgspec.structs.replace(first, sample_id="e0/sft/1", replaces=sample_digest(first, KEY).hex())
    assert buffer.insert([new]).letters == "d"
    assert buffer.insert([first, other, new]).letters == "iii"
    assert buffer.insert([msgspec.structs.replace(new, sample_id="e0/sft/2"), first]).letters == "dd"
    buffer.retire([sample_digest(new, KEY)], "superseded")
    late = msgspec.structs.replace(new, sample_id="e0/sft/2", replaces=sample_digest(new, KEY).hex())
    assert buffer.insert([late]).letters == "d"
    assert stats(buffer).counters["n"] == 1
    assert audit(buffer, full=True) == []


def test_buffer_replacement_stands_where_the_old_one_stood(client: redis.Redis, now: int) -> None:
    """It takes over the lane that the old sample was moved to, and the targets that another sample trains."""
    buffer = table(client)
    first, other = many(2, now)
    both = msgspec.structs.replace(
        other, sample_id="e1/sft/0", turns=first.turns + other.turns, event_ids=(*first.event_ids, *other.event_ids)
    )
    buffer.insert([first, both])
    digest = sample_digest(both, KEY)
    buffer.relane([digest], "quarantine")
    new = msgspec.structs.replace(both, sample_id="e1/sft/1", replaces=digest.hex())
    assert buffer.insert([new]).letters == "i"
    (stored,) = buffer.samples([sample_digest(new, KEY)])
    assert stored is not None
    assert [turn.is_target for turn in stored.turns] == [False, False, False, True]
    assert {lane.name: lane.total for lane in stats(buffer).lanes} == {"plain": 1, "quarantine": 1}
    assert audit(buffer, full=True) == []


def test_buffer_late_item_is_expired(client: redis.Redis, now: int) -> None:
    """What is past its ttl on arrival is refused by the server's clock, and its offset is consumed."""
    buffer = table(client, ttl_s=DAY)
    items = many(1, now - DAY)
    assert buffer.insert(items, offsets(1)).letters == "e"
    assert buffer.insert(items, offsets(1)).letters == "d"


def test_buffer_payloads_expire_with_every_service_dead(client: redis.Redis, now: int) -> None:
    """Text is gone at the end of its bucket plus ttl by Redis' own clock."""
    buffer = table(client, ttl_s=DAY, bucket_s=100)
    buffer.insert(many(1, now))
    left = client.ttl(f"{{rb:train}}:d:{now // 100}")
    assert DAY < left <= DAY + 100


def test_buffer_overdue_item_is_never_handed_out(client: redis.Redis, now: int) -> None:
    """Draw, fetch of an older draw, and sweep all hold the ttl, swept or not."""
    start = now + 1_000_000
    buffer = open_table(client, "train", TableConfig(ttl_s=40, bucket_s=10), KEY, configure=True, test_clock=start)
    buffer.insert([sample(0, received_at=start - 30), sample(1, received_at=start)])
    old = drawn(buffer.draw(FRESH, 2, seed=1))
    clock(client, start + 15)
    again = buffer.fetch(drawn(buffer.draw(UNIFORM, 20, seed=1)))
    assert {s.sample_id for s in again.samples if s} == {"e1/sft/0"}
    assert len(old.records) == 2
    assert buffer.sweep().expired == 1
    assert audit(buffer, full=True) == []


def test_buffer_expired_bucket_is_missing_then_swept(client: redis.Redis, now: int) -> None:
    """Where Redis has expired the text before a sweep, fetch says missing, and the sweep takes the rest away."""
    start = now + 1_000_000
    buffer = open_table(client, "train", TableConfig(ttl_s=40, bucket_s=10), KEY, configure=True, test_clock=start)
    buffer.insert([sample(i, received_at=start) for i in range(4)])
    old = drawn(buffer.draw(FRESH, 4, seed=1))
    clock(client, start + 60)
    client.delete(f"{{rb:train}}:d:{start // 10}")
    assert audit(buffer, full=True) == []
    assert buffer.fetch(old).missing == 4
    assert buffer.sweep().expired == 4
    assert (stats(buffer).counters["n"], stats(buffer).counters["bytes"]) == (0, 0)
    assert audit(buffer, full=True) == []


@pytest.mark.parametrize("skew", [-DAY, DAY])
def test_buffer_client_clock_does_not_matter(
    client: redis.Redis, now: int, skew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a client a day off, arrival, ttl, leases and sweeps go by the server's clock."""
    monkeypatch.setattr("time.time", lambda: float(now + skew))
    buffer = table(client, ttl_s=DAY)
    assert buffer.insert([sample(0, received_at=now), sample(1, received_at=now - DAY)]).letters == "ie"
    leased = drawn(buffer.draw(FRESH, 1, seed=1, lease_s=3_600))
    assert buffer.fetch(leased).missing == 0
    assert (buffer.sweep().expired, stats(buffer).leased) == (0, 1)
    assert audit(buffer, full=True) == []


def test_buffer_lineage_says_from_where_it_is_complete(client: redis.Redis, now: int) -> None:
    """Steps beyond `lineage_steps` leave in whole thousands, and `seen_by` names the first that is still known."""
    buffer = table(client, lineage_steps=1_000)
    buffer.insert(many(1, now))
    (record,) = drawn(buffer.draw(FRESH, 1, seed=1)).records
    for step in (1, 1_500):
        buffer.update([record.handle], [1.0], run=1, step=step)
    assert seen_by(buffer, record.handle.digest) == Seen(((1, 1), (1, 1_500)), 0)
    buffer.update([record.handle], [1.0], run=2, step=2_500)
    assert seen_by(buffer, record.handle.digest) == Seen(((1, 1_500), (2, 2_500)), 1_000)


def test_buffer_anchor_lane_outlives_ttl(client: redis.Redis, now: int) -> None:
    """Curated samples stay past the table's ttl, and their bucket never expires."""
    buffer = table(client, ttl_s=DAY)
    assert buffer.insert(many(1, now - 9 * DAY, lane="anchor")).letters == "i"
    assert client.ttl("{rb:train}:d:x") == -1
    batch = buffer.fetch(drawn(buffer.draw(Mix((Part("uniform", "anchor", 1.0),)), 2, seed=1)))
    assert batch.missing == 0


def test_buffer_star_leaves_out_anchor_and_quarantine(client: redis.Redis, now: int) -> None:
    """`*` draws training lanes only."""
    buffer = table(client)
    buffer.insert([sample(i, received_at=now, lane=lane) for i, lane in enumerate(["a", "anchor", "quarantine"])])
    batch = buffer.fetch(drawn(buffer.draw(UNIFORM, 50, seed=3)))
    assert {s.lane for s in batch.samples if s} == {"a"}


def test_buffer_byte_budget_holds(client: redis.Redis, now: int) -> None:
    """Stored bytes never pass the budget; the lane that is fullest by its quota gives way."""
    buffer = table(client, max_bytes=5_000, max_item_bytes=1_000, quotas={"*": Quota(100), "small": Quota(10)})
    buffer.insert([sample(i, received_at=now, lane="small") for i in range(8)])
    report = buffer.insert([sample(i, received_at=now, lane="big") for i in range(100, 160)])
    assert report.bytes <= 5_000
    assert report.evicted > 0
    assert audit(buffer, full=True) == []


def test_buffer_lowest_lane_full_of_top_priority(client: redis.Redis, now: int) -> None:
    """A `lowest` lane whose items all have the highest bin still makes room."""
    buffer = table(client, quotas={"*": Quota(5, "lowest")})
    buffer.insert(many(5, now))
    batch = drawn(buffer.draw(FRESH, 5, seed=1))
    buffer.update([d.handle for d in batch.records], [1e9] * 5, run=1, step=1)
    assert buffer.insert([sample(9, received_at=now)]).letters == "i"
    assert audit(buffer) == []


def test_buffer_quota_cut_is_stepped_down(client: redis.Redis, now: int) -> None:
    """A quota cut from 1,000 to 10 evicts at most 256 items a script, and the next insert still arrives."""
    buffer = table(client, quotas={"*": Quota(1_000)})
    buffer.insert(many(1_000, now))
    buffer = table(client, quotas={"*": Quota(10)})
    calls = stats(buffer).counters["calls"]
    report = buffer.insert([sample(5_000, received_at=now)], offsets(1))
    assert (report.letters, report.size, report.evicted) == ("i", 10, 991)
    assert stats(buffer).counters["calls"] - calls == 4
    assert audit(buffer) == []


def test_buffer_reservoir_keeps_a_uniform_sample_of_what_was_trained(client: redis.Redis, now: int) -> None:
    """Every trained item stays with the same chance, early or late (fixed seed, 3 sigma on halves)."""
    buffer = table(client, quotas={"*": Quota(50, "reservoir", fresh_items=200)})
    for step in range(20):
        items = [sample(step * 100 + i, received_at=now) for i in range(20)]
        buffer.insert(items)
        batch = drawn(buffer.draw(FRESH, 20, seed=step))
        buffer.update([d.handle for d in batch.records], [1.0] * 20, run=1, step=step + 1)
    kept = buffer.fetch(drawn(buffer.draw(UNIFORM, 400, seed=5))).samples
    ids = {int(s.sample_id[1:].split("/")[0]) // 100 for s in kept if s}
    early = {s.sample_id for s in kept if s and int(s.sample_id[1:].split("/")[0]) < 1_000}
    assert stats(buffer).counters["n"] == 50
    assert 12 <= len(early) <= 38
    assert len(ids) > 10
    assert audit(buffer) == []


def test_buffer_update_counts_a_step_once(client: redis.Redis, now: int) -> None:
    """Repeating (run, step) changes nothing; a sample leaves `fresh` and rises by its priority."""
    buffer = table(client)
    buffer.insert(many(4, now))
    batch = drawn(buffer.draw(FRESH, 4, seed=1))
    handles = [d.handle for d in batch.records]
    for _ in range(3):
        assert buffer.update(handles, [2.0] * 4, run=1, step=7).applied == 4
    again = drawn(buffer.draw(UNIFORM, 4, seed=2))
    assert {d.times for d in again.records} == {1}
    assert isinstance(buffer.draw(FRESH, 1, seed=3), Wait)
    assert seen_by(buffer, handles[0].digest).steps == ((1, 7),)
    with pytest.raises(ValueError, match="finite"):
        buffer.update(handles, [0.0] * 4, run=1, step=8)


def test_buffer_stale_handles_leave_lineage_and_touch_nobody(client: redis.Redis, now: int) -> None:
    """A sample retired in flight is booked as trained, and the slot's new owner keeps its priority."""
    buffer = table(client)
    (old,) = many(1, now)
    buffer.insert([old])
    (record,) = drawn(buffer.draw(FRESH, 1, seed=1)).records
    assert buffer.retire([record.handle.digest], "superseded") == 1
    buffer.insert([sample(50, received_at=now)])
    report = buffer.update([record.handle], [9.0], run=1, step=1)
    assert (report.applied, report.stale) == (0, 1)
    assert seen_by(buffer, record.handle.digest).steps == ((1, 1),)
    (new,) = drawn(buffer.draw(FRESH, 1, seed=1)).records
    assert (new.handle.slot, new.times) == (record.handle.slot, 0)


def test_buffer_spent_items_are_drawn_no_more(client: redis.Redis, now: int) -> None:
    """After `max_sampled` trainings an item stays stored but is in no policy."""
    buffer = table(client, max_sampled=2)
    buffer.insert(many(1, now))
    for step in (1, 2):
        batch = drawn(buffer.draw(UNIFORM, 1, seed=1))
        buffer.update([batch.records[0].handle], [1.0], run=1, step=step)
    assert isinstance(buffer.draw(UNIFORM, 1, seed=1), Wait)
    assert stats(buffer).counters["n"] == 1


def test_buffer_leases_are_disjoint_and_come_back(client: redis.Redis, now: int) -> None:
    """Leased items are drawn by nobody else; a dead holder's items return to their bin at the deadline."""
    start = now + 1_000_000
    buffer = open_table(client, "train", TableConfig(), KEY, configure=True, test_clock=start)
    buffer.insert(many(40, start))
    held = [{d.handle for d in drawn(buffer.draw(FRESH, 10, seed=n, lease_s=5)).records} for n in range(4)]
    assert len(set.union(*held)) == 40
    assert isinstance(buffer.draw(FRESH, 1, seed=9), Wait)
    assert audit(buffer) == []
    clock(client, start + 6)
    assert buffer.sweep(1_000).leases == 40
    assert len(drawn(buffer.draw(FRESH, 40, seed=9)).records) == 40
    assert buffer.update(list(held[0]), [1.0] * 10, run=1, step=1).applied == 10
    assert audit(buffer) == []


def test_buffer_lease_ends_by_its_holder_only(client: redis.Redis, now: int) -> None:
    """After the deadline the item goes to a second holder; the first one's late update counts but frees nothing."""
    start = now + 1_000_000
    buffer = open_table(client, "train", TableConfig(), KEY, configure=True, test_clock=start)
    buffer.insert(many(1, start))
    (first,) = drawn(buffer.draw(FRESH, 1, seed=1, lease_s=5)).records
    clock(client, start + 6)
    assert buffer.sweep().leases == 1
    (second,) = drawn(buffer.draw(FRESH, 1, seed=2, lease_s=5)).records
    assert (first.handle[:3], first.handle.lease != second.handle.lease) == (second.handle[:3], True)
    assert buffer.update([first.handle], [4.0], run=1, step=1).applied == 1
    assert stats(buffer).leased == 1, "the second holder's lease stands"
    assert isinstance(buffer.draw(UNIFORM, 1, seed=3), Wait)
    assert audit(buffer) == []
    assert buffer.update([second.handle], [8.0], run=1, step=2).applied == 1
    (again,) = drawn(buffer.draw(UNIFORM, 1, seed=3)).records
    assert (again.times, stats(buffer).leased) == (2, 0)
    assert seen_by(buffer, first.handle.digest).steps == ((1, 1), (1, 2))
    assert audit(buffer) == []


def test_buffer_held_item_waits_for_its_new_bin(client: redis.Redis, now: int) -> None:
    """The priority that a foreign update set is the one under which an expired lease returns the item."""
    start = now + 1_000_000
    buffer = open_table(client, "train", TableConfig(), KEY, configure=True, test_clock=start)
    buffer.insert(many(1, start))
    (free,) = drawn(buffer.draw(FRESH, 1, seed=1)).records
    drawn(buffer.draw(FRESH, 1, seed=2, lease_s=5))
    buffer.update([free.handle], [2.0], run=1, step=1)
    clock(client, start + 6)
    assert buffer.sweep().leases == 1
    assert stats(buffer).lanes[0].bins[44] == 1
    assert audit(buffer) == []


def test_buffer_repeated_handles_in_one_update_are_legal(client: redis.Redis, now: int) -> None:
    """The last priority wins, the step counts once, and a leased handle may be among them."""
    buffer = table(client, max_sampled=3)
    buffer.insert(many(3, now))
    records = drawn(buffer.draw(FRESH, 3, seed=1, lease_s=60)).records
    a, b, c = (record.handle for record in records)
    buffer.update([a, b, a, c, a, b], [1.0, 2.0, 4.0, 1.0, 8.0, 2.0], run=1, step=1)
    bins = stats(buffer).lanes[0].bins
    assert (bins[52], bins[44], bins[40]) == (1, 1, 1)
    assert audit(buffer) == []
    buffer.update([a, a], [1.0, 1.0], run=1, step=2)
    buffer.update([a, b, a], [1.0, 1.0, 2.0], run=1, step=3)
    assert stats(buffer).lanes[0].spent == 1
    assert audit(buffer) == []


def test_buffer_sample_is_draw_and_fetch_of_one_moment(client: redis.Redis, now: int) -> None:
    """The same seed gives the records of `draw` and the samples of `fetch`; a poisoned payload is retired."""
    buffer = table(client)
    items = many(40, now)
    buffer.insert([*items, *(sample(i, received_at=now, lane="anchor") for i in range(50, 60))])
    mix = Mix((Part("uniform", "*", 0.5), Part("uniform", "anchor", 0.5)))
    alone = drawn(buffer.draw(mix, 24, seed=5))
    both = buffer.sample(mix, 24, seed=5)
    assert not isinstance(both, Wait)
    assert (both[0].records, both[1].samples) == (alone.records, buffer.fetch(alone).samples)
    value = client.hget(f"{{rb:train}}:d:{now // DAY}", sample_digest(items[0], KEY))
    assert isinstance(value, bytes)
    client.hset(f"{{rb:train}}:d:{now // DAY}", sample_digest(items[0], KEY), value[:12])
    answer = buffer.sample(FRESH, 50, seed=1)
    assert not isinstance(answer, Wait)
    assert (answer[1].missing, answer[1].poisoned) == (1, 1)
    assert stats(buffer).counters["n"] == 49


def test_buffer_retention_by_event_time(client: redis.Redis, now: int) -> None:
    """With `retention_basis = event` a chat of last month is expired on arrival, and text goes by its own date."""
    old, new = (
        msgspec.structs.replace(s, happened_at=at)
        for s, at in zip(many(2, now), (now - 2 * DAY, now - 100), strict=True)
    )
    buffer = table(client, ttl_s=DAY, bucket_s=100)
    assert buffer.insert([old]).letters == "i"
    client.flushall()
    buffer = table(client, ttl_s=DAY, bucket_s=100, retention_basis="event")
    assert buffer.insert([old, new], offsets(2)).letters == "ei"
    assert client.exists(f"{{rb:train}}:d:{(now - 100) // 100}")
    assert buffer.insert([new], offsets(1, 9)).letters == "d"
    (found,) = buffer.fetch(drawn(buffer.draw(FRESH, 1, seed=1))).samples
    assert found == new
    assert audit(buffer, full=True) == []


def test_buffer_limiter_is_exact_and_never_stops_inserts(client: redis.Redis, now: int) -> None:
    """With 4 samples an insert, a buffer of 64 and 1,000 inserts the learner gets exactly 4,064; anchors are free."""
    buffer = table(client, samples_per_insert=4.0, error_buffer=64.0)
    buffer.insert(many(1_000, now))
    got = 0
    while isinstance(answer := buffer.draw(UNIFORM, 32, seed=got), Draw):
        got += len(answer.records)
    assert got == 4_064
    assert answer == Wait("limiter", 1_000)
    buffer.insert([sample(5_000, received_at=now, lane="anchor")])
    assert isinstance(buffer.draw(Mix((Part("uniform", "anchor", 1.0),)), 32, seed=1), Draw)


def test_buffer_same_seed_draws_the_same(client: redis.Redis, now: int) -> None:
    """A draw is a function of seed and state."""
    buffer = table(client)
    buffer.insert(many(200, now))
    mix = Mix((Part("fresh", "*", 0.5), Part("uniform", "*", 0.5)))
    one, two, other = (drawn(buffer.draw(mix, 16, seed=seed)).records for seed in (4, 4, 5))
    assert one == two != other


def test_buffer_held_out_tables_are_not_drawn_for_training(client: redis.Redis, now: int) -> None:
    """Val, test and golden are drawn with purpose eval only, and take samples of their own split only."""
    buffer = open_table(client, "val", TableConfig(), KEY, configure=True)
    with pytest.raises(ReplayError, match="val"):
        buffer.draw(UNIFORM, 1, seed=1)
    with pytest.raises(ValueError, match="split"):
        buffer.insert(many(1, now))
    buffer.insert(many(3, now, split="val"))
    assert isinstance(buffer.draw(UNIFORM, 2, seed=1, purpose="eval"), Draw)
    with pytest.raises(ReplayError, match="train"):
        table(client).draw(UNIFORM, 1, seed=1, purpose="eval")


def test_buffer_poisoned_payload_is_retired(client: redis.Redis, now: int) -> None:
    """A payload that cannot be read is taken out and counted; the rest of the batch goes on."""
    buffer = table(client)
    items = many(6, now)
    buffer.insert(items)
    bucket = f"{{rb:train}}:d:{now // DAY}"
    poisons = [b"\x01\x01not deflate", b"\x09\x01", b"\x01\x07x", b""]
    for item, poison in zip(items, poisons, strict=False):
        value = client.hget(bucket, sample_digest(item, KEY))
        assert isinstance(value, bytes)
        client.hset(bucket, sample_digest(item, KEY), value[:8] + poison)
    batch = buffer.fetch(drawn(buffer.draw(FRESH, 6, seed=1)))
    assert (batch.missing, batch.poisoned) == (4, 4)
    assert stats(buffer).counters["n"] == 2
    assert audit(buffer) == []


def test_buffer_relane_moves_to_quarantine(client: redis.Redis, now: int) -> None:
    """A suspicious sample leaves `*` with its lane, and the old lane's queue does not stumble over it."""
    buffer = table(client, quotas={"*": Quota(2)})
    items = many(2, now)
    buffer.insert(items)
    assert buffer.relane([sample_digest(items[0], KEY)], "quarantine") == 1
    batch = buffer.fetch(drawn(buffer.draw(UNIFORM, 8, seed=1)))
    assert {s.sample_id for s in batch.samples if s} == {"e1/sft/0"}
    buffer.insert([sample(i, received_at=now) for i in range(10, 13)])
    assert audit(buffer) == []


def test_buffer_survives_script_flush(client: redis.Redis, now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SCRIPT FLUSH between any two calls, and right before a repeated one, is not seen by the caller."""
    buffer, known = table(client), client.evalsha

    def forgotten(*args: Any) -> Any:
        client.script_flush()
        return known(*args)

    monkeypatch.setattr(client, "evalsha", forgotten)
    buffer.insert(many(4, now), offsets(4))
    batch = drawn(buffer.draw(FRESH, 2, seed=1))
    buffer.update([d.handle for d in batch.records], [1.0, 1.0], run=1, step=1)
    buffer.sweep()
    assert buffer.retire([batch.records[0].handle.digest], "x") == 1


def test_buffer_sequence_beyond_2_to_31(client: redis.Redis, now: int) -> None:
    """Generations wrap at 2^32 and queues still name the right slot."""
    buffer = table(client, quotas={"*": Quota(5)})
    buffer.insert(many(1, now))
    client.hset("{rb:train}:n", "seq", 2**32 - 3)
    buffer.insert([sample(i, received_at=now) for i in range(10, 30)])
    assert stats(buffer).counters["n"] == 5
    assert audit(buffer, full=True) == []


def test_buffer_top_orders_for_review(client: redis.Redis, now: int) -> None:
    """By priority, by age, and newest without a label."""
    buffer = table(client)
    buffer.insert([sample(i, received_at=now - i) for i in range(6)])
    batch = drawn(buffer.draw(FRESH, 6, seed=1))
    buffer.update([d.handle for d in batch.records], [1.0 + d.handle.slot for d in batch.records], run=1, step=1)
    assert [s.sample_id for s in top(buffer, 2)] == ["e5/sft/0", "e4/sft/0"]
    assert top(buffer, 1, by="age")[0].sample_id == "e5/sft/0"
    assert top(buffer, 1, by="unlabelled")[0].sample_id == "e5/sft/0"
