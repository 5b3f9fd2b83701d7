"""`driftline forget` and `driftline buffer` against a real Redis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from services import cli
from services.local.redis_server import client
from services.settings import Settings, load
from streams.events import Turn
from streams.ledger import Entry, Ledger, Outcome
from streams.replay import UNIFORM, Draw, open_tables
from streams.replay.tables import Tables
from streams.scrub.identity import ledger_key, pseudonym
from tests.replay_fuzz import sample
from tests.servers import RedisServer, executables

FIXED = "f" * 64


@pytest.fixture
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings of an empty deployment on the module's Redis, for the command line too."""
    monkeypatch.chdir(tmp_path)
    values = {"REDIS__URL": redis_url, "KEYS__RING": json.dumps({"k1": "a" * 64, "k0": "b" * 64}), "KEYS__FIXED": FIXED}
    for name, value in values.items():
        monkeypatch.setenv(f"DRIFTLINE_{name}", value)
    client(redis_url).flushall()
    return load()


@pytest.fixture
def tables(settings: Settings) -> Tables:
    """All tables, made by the writer."""
    return open_tables(
        client(settings.redis.url), settings.replay, ledger_key(settings.keys.keys()), "ep", configure=True
    )


def stored(tables: Tables, settings: Settings, customer: str, *, active: str = "k1") -> None:
    """Three training samples and a held-out one of a customer, under one of the keys."""
    keys = replace(settings.keys.keys(), active=active)
    name = pseudonym(keys, "customer", customer)
    now = float(tables.client.time()[0])
    start = 1_000 if active == "k1" else 2_000
    tables.insert([sample(start + i, received_at=now, customer=name) for i in range(3)])
    tables.insert([sample(start + 9, received_at=now, customer=name, split="val")])


def test_forget_erases_everywhere_with_receipt(
    tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under every readable key, in every table; the receipt counts it and names the training steps."""
    stored(tables, settings, "Jane@Shop")
    stored(tables, settings, "jane@shop", active="k0")
    drawn = tables.train.draw(UNIFORM, 8, seed=1)
    assert isinstance(drawn, Draw)
    tables.train.update([d.handle for d in drawn.records], [1.0] * 8, run=3, step=11)
    assert cli.main(["forget", "jane@shop", "--data-only"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["items"], receipt["known"], receipt["complete"]) == (8, True, True)
    assert {t["table"]: len(t["erased"]) for t in receipt["tables"]} == {"train": 6, "val": 2, "test": 0, "golden": 0}
    assert receipt["steps"] == [[3, 11]]
    assert "jane" not in json.dumps(receipt).lower()


def test_forget_unknown_customer_is_no_silent_success(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, a receipt of 0 items, and the tombstone stands; saying it twice changes nothing."""
    for _ in range(2):
        assert cli.main(["forget", "nobody", "--data-only"]) == 1
        receipt = json.loads(capsys.readouterr().out)
        assert (receipt["items"], receipt["known"], receipt["complete"]) == (0, False, True)
        assert tables.is_tombstoned(receipt["pseudonyms"][0])


def test_forget_again_is_harmless(tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A retry after success finds nothing more, says what was erased before, and succeeds."""
    stored(tables, settings, "jane")
    assert cli.main(["forget", "jane", "--data-only"]) == 0
    capsys.readouterr()
    assert cli.main(["forget", "jane", "--data-only"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["items"], receipt["erased_before"]) == (0, 4)


def test_forget_covers_linked_conversations(
    tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples filed under a conversation that became the customer's later go too."""
    name = pseudonym(settings.keys.keys(), "customer", "jane")
    tables.client.sadd(f"asm:cust:{name}", "fixed:abc")
    tables.insert([sample(1, received_at=float(tables.client.time()[0]), customer="fixed:abc")])
    assert cli.main(["forget", "jane", "--data-only"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 1


def test_forget_takes_open_conversations_and_review_items(
    tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turns that wait in the assembler, records under way and review items go; their events end as erased."""
    name = pseudonym(settings.keys.keys(), "customer", "jane")
    redis_client, key = tables.client, ledger_key(settings.keys.keys())
    redis_client.sadd(f"asm:cust:{name}", "fixed:abc")
    redis_client.hset("asm:c:fixed:abc", mapping={"e:ev1": b"text", "g": 3})
    redis_client.sadd("asm:open:0", "fixed:abc", "fixed:other")
    ledger = Ledger(redis_client, key, 100)
    ledger.move(ledger.digest("ev1"), Entry(Outcome.WAITING, "", 1))
    pending = {"a": ["examples", "fixed:abc", b"{}"], "b": ["examples", "fixed:other", b"{}"]}
    redis_client.hset("asm:out:0", mapping={k: msgspec.msgpack.encode(v) for k, v in pending.items()})
    redis_client.hset(
        "review:items", mapping={"s1": json.dumps({"customer": name}), "s2": json.dumps({"customer": "x"})}
    )
    assert cli.main(["forget", "jane", "--data-only"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["state"] == {"conversations": 1, "events": 1, "pending": 1, "review": 1}
    (entry,) = ledger.read([ledger.digest("ev1")])
    assert entry is not None
    assert (entry.outcome, entry.reason, entry.effects) == (Outcome.REMOVED, "erased", 1)
    assert redis_client.smembers("asm:open:0") == {b"fixed:other"}
    assert redis_client.hkeys("asm:out:0") == [b"b"]
    assert redis_client.hkeys("review:items") == [b"s2"]


def test_forget_unreachable_redis_is_no_success(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and no receipt when nothing is certain."""
    del settings
    monkeypatch.setenv("DRIFTLINE_REDIS__URL", "redis://127.0.0.1:1/0")
    assert cli.main(["forget", "jane", "--data-only"]) == 2
    assert capsys.readouterr().out == ""


def test_forget_leaves_no_byte_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a customer wrote stands in the server's files before the command, and nowhere after it, in RDB neither."""
    secret = "zanzibar-4711"
    for name in sorted(executables()):
        (tmp_path / name).mkdir()
        options = ("--rdbcompression", "no", "--appendfsync", "always")
        with RedisServer(executables()[name], tmp_path / name, *options) as server:
            values = {"REDIS__URL": f"redis://127.0.0.1:{server.port}/0", "REPLAY__COMPRESS": "false"}
            values |= {"KEYS__RING": json.dumps({"k1": "a" * 64}), "KEYS__FIXED": FIXED}
            for key, value in values.items():
                monkeypatch.setenv(f"DRIFTLINE_{key}", value)
            redis_client, settings = server.start(), load()
            keys = settings.keys.keys()
            tables = open_tables(redis_client, settings.replay, ledger_key(keys), "ep", configure=True)
            item = sample(1, received_at=float(redis_client.time()[0]), customer=pseudonym(keys, "customer", "jane"))
            turns = (*item.turns, Turn(role="customer", text=secret))
            other = sample(7, received_at=float(redis_client.time()[0]))
            tables.insert([msgspec.structs.replace(item, turns=turns), other])
            redis_client.sadd(f"asm:cust:{item.customer}", "fixed:abc")
            redis_client.hset("asm:c:fixed:abc", mapping={"e:ev1": f'{{"text":"{secret}"}}'})
            assert _on_disk(server.folder, secret)
            assert cli.main(["forget", "jane", "--data-only"]) == 0
            assert json.loads(capsys.readouterr().out)["complete"]
            redis_client.save()
            assert not _on_disk(server.folder, secret)
            assert _on_disk(server.folder, "answer 7"), "the search itself works on what is left"


def _on_disk(folder: Path, needle: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


@pytest.mark.parametrize("command", [["forget", "jane", "--data-only"], ["buffer"]])
def test_forget_and_buffer_say_which_key_is_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Without keys nothing can be found: exit code 2 and the setting's name, never the 1 of an unknown customer."""
    del settings
    monkeypatch.setenv("DRIFTLINE_KEYS__RING", "{}")
    assert cli.main(command) == 2
    shown = capsys.readouterr()
    assert (shown.out, "keys.ring" in shown.err) == ("", True)


def test_forget_wants_an_id(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A blank id is refused before anything is touched, and so is a deployment that was never made."""
    del settings
    for customer, why in ((" ", "empty"), ("jane", "never made")):
        assert cli.main(["forget", customer, "--data-only"]) == 2
        assert why in capsys.readouterr().err


def test_buffer_command_shows_and_checks(
    tables: Tables, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stats, lanes, top and audit, as text and as JSON; a broken invariant is exit code 1."""
    stored(tables, settings, "jane")
    assert cli.main(["buffer"]) == 0
    assert "train" in capsys.readouterr().out
    assert cli.main(["buffer", "--json", "stats"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["train"]["n"], figures["val"]["n"], figures["train"]["fresh"]) == (3, 1, 3)
    assert cli.main(["buffer", "--json", "lanes"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["total"] == 3
    assert cli.main(["buffer", "--json", "top", "--by", "age", "--count", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert cli.main(["buffer", "audit", "--full"]) == 0
    tables.client.hincrby("{rb:train}:n", "n", 1)
    assert cli.main(["buffer", "--json", "audit"]) == 1
    broken = capsys.readouterr().out
    assert '"I2"' in broken


def test_buffer_add_stores_scrubbed_examples_once(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Curated rows are masked, stored in the lane or in golden, and adding the file again adds nothing."""
    rows = tmp_path / "faq.jsonl"
    rows.write_bytes(
        b'{"question": "mail jo.doe@example.com?", "answer": "Write to us."}\n{"question": "no answer"}\n'
        b'\xff\xfe\n[1]\n{"turns": [{"role": "agent"}]}\n'
    )
    assert cli.main(["buffer", "--json", "add", str(rows), "--lane", "anchor"]) == 1
    assert json.loads(capsys.readouterr().out) == {"inserted": 1, "duplicate": 0, "rejected": 0, "unusable": 4}
    assert cli.main(["buffer", "--json", "add", str(rows), "--lane", "anchor"]) == 1
    assert json.loads(capsys.readouterr().out)["duplicate"] == 1
    assert cli.main(["buffer", "--json", "add", str(rows), "--table", "golden"]) == 1
    assert cli.main(["buffer", "--json", "top"]) == 0
    shown = capsys.readouterr().out
    assert "example.com" not in shown
    assert "Write to us." in shown
    assert tables.golden.table == "golden"
