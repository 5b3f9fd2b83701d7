"""`driftline rollout status|promote|hold|rollback` on a real store, with and without a broker."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest
import redis

from services.local.supervisor import free_port
from services.rollout import commands
from services.rollout.evidence import Evidence
from services.rollout.machine import Phase, State
from services.rollout.store import Checkpoint, Store
from services.rollout_records import BASE, RolloutRecord
from services.serving_config import RolloutConfig
from services.settings import Settings, child_environment, load

V1 = "a000001-00000001"


@pytest.fixture
def settings(redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An emptied store and nobody on the broker's port."""
    del redis_client
    monkeypatch.setattr(commands, "DELIVERY_S", 0.2)
    kafka = {"bootstrap": f"127.0.0.1:{free_port()}", "extra": {"log_level": "0"}}
    return load(environment=child_environment({"redis": {"url": redis_url}, "kafka": kafka}))


def canary(settings: Settings) -> Store:
    """A line with a candidate at one quarter."""
    store = Store(redis.Redis.from_url(settings.redis.url), "a")
    record = RolloutRecord(generation=3, rollout_id="r", state="canary", canary=V1, weight=0.25, salt="s")
    kept = Evidence(RolloutConfig(), "r").keep()
    store.commit(store.begin(), 0, Checkpoint(state=State(phase=Phase.CANARY, record=record), evidence=kept))
    return store


def run(settings: Settings, action: str, **more: Any) -> int:
    """One command."""
    return commands.run(argparse.Namespace(action=action, **{"json": False, "actor": "eva", **more}), settings)


def test_rollout_command_says_when_no_controller_has_run(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to show or to decide on: exit 1 and what to do."""
    assert run(settings, "status") == 1
    assert run(settings, "promote") == 1
    assert "driftline rollout run" in capsys.readouterr().err


def test_rollout_command_shows_record_and_evidence(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON for scripts, a few lines for people."""
    store = canary(settings)
    redis.Redis.from_url(settings.redis.url).sadd("pin:kill:a", "a000009-00000009")
    assert run(settings, "status", json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["phase"], found["canary"], found["weight"], found["generation"]) == ("canary", V1, 0.25, 3)
    assert found["killed"] == ["a000009-00000009"]
    assert found["evidence"]["negative"]["log_e_harm"] == 0.0
    assert run(settings, "status") == 0
    assert "canary a000001" in capsys.readouterr().out
    assert store.read().generation == 3


def test_rollout_command_decides_without_a_broker(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The record stands in the store with its actor; that the broker did not hear is said."""
    store = canary(settings)
    assert run(settings, "rollback") == 0
    stored = store.read()
    assert stored.checkpoint is not None
    record = stored.checkpoint.state.record
    assert (record.generation, record.stable, record.deny, record.actor) == (4, BASE, (V1,), "eva")
    assert "does not answer" in capsys.readouterr().err
    assert run(settings, "promote") == 1
    assert "no candidate" in capsys.readouterr().err
