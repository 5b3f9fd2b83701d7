"""Dry runs: every shape of line in, the same lines out, no content of a bad one."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli import main
from services.scrub import dry_run
from streams.scrub.config import ScrubConfig
from streams.scrub.residual import Rule, residue


def run(*lines: str, drop: bool = False) -> tuple[list[dict[str, Any]], dict[str, int]]:
    out = io.StringIO()
    counts = dry_run(iter(line.encode() for line in lines), out, ScrubConfig(), drop_original=drop)
    return [json.loads(line) for line in out.getvalue().splitlines()], counts


def test_dry_run_keeps_order_and_fields() -> None:
    """Texts, conversations and events come back with masks and spans, in order."""
    event = {"type": "message", "conversation_id": "c", "event_id": "e", "seq": 0, "role": "customer"}
    rows, counts = run(
        json.dumps({"text": "my name is Ines Okafor", "id": 3}),
        json.dumps({"turns": [{"role": "agent", "text": "Your name?"}, {"role": "customer", "text": "okafor"}]}),
        json.dumps({**event, "text": "I am Ines Okafor"}),
        json.dumps({**event, "seq": 1, "role": "agent", "text": "Thanks Ines"}),
    )
    assert rows[0]["masked"] == "my name is <PERSON_1>"
    assert rows[0]["id"] == 3
    assert rows[0]["spans"] == [{"start": 11, "end": 22, "label": "PERSON", "placeholder": "<PERSON_1>"}]
    assert rows[1]["turns"][1]["masked"] == "<PERSON_1>"
    assert [row["masked"] for row in rows[2:]] == ["I am <PERSON_1>", "Thanks <PERSON_1>"]
    assert counts["failed"] == 0


def test_dry_run_reads_questions_metadata_and_edits() -> None:
    """The question before, the metadata and the customer of an event count; edited replies are scrubbed like turns."""
    event = {"conversation_id": "c", "event_id": "e", "seq": 3}
    rows, _ = run(
        json.dumps({"text": "okafor", "prev": "Your last name?"}),
        json.dumps({"turns": [{"role": "agent", "text": "hi wanda"}], "metadata": {"customer_name": "Wanda Date"}}),
        json.dumps({**event, "type": "feedback", "corrected_text": "Dear nora", "customer": {"name": "Nora Lund"}}),
        json.dumps({**event, "type": "conversation_closed", "turns": 4}),
    )
    assert rows[0]["masked"] == "<PERSON_1>"
    assert rows[1]["turns"][0]["masked"] == "hi <PERSON_1>"
    assert rows[2]["masked"] == "Dear <PERSON_1>"
    assert (rows[3]["masked"], rows[3]["spans"]) == (None, [])


def test_dry_run_reads_what_chat_apis_and_traffic_files_hold() -> None:
    """Messages, their parts, ShareGPT's turns and events inside of records come back as they came, masked."""
    event = {"type": "message", "conversation_id": "c", "event_id": "e", "seq": 0, "role": "customer"}
    parts = [{"type": "text", "text": "I am Ines Okafor"}, {"type": "image_url"}]
    rows, counts = run(
        json.dumps({"key": "c", "value": {**event, "text": "I am Ines Okafor"}}),
        json.dumps({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Hi Ines"}]}),
        json.dumps({"conversations": [{"from": "human", "value": "I am Ines Okafor"}]}),
        drop=True,
    )
    assert rows[0]["value"]["masked"] == "I am <PERSON_1>"
    assert [turn["masked"] for turn in rows[1]["messages"]] == ["I am <PERSON_1>", "Hi <PERSON_1>"]
    assert rows[2]["conversations"][0]["masked"] == "I am <PERSON_1>"
    assert "Okafor" not in json.dumps(rows)
    assert (counts["PERSON"], counts["failed"]) == (4, 0)


def test_dry_run_reads_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A packed table comes out a conversation a line; half a packed file ends the command with its reason."""
    table = gzip.compress(b"conversation_id,role,text\nc1,customer,I am Ines Okafor\nc1,agent,Hi Ines\n")
    (tmp_path / "chats.csv.gz").write_bytes(table)
    assert main(["scrub", str(tmp_path / "chats.csv.gz")]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    assert [turn["masked"] for turn in json.loads(row)["turns"]] == ["I am <PERSON_1>", "Hi <PERSON_1>"]
    (tmp_path / "half.csv.gz").write_bytes(table[:-20])
    assert main(["scrub", str(tmp_path / "half.csv.gz")]) == 2
    assert "half.csv.gz" in capsys.readouterr().err


def test_dry_run_refuses_a_flood_of_metadata() -> None:
    """A conversation whose metadata is a flood is quarantined whole, and the next line is read."""
    rows, counts = run(
        json.dumps({"turns": [{"role": "agent", "text": "hi"}], "metadata": {"name": ["Nora"] * 500}}),
        json.dumps({"text": "hi"}),
    )
    assert (rows[0]["masked"], rows[0]["quarantined"], rows[1]["masked"]) == (None, "too_many_values", "hi")
    assert counts["failed"] == 1


def test_dry_run_command(tmp_path: Path) -> None:
    """`driftline scrub` exits with 1 if a line failed, with 0 if none did, and never repeats what it could not read."""
    good, bad, out = tmp_path / "good.jsonl", tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    good.write_text('{"text": "I am Ines Okafor", "id": 7}\n')
    bad.write_text('{"text": "I am Ines\n{"text": "fine"}\n')
    command = [sys.executable, "-m", "services.cli", "scrub"]
    done = subprocess.run([*command, str(good), "--drop-original", "--out", str(out)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert json.loads(out.read_text())["masked"] == "I am <PERSON_1>"
    assert b"Okafor" not in out.read_bytes() + done.stderr
    done = subprocess.run([*command, "-", "--no-tagger"], input=bad.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"line": 1, "error": "not_json"}, {"text": "fine", "masked": "fine", "spans": []}
    ]  # fmt: skip
    assert b"Ines" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [("{nope", "not_json"), ("[1]", "wrong_type"), ('{"text": 5}', "wrong_shape"), ("{}", "wrong_shape")],
)
def test_dry_run_names_bad_lines_without_their_content(line: str, code: str) -> None:
    """A line number and a code, and the run counts a failure."""
    rows, counts = run(line)
    assert rows == [{"line": 1, "error": code}]
    assert counts["failed"] == 1


def test_dry_run_quarantines_and_drops_originals() -> None:
    """A turn beyond a limit has no mask; originals can be left out."""
    rows, counts = run(
        json.dumps({"text": "x" * 20_000}), json.dumps({"text": "I am Ines", "prev": "name?"}), drop=True
    )
    assert rows[0] == {"masked": None, "spans": [], "quarantined": "too_long"}
    assert set(rows[1]) == {"masked", "spans"}
    assert counts["failed"] == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("so 4000 0012 3456 7899", Rule.DIGITS),
        ("so ４０００００１２", Rule.DIGITS),
        ("mail ann@example.org", Rule.AT_SIGN),
        ("the heron flies", Rule.CANARY),
        ("thanks okafor!", Rule.KNOWN),
        ("on 12/05/2024 at 10:30 we paid $1200000 in 2019 2020", None),
        ("<CARD_1> and 123456", None),
    ],
)
def test_residual_rules(text: str, rule: Rule | None) -> None:
    """Long numbers, addresses, canaries and known words are hits; dates, amounts and short numbers are not."""
    assert residue(text, lambda word: word == "okafor", ["heron"]) == rule
