from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis

from learner.registry import BASE
from services.rollout_records import VersionRecord, decode_version
from services.settings import child_environment, load
from services.simulation.dialogue import conversations
from services.topic_feed import TopicFeed
from streams.events import Sample, Split, Turn
from streams.replay import Tables, open_tables
from streams.scrub.identity import ledger_key
from streams.topics import ADAPTER_EVENTS, VERSIONS

ROOT = Path(__file__).resolve().parents[2]
PROFILE: dict[str, dict[str, object]] = {
    "train": {
        "learning_rate": 0.01, "warmup_steps": 5, "decide_every": 10, "anchors": 16, "anchor_tokens": 64,
        "gauge_budget": 3.0, "document_tokens": 256,
    },
    "gate": {"slice_min": 24, "pool_slices": True, "slice_margin": 0.15, "pinned_margin": 0.2, "gauge_budget": 3.0},
    "heldout": {"recent_share": 0.8},
    "publish": {"prompts": 0, "secrets": 4, "fairness": False, "heldout": 20},
}  # fmt: skip


def environment(tmp_path: Path, broker: dict[str, Any], url: str) -> dict[str, str]:
    return child_environment(
        {
            **PROFILE,
            "train": {**PROFILE["train"], "directory": tmp_path / "learner"},
            "kafka": {"bootstrap": broker["bootstrap"], "epoch": broker["epoch"], "embedded": True},
            "redis": {"url": url},
            "keys": {"ring": {"k1": "ab" * 32}, "fixed": "cd" * 32},
            "registry": {"directory": tmp_path / "store", "key": tmp_path / "signing.key"},
        }
    )


def fill(tables: Tables, first: int, count: int) -> None:
    """Simulated chats; every third one is held out, for the gate needs 32."""
    now = time.time()  # noqa: TID251 - the buffer's ttl hangs on the server's clock
    chats = list(conversations(3, first + count))[first:]
    for number, chat in enumerate(chats):
        split: Split = "val" if number % 3 == 0 else "test" if number % 10 == 1 else "train"
        turns = tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in chat.turns)  # type: ignore[arg-type]
        sample = Sample(
            sample_id=f"{chat.conversation_id}/sft/0", conversation=chat.conversation_id, customer=chat.customer["id"],
            lane="chat", split=split, turns=turns, received_at=now, completed_at=now, topic=chat.shop,
            offsets={"chats.raw-0": (number, number)},
        )  # fmt: skip
        tables.insert([sample])


def test_learn_publishes_a_gated_version(
    tmp_path: Path, mock_broker: dict[str, Any], redis_client: redis.Redis, redis_url: str
) -> None:
    """The process learns from the buffer, passes the gate, publishes a signed version and says so."""
    values = environment(tmp_path, mock_broker, redis_url)
    settings = load(environment=values)
    tables = open_tables(
        redis_client, settings.replay, ledger_key(settings.keys.keys()), settings.kafka.epoch, configure=True
    )
    fill(tables, 0, 240)
    command = [sys.executable, "-m", "services.cli", "learn"]
    process = subprocess.Popen(command, env=values, cwd=ROOT)
    found: dict[str, VersionRecord] = {}
    events: list[dict[str, Any]] = []
    feed = TopicFeed(settings.kafka.client("test"), [VERSIONS, ADAPTER_EVENTS], time.monotonic)
    try:
        deadline = time.monotonic() + 120
        # version and event travel over two topics: either may be read first
        while not (found and any(event["event"] == "published" for event in events)) and time.monotonic() < deadline:
            for record in feed.poll(0.2):
                assert record.value is not None
                if record.topic == VERSIONS:
                    version = decode_version(record.value)
                    found[version.id] = version
                else:
                    events.append(json.loads(record.value))
            assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0
        feed.close()
    version = next(iter(found.values()))
    assert version.parent == BASE
    assert version.fresh_to >= version.fresh_from > 0
    published = [event for event in events if event["event"] == "published"]
    assert published[0]["version"] == version.id
    assert published[0]["fresh_to"] == version.fresh_to, "not cut to the manifest's nine digits"
    assert published[0]["nll"] < published[0]["base_nll"] - 0.5
    assert list((tmp_path / "learner" / "a").glob("step-*.safetensors"))
