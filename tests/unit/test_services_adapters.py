"""The command that lists, shows and frees versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learner.gate import Account, Decision, Evidence
from learner.records import Records
from services import cli
from tests.adapters import Publisher


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A store of three versions, found by the settings file of this folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "driftline.toml").write_text(f'[registry]\ndirectory = "{tmp_path}/store"\nkey = "{tmp_path}/key"\n')
    found = Publisher(tmp_path)
    for seed in range(3):
        found.publish(seed)
    return found


def test_adapters_list_shows_newest_first(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    """Versions with decision and losses, and why one is gone."""
    newest, middle, _ = publisher.registry.history("a")
    publisher.registry.withdraw(middle, "erasure")
    assert cli.main(["adapters", "list", "--limit", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["gone"]) for one in rows] == [(newest, None), (middle, "erasure")]
    assert rows[0]["decision"] == "promote"
    assert cli.main(["adapters", "list"]) == 0
    assert "(erasure)" in capsys.readouterr().out
    assert cli.main(["adapters", "list", "--line", "b"]) == 0
    assert "no versions yet" in capsys.readouterr().out


def test_adapters_show_gives_the_card(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    """The gate's evidence where a record exists, the manifest otherwise; exit code 2 for an unknown version."""
    newest, older, _ = publisher.registry.history("a")
    evidence = (Evidence("gain", "pass", 300, 12.0, 9.9, "gain 0.06 nats"),)
    decision = Decision("promote", evidence, Account(25, 3), 12.0, 9.9, 0.09, 0.041)
    Records(publisher.folder / "store" / "records").version(publisher.registry.manifest(newest), decision, {})
    assert cli.main(["adapters", "show", newest]) == 0
    assert "gain 0.06 nats" in capsys.readouterr().out
    assert cli.main(["adapters", "show", older, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == older
    for unknown in ("a000099-00000000", "../../etc"):
        assert cli.main(["adapters", "show", unknown]) == 2


def test_adapters_collect_keeps_what_is_named(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    """Named and newest versions keep their files."""
    newest, middle, oldest = publisher.registry.history("a")
    assert cli.main(["adapters", "collect", "--keep", oldest, "--newest", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [middle]
    assert publisher.registry.gone(newest) is None
