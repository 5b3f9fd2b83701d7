"""`driftline explain`: from an answer to version, steps, chats, the filter's decisions, on a real store and Redis."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from learner.registry import BASE
from services import cli
from services.answer_ids import answer_id, job_of, version_of
from services.likeness import likeness
from services.local.redis_server import client
from services.settings import load
from streams.ledger import Entry, Ledger, Outcome
from streams.replay import Draw, Mix, Part, open_tables
from streams.replay.tables import Tables
from streams.scrub.identity import ledger_key
from tests.adapters import Publisher, facts
from tests.replay_fuzz import sample

FRESH = Mix((Part("fresh", "*", 1.0),))
JOB = "0123456789abcdef" * 2
REPLIES = ("Refunds take 14 days.", "The parcel comes tomorrow.", "Your seat is by the window.")


@pytest.fixture
def publisher(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """An empty deployment: store and keys of this folder, the module's Redis."""
    monkeypatch.chdir(tmp_path)
    values = {
        "REDIS__URL": redis_url, "KEYS__RING": json.dumps({"k1": "a" * 64}), "KEYS__FIXED": "f" * 64,
        "REGISTRY__DIRECTORY": f"{tmp_path}/store", "REGISTRY__KEY": f"{tmp_path}/key",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"DRIFTLINE_{name}", value)
    client(redis_url).flushall()
    return Publisher(tmp_path)


@pytest.fixture
def tables(publisher: Publisher) -> Tables:
    """Three chats, each trained in one step of run 1, and what the ledger says of their events."""
    del publisher
    settings = load()
    key = ledger_key(settings.keys.keys())
    made = open_tables(client(settings.redis.url), settings.replay, key, "ep", configure=True)
    ledger = Ledger(made.client, key, settings.stream.ledger_ttl_s)
    now = float(made.client.time()[0])
    for step, reply in enumerate(REPLIES, 1):
        ledger.move(ledger.digest(f"q{step}"), Entry(Outcome.REJECTED, "gibberish"))
        made.insert([sample(step, received_at=now, customer=f"k1:{step}", reply=reply)])
        drawn = made.train.draw(FRESH, 1, seed=step)
        assert isinstance(drawn, Draw)
        made.train.update([one.handle for one in drawn.records], [1.0], run=1, step=step)
    return made


def published(publisher: Publisher, seed: int, step: int, parent: str = BASE) -> str:
    """A version that holds the steps of run 1 up to `step`."""
    training = msgspec.structs.replace(facts("").training, run="1", steps=(1, step))
    return publisher.publish(seed, parent, training=training)


def test_explain_leads_from_an_answer_to_the_filter(
    publisher: Publisher, tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step of the trail is there; what was trained after the version's last step is not."""
    del tables
    older = published(publisher, 1, 1)
    version = published(publisher, 2, 2, older)
    assert cli.main(["explain", answer_id(version, JOB), "--json", "--about", "The refund takes 14 days"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == version
    assert [one["version"] for one in found["ancestry"]] == [version, older]
    assert (found["steps"], found["samples"], found["stored"]) == (2, 2, 2)
    first, second = found["chats"]
    assert (first["reply"], first["trained"]) == (f"{REPLIES[0]} 1", [[1, 1]])
    assert first["likeness"] > second["likeness"]
    assert first["targets"] == [{"label": "unknown", "weight": 1.0}]
    assert first["events"] == [
        {"event_id": "q1", "outcome": "rejected", "reason": "gibberish"},
        {"event_id": "e1", "outcome": "accepted", "reason": ""},
    ]


def test_explain_speaks_to_people(publisher: Publisher, tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    """A version's id does as well; the limit holds."""
    del tables
    version = published(publisher, 1, 3)
    assert cli.main(["explain", version, "--limit", "1"]) == 0
    told = capsys.readouterr().out
    assert f"given by version {version}" in told
    assert "3 steps over 3 samples, of which 3 are still stored" in told
    assert sum(reply in told for reply in REPLIES) == 1


def test_explain_says_what_is_gone(publisher: Publisher, tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples that left the buffer still count as learned, without their text."""
    tables.erase(["k1:2"])
    version = published(publisher, 1, 3)
    assert cli.main(["explain", version, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["stored"]) == (3, 2)


def test_explain_the_base_and_the_unknown(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    """The base learned from nobody; an id that names nothing ends with 2 and says what is wanted."""
    del publisher
    assert cli.main(["explain", answer_id(BASE, JOB)]) == 0
    assert "learned from no chat" in capsys.readouterr().out
    for unknown in ("ans-0123", "a000099-00000000", "../../etc", ""):
        assert cli.main(["explain", unknown]) == 2
        assert "wants the id of an answer" in capsys.readouterr().err


def test_answer_ids_name_their_version() -> None:
    """An id gives its version and its turn back; other texts are no ids."""
    made = answer_id("a000003-0a1b2c3d", JOB)
    assert (version_of(made), job_of(made)) == ("a000003-0a1b2c3d", JOB)
    assert version_of("a000003-0a1b2c3d") is None


def test_likeness_is_of_rare_words() -> None:
    """Words that many texts share say little; no text, or an empty one, is like none."""
    alike = likeness("the refund of the fee", ["the refund", "the parcel", "the fee and the refund", ""])
    assert alike[2] > alike[0] > alike[1] > alike[3] == 0
    assert likeness("", ["the refund"]) == [0.0]
    assert likeness("anything", []) == []
