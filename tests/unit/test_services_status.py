"""`driftline status` where parts of the system are away; with all of it running: tests/integration/test_up.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli import main
from services.local.supervisor import free_port
from services.status import processes


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and a broker that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("services.stream_lag._WAIT_S", 0.3)
    values = {
        "KEYS__RING": json.dumps({"k1": "a" * 64}), "KEYS__FIXED": "f" * 64,
        "REGISTRY__DIRECTORY": f"{tmp_path}/store", "REGISTRY__KEY": f"{tmp_path}/key",
        "KAFKA__BOOTSTRAP": f"127.0.0.1:{free_port()}", "REDIS__URL": f"redis://127.0.0.1:{free_port()}/0",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"DRIFTLINE_{name}", value)


def test_status_tells_each_part_by_itself(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a broker the rollout and the versions are still told; a silent process is named; exit code 1."""
    monkeypatch.setenv("DRIFTLINE_REDIS__URL", redis_url)
    target = f"127.0.0.1:{free_port()}"
    (tmp_path / "targets.json").write_text(json.dumps([{"targets": [target], "labels": {"job": "driftline-learn"}}]))
    assert main(["status", "--json", "--targets", "targets.json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["processes"] == {f"learn {target}": "does not answer (ConnectError)"}
    assert "kafka.bootstrap" in found["lag"]["error"]
    assert found["rollout"]["phase"] is None
    assert found["versions"] == {"newest": None}


def test_status_speaks_to_people_when_all_is_away(capfd: pytest.CaptureFixture[str]) -> None:
    """Each part has its line with the setting to look at, and the Kafka library adds none of its own."""
    assert main(["status"]) == 1
    told, noise = capfd.readouterr()
    assert not noise
    assert told.count("redis.url") == 2
    assert "kafka.bootstrap" in told
    assert "none known here" in told


@pytest.mark.parametrize("content", ["", '{"a": 1}', "[1]", '[{"labels": {}}]', "\xff"])
def test_status_refuses_other_files(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that names no targets is named with what is wanted; a missing one too."""
    (tmp_path / "targets.json").write_text(content, encoding="latin-1")
    assert main(["status", "--targets", "targets.json"]) == 2
    assert "wants Prometheus targets" in capsys.readouterr().err
    assert main(["status", "--targets", "none.json"]) == 2
    assert "none.json" in capsys.readouterr().err


def test_status_reads_targets(tmp_path: Path) -> None:
    """Several targets of a job are several processes; a job without a name is one too."""
    jobs = [{"targets": ["a:1", "b:2"], "labels": {"job": "driftline-node"}}, {"targets": ["c:3"]}]
    (tmp_path / "targets.json").write_text(json.dumps(jobs))
    assert processes(tmp_path / "targets.json") == {"node a:1": "a:1", "node b:2": "b:2", "process c:3": "c:3"}
