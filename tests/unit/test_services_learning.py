from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from learner.account import LineAccount
from learner.checkpoint import LOG_FILE
from learner.config import TrainConfig
from services.forget import erase
from services.learning import Process, device_of, serve
from services.runtime import Runtime
from services.serving_config import RegistryConfig
from services.settings import KafkaConfig, KeysConfig, RedisConfig, Settings, SettingsError, load
from streams.events import Sample, Turn
from streams.replay import ReplayConfig, open_tables
from streams.scrub.identity import ledger_key
from tests.bases import TEXTS, tiny_base

KEYS = KeysConfig(ring={"k1": "ab" * 32}, fixed="cd" * 32)
LINES = ("a", "b")


def settings_of(tmp_path: Path, url: str, bootstrap: str) -> Settings:
    """Two lines in one process, on a tiny base; nothing is judged within the few steps of a test."""
    train = TrainConfig(
        line="a", lines=("b",), r=8, fresh_batch=2, fresh_wait_s=0.0, document_tokens=96, anchors=4, anchor_tokens=24,
        decide_every=1000, snapshot_every=1000, checkpoint_every=2, base=str(tiny_base(tmp_path)),
        directory=str(tmp_path / "learner"),
    )  # fmt: skip
    return Settings(
        kafka=KafkaConfig(bootstrap=bootstrap, epoch="e", embedded=True), redis=RedisConfig(url=url), keys=KEYS,
        registry=RegistryConfig(directory=tmp_path / "store", key=tmp_path / "signing.key"), train=train,
        replay=ReplayConfig(lines=("b",), require_aof=False),
    )  # fmt: skip


def fill(client: redis.Redis, settings: Settings, count: int = 12) -> None:
    """Samples of both lines by turns, as the writer stores them."""
    client.flushall()
    tables = open_tables(client, settings.replay, ledger_key(KEYS.keys()), "e", configure=True)
    now = time.time()  # noqa: TID251 - the buffer's ttl hangs on the server's clock
    for number in range(count):
        line = LINES[number % 2]
        turns = (
            Turn(role="customer", text=f"{TEXTS[number % 5]} {number}"),
            Turn(role="agent", text=f"{line * 3} {TEXTS[number % 6]}", is_target=True, event_id=f"e{number}"),
        )
        sample = Sample(
            sample_id=f"e{number}/sft/0", conversation=f"{line}-c{number}", customer=f"{line}-k{number}", lane="chat",
            split="train", line=line, received_at=now, completed_at=now, turns=turns,
            offsets={"chats.raw-0": (number, number)},
        )  # fmt: skip
        tables.insert([sample])


def process_of(settings: Settings) -> Process:
    """A process that has opened and started its lines."""
    process = Process(settings, Runtime("learn", settings.admin))
    assert process.open()
    for line in process.lines:
        line.start()
    return process


def trained(settings: Settings, line: str) -> list[str]:
    """Keys of the samples in a line's draw log, anchors left out."""
    log = Path(settings.train.directory) / line / LOG_FILE
    rows = [row for entry in log.read_text().splitlines() for row in json.loads(entry)["rows"]]
    return [row["key"] for row in rows if row["handle"] is not None]


def test_learning_lines_do_not_mix(
    tmp_path: Path, redis_client: redis.Redis, redis_url: str, mock_broker: dict[str, Any]
) -> None:
    """Two lines learn by turns on one base: no sample of one meets the other, each continues and forgets by itself."""
    settings = settings_of(tmp_path, redis_url, mock_broker["bootstrap"])
    fill(redis_client, settings)
    process = process_of(settings)
    while sum(process.turns(line) for line in process.lines):
        pass
    first, second = (line.learner for line in process.lines)
    assert first.base is second.base
    assert min(first.trajectory.step, second.trajectory.step) >= 2
    assert not torch.equal(first.trajectory.lora.flat, second.trajectory.lora.flat)
    tables = open_tables(redis_client, settings.replay, ledger_key(KEYS.keys()))
    for line in LINES:
        samples = tables.of(line).samples(bytes.fromhex(key) for key in trained(settings, line))
        assert len({sample.conversation for sample in samples if sample is not None}) >= 3
        assert {sample.line for sample in samples if sample is not None} == {line}
        assert LineAccount(redis_client, line).owned(1)
    process.close()
    again = process_of(settings)
    for was, now in zip((first, second), (line.learner for line in again.lines), strict=True):
        assert now.trajectory.step == was.trajectory.step
        assert torch.equal(now.trajectory.lora.flat, was.trajectory.lora.flat)
    seen = tables.of("b").samples([bytes.fromhex(trained(settings, "b")[0])])[0]
    assert seen is not None
    request, _ = erase(tables, [seen.customer], [])
    assert set(request.first_steps) == {"train-b"}
    assert [line.erase(request) for line in again.lines] == [(None, 0), ("base", 0)]
    assert torch.equal(again.lines[0].learner.trajectory.lora.flat, first.trajectory.lora.flat)
    assert again.lines[1].learner.trajectory.warm == 0
    again.close()


def test_settings_further_lines_want_a_table() -> None:
    """A line that the process trains beside its own must have a table, or its samples would be another line's."""
    with pytest.raises(SettingsError, match="wants lines of"):
        load(environment={"DRIFTLINE_TRAIN__LINES": "b"})
    with pytest.raises(ValueError, match="letters a to z"):
        ReplayConfig(lines=("b", "b"))
    assert load(environment={"DRIFTLINE_TRAIN__LINES": "b", "DRIFTLINE_REPLAY__LINES": "b"}).train.lines == ("b",)
    assert replace(Settings(), replay=ReplayConfig(lines=("b", "c"))).train.lines == ()


def test_learning_refuses_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` without a device is refused before Redis or a broker is asked; `auto` takes the CPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"train\.device = 'cuda'"):
        serve(replace(Settings(), train=TrainConfig(device="cuda")))
    assert device_of("auto") == device_of("cpu") == "cpu"
