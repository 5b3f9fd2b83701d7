"""Housekeeping beside the writer: leases come back, cut erasures end, figures are exported."""

from __future__ import annotations

import threading

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from services.replay_care import ReplayCollector, care, housekeep
from streams.replay import UNIFORM, Draw, ReplayBuffer, ReplayConfig, open_tables
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
    registry.register(ReplayCollector(tables))
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
