"""`driftline filter`: the same rows out, in order, with verdicts; the summary on stderr."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from services.filter import Judge, arguments, run
from services.settings import Settings
from streams.quality import QualityConfig

GOOD = "Your order was shipped on Tuesday and should arrive by Friday."
SPAM = "URGENT! Your mobile number has won a $5000 cash prize! Call 09061234567 now to claim. 18+"


def _run(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[Any], str]:
    parser = argparse.ArgumentParser()
    arguments(parser)
    code = run(parser.parse_args([str(path), *options]), Settings())
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_filter_gives_rows_back_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row keeps its fields and gains keep, reasons, tags, scores; repetitions are found."""
    rows = [{"id": 1, "text": GOOD}, {"id": 2, "text": SPAM, "extra": [1]}, {"id": 3, "text": GOOD.upper()}]
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + "\n\n")
    code, lines, err = _run(path, capsys)
    out = [json.loads(line) for line in lines]
    assert code == 0
    assert [row["id"] for row in out] == [1, 2, 3]
    assert [row["keep"] for row in out] == [True, False, False]
    assert out[1]["reasons"] == ["spam"]
    assert out[1]["extra"] == [1]
    assert 0.7 <= out[1]["scores"]["spam"] <= 1
    assert out[2]["reasons"] == ["duplicate"]
    assert "3 judged, 1 kept" in err


def test_filter_judges_conversations_turn_by_turn() -> None:
    """Replies gain a verdict, customers' turns stay as they are; the row says whether a reply is left."""
    judge = Judge(QualityConfig())
    turns = [
        {"role": "customer", "text": "this is bullshit, where is my order?!"},
        {"role": "agent", "text": GOOD},
        {"role": "customer", "text": "thanks"},
        {"role": "agent", "text": "asdf jklasdf kljsdf lkjasdf qwerqwer zxcvlkj"},
    ]
    row = judge.row({"conversation_id": "c", "turns": turns})
    assert row["keep"]
    assert row["turns"][0] == turns[0]
    assert row["turns"][1]["keep"]
    assert row["turns"][3]["reasons"] == ["gibberish"]
    assert not judge.row({"turns": [turns[0], turns[3]]})["keep"]


def test_filter_judges_events_by_role_and_question() -> None:
    """Events of one conversation are taken together; what is no message passes."""
    judge = Judge(QualityConfig())
    angry = {"type": "message", "conversation_id": "c", "role": "customer", "text": "You idiots, I am furious!"}
    assert judge.row(angry)["keep"]
    assert "tone" in judge.row(angry)["tags"]
    reply = {"type": "message", "conversation_id": "c", "role": "agent", "text": GOOD}
    assert judge.row(reply)["keep"]
    assert not judge.row(reply)["keep"]
    assert judge.row({**reply, "conversation_id": "d"})["keep"]
    assert judge.row({"type": "conversation_closed", "turns": 3})["keep"]


def test_filter_passes_unreadable_lines_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is no row comes out as it is, is counted, and the exit code says so."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ok"}\nnot json\n[1]\n{"id": 4}\n')
    code, lines, err = _run(path, capsys, "--json")
    assert code == 1
    assert lines[1:] == ["not json", "[1]", '{"id": 4}']
    found = json.loads(err)
    assert found["unreadable"] == 3
    assert list(found["unreadable_lines"]) == ["2", "3", "4"]


def test_filter_never_rejects_short_repetitions() -> None:
    """What every chat says ("ok, thanks") is no copy of itself."""
    judge = Judge(QualityConfig())
    assert all(judge.row({"text": "ok, thanks"})["keep"] for _ in range(3))


def test_filter_reads_traffic_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that holds an event under `value` is judged by that event and comes out whole."""
    event = {"type": "message", "conversation_id": "c", "role": "agent", "text": SPAM}
    path = tmp_path / "traffic.jsonl"
    path.write_text(json.dumps({"offset_ms": 5, "key": "c", "value": event}) + "\n")
    code, lines, _ = _run(path, capsys)
    row = json.loads(lines[0])
    assert code == 0
    assert (row["value"], row["keep"], row["reasons"]) == (event, False, ["spam"])


def test_filter_knows_the_names_of_other_products(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who a product calls bot or support is judged as a reply, and so is `content` under `messages`."""
    said = [{"role": "user", "content": "where is it"}, {"role": "bot", "content": SPAM}, {"role": "support"}]
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": said[:2]}, {"messages": said}, {"text": "You stupid idiot, get lost", "role": "Support"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, lines, err = _run(path, capsys, "--json")
    out = [json.loads(line) for line in lines]
    assert (code, json.loads(err)["judged"]) == (1, 3)
    assert (out[0]["messages"][1]["reasons"], out[0]["keep"]) == (["spam"], False)
    assert out[1] == rows[1]
    assert out[2]["reasons"] == ["toxic"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", f"ticket_id,sender,body\n1,customer,where is it\n1,agent,{GOOD}\n2,agent,{SPAM}\n2,martian,x\n"),
        ("a.md", f"## Where is it?\n\n{GOOD}\n\n## What have I won?\n\n{SPAM}\n\n"),
        (
            "a.mbox",
            "From a\nFrom: a@x.example\nMessage-ID: <1>\n\nwhere is it\n\n"
            + "".join(f"From b\nFrom: b@y.example\nIn-Reply-To: <1>\n\n{said}\n\n" for said in (GOOD, SPAM)),
        ),
    ],
)
def test_filter_reads_what_ingest_reads(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, pages and mails come out as conversations with verdicts; what holds no chat is counted."""
    (tmp_path / name).write_text(text)
    code, lines, err = _run(tmp_path / name, capsys, "--json")
    found = [json.loads(line) for line in lines]
    replies = [turn for row in found for turn in row.get("turns", ()) if turn["role"] == "agent"]
    assert [turn["reasons"] for turn in replies] == [[], ["spam"]]
    assert (code, json.loads(err)["unreadable"]) == ((1, 1) if name == "a.csv" else (0, 0))


def test_filter_reads_content_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of parts is judged; pictures and calls of tools are left out, and their line is named."""
    picture = {"type": "image_url", "image_url": {"url": "data:x"}}
    asked = {"role": "user", "content": [{"type": "text", "text": "where is it"}, picture]}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    told = {"role": "assistant", "content": [{"type": "text", "text": SPAM}]}
    rows: list[dict[str, Any]] = [
        {"messages": [asked, call, {"role": "tool", "content": "{}"}, told]},
        told,
        {"messages": [call]},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=1))
    code, lines, err = _run(path, capsys, "--json")
    out, found = [json.loads(line) for line in lines], json.loads(err)
    assert out[0]["messages"][:3] == rows[0]["messages"][:3]
    assert (out[0]["messages"][3]["reasons"], out[1]["reasons"], out[2]["keep"]) == (["spam"], ["spam"], False)
    assert (code, found["judged"], found["left_out"]) == (0, 3, 2)
    assert found["left_out_lines"] == {"1": "image_url, tool, tool_calls", "3": "tool_calls"}
    assert "line 1: left out: image_url" in _run(path, capsys)[2]


def test_filter_reads_pairs_of_questions_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON lines of prompts and completions come out as conversations with a verdict."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": "what have I won?", "completion": t}) + "\n" for t in (GOOD, SPAM)))
    code, lines, _ = _run(path, capsys)
    assert code == 0
    assert [json.loads(line)["keep"] for line in lines] == [True, False]


@pytest.mark.parametrize("bad", [{"turns": [{"role": "agent"}]}, {"turns": [1]}, {"turns": "x"}, [1], "x", None])
def test_filter_says_where_it_could_not_read(bad: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has no text is passed on, counted, and its line named."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": GOOD}) + "\n" + json.dumps(bad) + "\n")
    code, lines, err = _run(path, capsys)
    assert code == 1
    assert json.loads(lines[1]) == bad
    assert "1 lines unreadable" in err.replace("\n", " ")
    assert "driftline filter: line 2: " in err


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("a.jsonl", '{"text": "Grüße"}'.encode("latin-1"), "line 1: byte 13 is not UTF-8"),
        ("a.jsonl", '{"text": "ok"}'.encode("utf-16"), "line 1: byte 1 is not UTF-8"),
        ("a.jsonl", b'{"text": "cut of', "line 1: is no JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: is no JSON"),
        ("a.jsonl", b'[{"text": "ok"}]\n' * 2, "line 1: wants an object with `text` or `turns`, is a list"),
        ("a.jsonl", b"\x00\x01\xff", "line 1: byte 3 is not UTF-8"),
        ("a.csv", b"foo,bar\n1,2\n", "line 1: a table wants the columns"),
        ("a.html", b"<p>nothing", "line 1: a page wants questions"),
    ],
)
def test_filter_says_what_a_line_lacks(
    name: str, raw: bytes, why: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Wrong encodings, cut or nested JSON, bytes and tables without columns: line, reason, and exit code 1."""
    (tmp_path / name).write_bytes(raw)
    parser = argparse.ArgumentParser()
    arguments(parser)
    assert run(parser.parse_args([str(tmp_path / name)]), Settings()) == 1
    assert f"driftline filter: {why}" in capsysbinary.readouterr().err.decode()


def test_filter_reads_what_other_programs_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mark before UTF-8, line ends of two characters, blank lines and no end of line are no part of a row."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "%s"}\r\n\r\n{"text": "other"}' % GOOD.encode())
    code, lines, _ = _run(path, capsys)
    assert (code, [json.loads(line)["keep"] for line in lines]) == (0, [True, True])


def test_filter_refuses_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, a folder or broken gzip is named in one line; exit code 2."""
    broken = tmp_path / "broken.gz"
    broken.write_bytes(b"\x1f\x8b\x08garbage")
    for path in (tmp_path / "missing.jsonl", tmp_path, broken):
        code, lines, err = _run(path, capsys)
        assert (code, lines) == (2, [])
        assert err.startswith(f"driftline filter: {path}: ")
        assert err.count("\n") == 1
