from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from learner.adapter import Said, load_chat
from learner.batch import Drawn, documents
from learner.conditions import condition
from learner.config import TrainConfig
from learner.registry import base_identity
from services import cli
from streams.events import Label, Pair, Sample, Turn
from tests.bases import tiny_base

CONFIG = TrainConfig()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and the same with conditions."""
    base, out = tiny_base(tmp_path), tmp_path / "conditioned"
    condition(base, out)
    return base, out


def sample(label: Label, pair: Pair | None = None) -> Sample:
    turns = (
        Turn(role="customer", text="Where is it?"),
        Turn(role="agent", text="On its way.", is_target=True, label=label, weight=0.5),
    )
    return Sample(
        sample_id="e1/edit/0" if pair else "e1/sft/0", conversation="c", customer="k", lane="chat", split="train",
        turns=turns, pair=pair, received_at=0.0, completed_at=0.0,
    )  # fmt: skip


def test_conditions_are_off_unless_the_base_has_them(folders: tuple[Path, Path]) -> None:
    """A base without the file writes and learns as ever: a bad reply has no weight and keeps its label."""
    plain = load_chat(folders[0])
    assert not plain.conditioned
    made = documents(plain, sample("bad"), Drawn("fresh", "00"), CONFIG)[0]
    assert (made.replies[0].weight, made.replies[0].label) == (0.0, "bad")


def test_conditions_bad_replies_are_learned_behind_their_word(folders: tuple[Path, Path]) -> None:
    """Good and bad replies are both learned, each behind its word; what is served asks for the good one."""
    chat = load_chat(folders[1])
    good, bad = (documents(chat, sample(label), Drawn("fresh", "00"), CONFIG)[0] for label in ("good", "bad"))
    assert (bad.replies[0].weight, bad.replies[0].label) == (0.5, "unknown")
    assert good.replies[0].label == "good"
    asked = chat.prompt([Said("customer", "Where is it?")])
    assert list(good.ids[: good.replies[0].start]) == asked
    assert list(bad.ids[: bad.replies[0].start]) != asked
    assert good.ids[good.replies[0].start :] == bad.ids[bad.replies[0].start :]
    assert "Bad answer:" in chat.decode(bad.ids)


def test_conditions_pairs_share_their_prompt(folders: tuple[Path, Path]) -> None:
    """Draft and final of an edit answer the same prompt, the one that is served."""
    chat = load_chat(folders[1])
    draft, final = documents(chat, sample("good", Pair("No.", "On its way.")), Drawn("fresh", "00"), CONFIG)
    start = draft.replies[0].start
    assert draft.ids[:start] == final.ids[:start] == tuple(chat.prompt([Said("customer", "Where is it?")]))


def test_conditions_template_serves_what_was_trained(folders: tuple[Path, Path]) -> None:
    """The chat template of the folder writes the prompt's ids, history included, so that engines ask alike."""
    chat = load_chat(folders[1])
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folders[1] / "chat_template.jinja").read_text())
    messages = [
        {"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "On its way."},
        {"role": "user", "content": "Since when?"},
    ]  # fmt: skip
    written = template.render(messages=messages, add_generation_prompt=True)
    chat.tokenizer.encode_special_tokens = False
    ids = chat.tokenizer.encode(written, add_special_tokens=False).ids
    chat.tokenizer.encode_special_tokens = True
    turns = [Said("agent" if m["role"] == "assistant" else "customer", m["content"]) for m in messages]
    assert ids == chat.prompt(turns)
    identities = [base_identity(folder, "b").base.chat_template_sha256 for folder in folders]
    assert identities[0] != identities[1]


def test_cli_condition_makes_the_folder_once(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes words of one's own; a base that has some is refused."""
    base, out = folders
    made = out.with_name("other")
    assert cli.main(["condition", str(base), str(made), "--good", "Helpful:", "--bad", "Unhelpful:"]) == 0
    assert json.loads((made / "conditions.json").read_text()) == {"good": "Helpful:", "bad": "Unhelpful:"}
    assert cli.main(["condition", str(out), str(out.with_name("third"))]) == 2
    assert "conditioned already" in capsys.readouterr().err
