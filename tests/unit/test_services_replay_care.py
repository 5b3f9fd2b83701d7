"""Housekeeping beside the writer: leases come back, cut erasures end, figures are exported."""

from __future__ import annotations

import threading

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from services.replay_care import Audits, care, housekeep
from services.replay_figures import ReplayCollector, UsageCollector
from streams.replay import UNIFORM, Draw, ReplayBuffer, ReplayConfig, open_tables
from streams.replay.config import BrokenInvariant
from streams.replay.erasure import tombstone
from streams.replay.figures import stats
from streams.replay.tables import Tables
from tests.replay_fuzz import KEY, sample


@pytest.fixture
def tables(redis_client: redis.Redis) -> Tables:
    """Empty tables with eight samples of four customers."""
    made = open_tables(redis_client, ReplayConfig(), KEY, configure=True)
    now = float(redis_client.time()[0])
    made.insert([sample(i, received_at=now, customer=f"k1:{i % 4}") for i in range(8)])
    return made


def test_replay_care_finishes_a_cut_erasure(tables: Tables) -> None:
    """A process that died between tombstone and deletes leaves nothing behind after one round."""
    customer = tables.train.customer_digest("k1:1")
    tombstone(tables.all, [customer])
    housekeep(tables)
    assert tables.client.exists(b"{rb:train}:c:" + customer) == 0
    assert tables.client.scard("{rb:train}:er") == 0


def test_replay_care_exports_figures(tables: Tables) -> None:
    """Items by state, capacity and age, under the names that rules and dashboards use; flow and bytes by table."""
    drawn = tables.train.draw(UNIFORM, 3, seed=1, lease_s=100)
    assert isinstance(drawn, Draw)
    registry = CollectorRegistry()
    registry.register(ReplayCollector(tables, Audits(tables)))
    text = generate_latest(registry).decode()
    leased = len({d.handle.slot for d in drawn.records})
    assert f'driftline_replay_buffer_items{{state="leased"}} {leased}.0' in text
    assert f'driftline_replay_buffer_items{{state="fresh"}} {8 - leased}.0' in text
    assert "driftline_replay_buffer_capacity_items 100000.0" in text
    assert "driftline_replay_buffer_oldest_timestamp_seconds" in text
    assert 'driftline_replay_buffer_samples_total{outcome="inserted",table="train"} 8.0' in text
    assert 'driftline_replay_buffer_departures_total{reason="evicted",table="val"} 0.0' in text
    assert 'driftline_replay_buffer_drawn_samples_total{table="train"} 3.0' in text
    assert f'driftline_replay_buffer_bytes{{table="train"}} {stats(tables.train).counters["bytes"]}.0' in text
    assert "driftline_replay_buffer_open_erasures 0.0" in text
    assert "driftline_replay_buffer_problems 0.0" in text


def test_replay_care_exports_the_life_of_a_sample(tables: Tables) -> None:
    """Trainings, priorities, evictions by policy, overdue leases, ages and the limiter, by table."""
    drawn = tables.train.draw(UNIFORM, 4, seed=1)
    assert isinstance(drawn, Draw)
    handles = list({d.handle.slot: d.handle for d in drawn.records}.values())
    tables.train.update(handles, [1.0] * len(handles), run=1, step=1)
    leased = tables.train.draw(UNIFORM, 1, seed=2, lease_s=0.001)
    assert isinstance(leased, Draw)
    tables.client.zadd("{rb:train}:ls", {str(leased.records[0].handle.slot): 1.0})
    housekeep(tables)
    registry = CollectorRegistry()
    registry.register(ReplayCollector(tables, Audits(tables)))
    text = generate_latest(registry).decode()
    n = len(handles)
    assert f'driftline_replay_buffer_trainings_total{{table="train"}} {n}.0' in text
    assert 'driftline_replay_buffer_stale_trainings_total{table="train"} 0.0' in text
    assert 'driftline_replay_buffer_lease_expiries_total{table="train"} 1.0' in text
    assert 'driftline_replay_buffer_evictions_total{policy="reservoir",table="train"} 0.0' in text
    assert f'driftline_replay_buffer_priority_bucket{{le="1.091",table="train"}} {n}.0' in text
    assert f'driftline_replay_buffer_priority_sum{{table="train"}} {n}.0' in text
    assert 'driftline_replay_buffer_ttl_seconds{table="train"} 2.592e+06' in text
    assert 'driftline_replay_buffer_age_seconds{table="train"}' in text
    limiter = stats(tables.train).limiter
    assert f'driftline_replay_buffer_limiter_samples{{table="train"}} {limiter}' in text


def test_replay_care_exports_what_a_process_asked_for(tables: Tables) -> None:
    """Round trips by script, and what of the fetched batches was missing or weighed less."""
    drawn = tables.train.draw(UNIFORM, 4, seed=1)
    assert isinstance(drawn, Draw)
    tables.train.retire([drawn.records[0].handle.digest], "superseded")
    missing = tables.train.fetch(drawn).missing
    tables.train.sample(UNIFORM, 2, seed=2)
    registry = CollectorRegistry()
    registry.register(UsageCollector(tables))
    text = generate_latest(registry).decode()
    assert 'driftline_replay_buffer_script_seconds_count{script="draw",table="train"} 2.0' in text
    assert 'driftline_replay_buffer_script_seconds_sum{script="insert",table="train"}' in text
    assert 'driftline_replay_buffer_fetched_samples_total{table="train"} 6.0' in text
    assert f'driftline_replay_buffer_missing_samples_total{{table="train"}} {missing}.0' in text
    assert 'driftline_replay_buffer_effective_samples_total{table="train"} 6.0' in text


def test_replay_care_audits_beside_the_traffic(tables: Tables) -> None:
    """A broken index is told and counted by the running process; a sound one walks on in silence."""
    registry, stop, told = CollectorRegistry(), threading.Event(), threading.Event()
    heard: list[BaseException] = []
    audits = Audits(tables)
    while audits.walks < 2:
        assert list(audits.look()) == []
    tables.client.hincrby("{rb:train}:n", "ins", 1)

    def failed(error: BaseException) -> None:
        heard.append(error)
        told.set()

    thread = care(tables, registry, stop, failed)
    assert told.wait(20)
    stop.set()
    thread.join(20)
    assert isinstance(heard[0], BrokenInvariant)
    assert "I10" in str(heard[0])
    assert 'audit_failures_total{table="train"} 1.0' in generate_latest(registry).decode()


def test_replay_care_survives_redis_away(tables: Tables) -> None:
    """Without Redis the figures are missing, the housekeeping tells of it, and both end with the process."""
    tables.client.connection_pool.disconnect()
    away = redis.Redis(port=1, socket_connect_timeout=0.1)
    train, val, test, golden = (_moved(table, away) for table in tables.all)
    gone = Tables(away, KEY, "", ReplayConfig(), train, val, test, golden)
    heard, stop, registry = threading.Event(), threading.Event(), CollectorRegistry()
    thread = care(gone, registry, stop, lambda _: heard.set())
    assert heard.wait(10)
    assert b"replay_buffer_items" not in generate_latest(registry)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def _moved(table: ReplayBuffer, client: redis.Redis) -> ReplayBuffer:
    """The same table through another client."""
    return ReplayBuffer(client, table.table, table.limits, KEY, "")
