"""`driftline reconcile`: what became of events whose samples are not stored any more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import redis

from services.reconcile import Row, outcomes, summary
from services.settings import Settings, load
from streams.ledger import Entry, Ledger, Outcome, event_digest
from streams.replay import open_tables
from streams.scrub.identity import ledger_key

HOUR_S = 3_600


@pytest.fixture
def settings(redis_url: str, redis_client: redis.Redis) -> Settings:
    """Settings of an empty deployment whose samples live for an hour."""
    assert redis_client.ping()
    values = {"REDIS__URL": redis_url, "KEYS__RING": json.dumps({"k1": "a" * 64}), "KEYS__FIXED": "f" * 64}
    found = load(environment={f"DRIFTLINE_{name}": value for name, value in values.items()})
    return replace(found, replay=replace(found.replay, train=replace(found.replay.train, ttl_s=HOUR_S)))


def test_reconcile_names_why_a_sample_is_gone(settings: Settings, redis_client: redis.Redis) -> None:
    """Erased by request, expired by age, else evicted; a trained one stays accepted, an unknown event is missing."""
    key = ledger_key(settings.keys.keys())
    tables = open_tables(redis_client, settings.replay, key, "ep", configure=True)
    ledger = Ledger(redis_client, key, settings.stream.ledger_ttl_s)
    names = ["evicted", "erased", "expired", "trained", "unknown"]
    rows = [Row(name, event_digest(name, key)) for name in names]
    for number, row in enumerate(rows[:4]):
        ledger.move(row.digest, Entry(Outcome.ACCEPTED, effects=1, samples=(f"{number:016x}",)))
    ledger.erase_samples([f"{1:016x}"])
    redis_client.expire(f"led:{rows[2].digest}", settings.stream.ledger_ttl_s - HOUR_S - 1)
    day = int(redis_client.time()[0]) // 86_400
    redis_client.sadd(f"{tables.train.prefix}:tr:{day}", bytes.fromhex(f"{3:016x}"))
    found = summary(rows, outcomes(redis_client, settings, rows, behind=False))
    assert found["removed"] == {"erased": 1, "evicted": 1, "expired": 1}
    assert (found["accepted"], found["missing"]) == (1, ["unknown"])
    waiting = summary(rows, outcomes(redis_client, settings, rows, behind=True))
    assert (waiting["waiting"], waiting["missing"]) == (1, [])
