"""The command line: every command can be asked for help and says what is wrong."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import COMMANDS, main
from services.settings import load, with_run_file


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_cli_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`driftline COMMAND --help` explains the command and exits with 0."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"driftline {name}" in capsys.readouterr().out


def test_cli_without_a_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """No command, or an unknown one, exits with 2 and lists what there is."""
    for arguments in ([], ["nonsense"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_cli_a_bad_setting_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A settings file with an unknown key ends the command before it starts, and names the key."""
    file = tmp_path / "d.toml"
    file.write_text("[kafka]\nbootstraps = 'x'\n")
    assert main(["bench", "--config", str(file), "replay"]) == 2
    assert "bootstraps" in capsys.readouterr().err


def test_cli_a_run_of_another_release_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run file with a setting that is gone ends a command with the remedy, but does not stop a new run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".driftline").mkdir()
    left = {"settings": {"DRIFTLINE_TRAIN__RENAMED": "1"}}
    (tmp_path / ".driftline/run.json").write_text(json.dumps(left))
    assert main(["buffer", "stats"]) == 2
    told = capsys.readouterr().err
    assert "renamed" in told
    assert "delete the file" in told
    assert main(["up", "--chats", "nothing.jsonl"]) == 2
    assert "renamed" not in capsys.readouterr().err


def test_cli_finds_the_run_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is found beside settings of other kinds, which hold; whoever names a broker or keys means another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".driftline").mkdir()
    run = {"DRIFTLINE_KAFKA__BOOTSTRAP": "127.0.0.1:7", "DRIFTLINE_ADMIN__LEVEL": "info"}
    (tmp_path / ".driftline/run.json").write_text(json.dumps({"settings": run}))
    file = tmp_path / "own.toml"
    file.write_text("[select]\nsize = 7\n")
    environment = {"DRIFTLINE_ADMIN__LEVEL": "debug"}
    found = with_run_file(load(file, environment), file, environment)
    assert (found.kafka.bootstrap, found.admin.level, found.select.size) == ("127.0.0.1:7", "debug", 7)
    for other in ({"DRIFTLINE_KAFKA__PREFIX": ""}, {"DRIFTLINE_KEYS__FIXED": "f" * 64}):
        assert with_run_file(load(None, other), None, other).kafka.bootstrap == "127.0.0.1:9092"


def test_cli_imports_only_the_chosen_command() -> None:
    """Importing the command line loads no process and no model library."""
    code = "import sys, services.cli; print([m for m in ('torch', 'faust', 'starlette') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_cli_every_module_has_the_two_functions(name: str) -> None:
    """A command's module gives `arguments` and `run`."""
    module = importlib.import_module(COMMANDS[name][0])
    assert callable(module.arguments)
    assert callable(module.run)
