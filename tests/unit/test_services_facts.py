from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from learner.account import LineAccount
from learner.statements import decode_statements
from services import cli


def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, *arguments: str) -> int:
    config = tmp_path / "driftline.toml"
    config.write_text(f'[redis]\nurl = "{url}"\n')
    monkeypatch.chdir(tmp_path)
    return cli.main(["facts", "--config", str(config), "--json", *arguments])


def test_facts_are_named_and_listed(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """An operator's sentence reaches the line as hashes of its words; one without a value is refused."""
    redis_client.flushall()
    assert ask(monkeypatch, tmp_path, redis_url, "outdated", "You may return a canoe within 14 days.") == 0
    assert json.loads(capsys.readouterr().out) == {"outdated": ["14 day"]}
    assert ask(monkeypatch, tmp_path, redis_url, "outdated", "Returns are free.") == 1
    capsys.readouterr()
    assert ask(monkeypatch, tmp_path, redis_url, "list") == 0
    assert json.loads(capsys.readouterr().out) == {"outdated": ["14 day"]}
    (raw,) = LineAccount(redis_client, "a").named_facts()
    assert b"canoe" not in raw
    assert [what.value for what in decode_statements(raw)] == ["14 day"]
    assert LineAccount(redis_client, "a").named_facts(1) == []


def test_facts_without_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable Redis is exit code 2, not a traceback."""
    assert ask(monkeypatch, tmp_path, "redis://127.0.0.1:1", "list") == 2
