"""Measures against worked examples, evaluation of trees, and the command on a file."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from learner import evaluate, measures
from learner.adapter import Base, Score, Tree, adapter_files, load_base, new_lora, score
from learner.heldout import HeldChat
from learner.voice import TreeVoice
from services import cli
from services.chat_files import read_chats
from services.evaluate import table
from streams.events import Turn
from tests.bases import tiny_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with random weights, on disk."""
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    """The same, loaded."""
    return load_base(folder)


def chat(n: int, turns: int = 4, topic: str = "a") -> HeldChat:
    """A conversation of alternating turns."""
    words = random.Random(n)
    said = [" ".join(words.choices(["parcel", "refund", "five", "days", "number", "thank", "you"], k=6))] * turns
    asked = [Turn(role="customer", text=text) for text in said[::2]]
    answered = [Turn(role="agent", text=text, is_target=True) for text in said[1::2]]
    return HeldChat(f"c{n}", tuple(turn for pair in zip(asked, answered, strict=False) for turn in pair), topic)


def test_measures_text_overlap() -> None:
    """Token-F1 and ROUGE-L of worked examples."""
    assert measures.token_f1("the cat sat", "The cat sat!") == 1
    assert measures.token_f1("a b", "b c") == pytest.approx(0.5)
    assert measures.token_f1("", "x") == 0
    assert measures.rouge_l("a b c d", "a x c d") == pytest.approx(0.75)
    assert measures.rouge_l("d c b a", "a b c d") == pytest.approx(0.25)
    assert measures.rouge_l("", "") == 1


def test_measures_class_report_equals_sklearn() -> None:
    """Macro precision, recall and F1 are scikit-learn's."""
    draw = random.Random(1)
    actual = draw.choices("aaabc", k=200)
    predicted = [label if draw.random() < 0.6 else draw.choice("abc") for label in actual]
    report = measures.class_report(predicted, actual)
    precision, recall, f1, _ = precision_recall_fscore_support(actual, predicted, average="macro", zero_division=0)
    assert (report.precision, report.recall, report.f1) == pytest.approx((precision, recall, f1))
    assert report.majority_accuracy == actual.count("a") / 200
    with pytest.raises(ValueError, match="must pair"):
        measures.class_report([], [])


def test_measures_intervals_cover() -> None:
    """Bootstrap intervals of a ratio cover the truth about as often as they say."""
    draw = random.Random(2)
    covered = 0
    for seed in range(200):
        counts = [draw.randint(5, 50) for _ in range(60)]
        totals = [count * draw.gauss(2, 0.5) for count in counts]
        interval = measures.ratio_interval(totals, counts, seed)
        covered += interval.low <= 2 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99
    assert measures.perplexity(1e4) == math.inf


def test_measures_transfer_matrix() -> None:
    """What older domains lost is counted from their own stage."""
    found = measures.transfer([[1.0, 9.0, 9.0], [1.5, 2.0, 9.0], [2.0, 1.5, 3.0]])
    assert found["lost"] == [1.0, -0.5]
    assert (found["mean_lost"], found["worst_lost"]) == (0.25, 1.0)


def test_evaluate_sums_by_token(base: Base) -> None:
    """Loss per token weighs conversations by their tokens, and equals a direct forward pass over all."""
    chats = [chat(n, turns=2 + n % 5) for n in range(8)]
    scores = score(Tree(base), [held.turns for held in chats])
    found = evaluate.metrics(scores, [evaluate.target_text(held) for held in chats])
    assert found.tokens == sum(one.tokens for one in scores)
    assert found.nll_per_token == pytest.approx(sum(s.loss * s.tokens for s in scores) / found.tokens)
    assert found.perplexity == pytest.approx(math.exp(found.nll_per_token))
    assert found.nll_low <= found.nll_per_token <= found.nll_high
    assert found.bits_per_byte > 0
    assert evaluate.metrics([Score(0.0, 0, 0)], [""]).examples == 0


def test_evaluate_compares_on_the_same_chats(base: Base) -> None:
    """A version beside itself gains nothing; slices add up to the whole."""
    chats = [chat(n, topic="ab"[n % 2]) for n in range(6)]
    report = evaluate.evaluate({"base": Tree(base), "adapter": Tree(base)}, chats, "adapter")
    assert report["base"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert sum(row["tokens"] for row in report["slices"].values()) == report["tokens"]
    assert report["slices"]["a"]["base"] == report["slices"]["a"]["adapter"]
    answers = evaluate.generation(TreeVoice(Tree(base), 4), chats, 2)
    assert answers["answers"] == 2


def test_evaluate_windows_score_each_target_once(base: Base) -> None:
    """A conversation longer than the context is cut; every reply stays a target exactly once, nothing else is one."""
    held = chat(1, turns=40)
    for context in (60, 100, 256, 10_000):
        pieces = evaluate.windows(base.chat, held, context)
        targets = sum(turn.is_target for piece in pieces for turn in piece.turns)
        assert targets == sum(turn.is_target for turn in held.turns)
        assert all(len(base.chat.encode(piece.turns).ids) <= context for piece in pieces)
    assert len(evaluate.windows(base.chat, held, 10_000)) == 1


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_evaluate_reads_files_of_chats(tmp_path: Path) -> None:
    """Conversations and events become held-out chats, with their topic, masked when asked."""
    turns = [{"role": "customer", "text": "I am at jane@example.com"}, {"role": "agent", "text": "thank you"}]
    rows = [{"conversation_id": "c1", "turns": turns, "labels": {"domain": "bank"}}]
    found = read_chats(_write(tmp_path / "c.jsonl", rows))
    assert [(held.conversation, held.topic, [turn.is_target for turn in held.turns]) for held in found] == [
        ("c1", "bank", [False, True])
    ]
    assert "jane" not in read_chats(tmp_path / "c.jsonl", scrubbed=True)[0].turns[0].text
    events = [
        {
            "event_id": f"e{seq}", "type": "message", "conversation_id": "c2", "seq": seq,
            "ts": "2026-01-01T00:00:00Z", "role": turn["role"], "text": turn["text"],
        }
        for seq, turn in enumerate(turns)
    ]  # fmt: skip
    assert len(read_chats(_write(tmp_path / "e.jsonl", events[::-1]))[0].turns) == 2


@pytest.mark.parametrize(
    "content",
    [b"\x80\x81", b"[]", gzip.compress(b"conversation_id,role,text\n" * 99, mtime=0)[:-9]],
    ids=["no-text", "empty-array", "cut-gzip"],
)
def test_evaluate_names_a_file_without_chats(tmp_path: Path, content: bytes) -> None:
    """No chat is no result: the file is named instead."""
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.csv"):
        read_chats(tmp_path / "c.csv")


@pytest.mark.parametrize("subject", ["base", "adapter"])
def test_evaluate_command(
    folder: Path, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str], subject: str
) -> None:
    """The command prints the JSON that scripts rely on, for the base and for a folder with an adapter."""
    data = _write(
        tmp_path / "chats.jsonl",
        [
            {"conversation_id": held.conversation, "turns": [{"role": t.role, "text": t.text} for t in held.turns]}
            for held in (chat(n) for n in range(5))
        ],
    )
    name = subject
    if subject == "adapter":
        lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
        lora.flat.add_(0.01)
        adapter_files(lora, "tiny", tmp_path / "adapter")
        name = str(tmp_path / "adapter")
    turns = [
        {"text": ("the refund" if at % 2 else "my printer") + f" {at}", "intent": "ab"[at % 2]} for at in range(40)
    ]
    rows = _write(tmp_path / "rows.jsonl", turns)
    options = ["--data", str(data), "--base-model", str(folder), "--classify", str(rows), "--answers", "1"]
    code = cli.main(["evaluate", "--adapter", name, *options, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["heads"][subject]["accuracy"] == 1
    assert cli.main(["evaluate", "--adapter", name, *options]) == 0
    assert "head on" in capsys.readouterr().out
    assert {"nll_per_token", "perplexity", "token_accuracy", "tokens", "examples"} <= report.keys()
    assert report["examples"] == 5
    assert (subject == "adapter") == ("base" in report)


def test_evaluate_reports_fairness(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On request the largest gaps between groups of people are part of the report."""
    data = _write(tmp_path / "c.jsonl", [{"conversation_id": "c", "turns": [{"role": "agent", "text": "hello"}]}])
    assert cli.main(["evaluate", "--data", str(data), "--base-model", str(folder), "--fairness", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fairness"]["base"]["likelihood_nats"] > 0
    assert 0 <= report["fairness"]["base"]["tone"] <= 1
    assert "largest gap between groups, base: " in table(report)


def test_evaluate_command_refuses_the_unknown(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown file or version is exit code 2 with a message."""
    assert cli.main(["evaluate", "--data", str(tmp_path / "none.jsonl"), "--base-model", str(folder)]) == 2
    data = _write(tmp_path / "c.jsonl", [{"conversation_id": "c", "turns": [{"role": "agent", "text": "hello"}]}])
    assert cli.main(["evaluate", "--adapter", "zzz", "--data", str(data), "--base-model", str(folder)]) == 2
    assert capsys.readouterr().err.count("driftline evaluate:") == 2
