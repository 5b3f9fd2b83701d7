"""What a command says when the fault is the operator's: which thing failed and where to look, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli import main
from services.local.supervisor import free_port
from services.remedies import remedy
from services.settings import Settings

KEYS = {"DRIFTLINE_KEYS__RING": '{"k1": "000102030405060708090a0b0c0d0e0f"}', "DRIFTLINE_KEYS__FIXED": "0f" * 16}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a run, and ports where nothing listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_REDIS__URL", f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("DRIFTLINE_KAFKA__BOOTSTRAP", f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "command", ["buffer stats", "review list", "facts list", "rollout status", "rollout hold", "tune --live"]
)
def test_remedies_redis_away(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that needs Redis ends with 2 and names the setting."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert f"driftline {command.split(maxsplit=1)[0]}: Redis does not answer" in told
    assert "redis.url" in told


@pytest.mark.parametrize("command", ["buffer stats", "forget anna", "reconcile chats.jsonl"])
def test_remedies_keys_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that needs the deployment's keys says which setting lacks and where keys come from."""
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert "keys.ring" in told
    assert "driftline.toml" in told


def test_remedies_broker_away(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that needs the broker ends with 2 and says where it looked."""
    monkeypatch.setattr("services.dead_letters._WAIT_S", 0.5)
    assert main(["replay-dead-letters"]) == 2
    assert "kafka.bootstrap = 127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["scrub", "filter", "evaluate --data", "tune --data", "ingest"])
@pytest.mark.parametrize("file", ["missing.jsonl", "."])
def test_remedies_unreadable_file(command: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, or a folder, ends the command with 2 and its name."""
    assert main([*command.split(), file]) == 2
    told = capsys.readouterr().err
    assert file in told
    assert "Errno" not in told
    assert "Traceback" not in told


def test_remedies_missing_base(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no base is named with the file that it lacks."""
    assert main(["condition", "missing", "out"]) == 2
    assert capsys.readouterr().err == "driftline condition: missing/tokenizer_config.json: No such file or directory\n"


def test_remedies_settings_file_of_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A settings file that is no text is named, like one that is no TOML."""
    (tmp_path / "broken.toml").write_bytes(b"\xff\xfe\x00")
    assert main(["scrub", "--config", "broken.toml"]) == 2
    assert "broken.toml" in capsys.readouterr().err


def test_remedies_leave_our_own_faults_alone() -> None:
    """An error that no operator can mend keeps its traceback."""
    missing = FileNotFoundError(2, "No such file or directory", "/inside/of/driftline")
    assert remedy(missing, Settings(), ["asked.jsonl"]) is None
    assert remedy(KeyError("x"), Settings(), []) is None
    assert remedy(ImportError("no module named streams.nothing", name="streams.nothing"), Settings(), []) is None


def test_remedies_name_the_extra_of_a_missing_library() -> None:
    """A command whose library is not installed says which extra brings it."""
    told = remedy(ImportError("no torch", name="torch"), Settings(), [])
    assert told == "torch is not installed; pip install 'driftline[learner]'"
