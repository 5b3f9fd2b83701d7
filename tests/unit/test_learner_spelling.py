from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from learner.adapter.chat import Chat, load_chat
from learner.batch import Document, Drawn, documents
from learner.config import TrainConfig
from learner.guard import Guard
from learner.spelling import Spelling, density
from services.simulation.dialogue import conversations
from streams.events import Sample, Turn

CONFIG = TrainConfig()


@pytest.fixture(scope="module")
def chat() -> Chat:
    return load_chat(Path(__file__).resolve().parents[2] / "learner/demo_base")


def sample(reply: str, key: int = 0) -> Sample:
    turns = (Turn(role="customer", text="Hello?"), Turn(role="agent", text=reply, is_target=True))
    return Sample(
        sample_id=f"{key}/sft/0", conversation=str(key), customer=str(key), lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0,
    )  # fmt: skip


def letters(rng: random.Random, text: str) -> str:
    return " ".join("".join(rng.choices("qxzjvkwpfhgy", k=6)) for _ in text.split())


def test_spelling_finds_noise_from_the_first_batch_on(chat: Chat) -> None:
    """At 20 % random letters at least 95 % wait, at most 3 % of the good chats do, whatever the loss says."""
    rng, guard = random.Random(3), Guard(2048, CONFIG)
    replies = [text for told in conversations(5, 160, personal=0.0) for role, text in told.turns if role == "agent"]
    good = bad = good_apart = bad_apart = 0
    for at in range(0, len(replies), 8):
        marks = [rng.random() < 0.2 for _ in replies[at : at + 8]]
        said = [letters(rng, text) if mark else text for text, mark in zip(replies[at : at + 8], marks, strict=True)]
        batch = [
            documents(chat, sample(text, at + n), Drawn("fresh", f"{at + n:06x}", lane="chat"), CONFIG)[0]
            for n, text in enumerate(said)
        ]
        guard.look(batch)
        kept = [guard.accepts(document, 3.0) for document in batch]
        guard.observe([(document, 3.0, ok) for document, ok in zip(batch, kept, strict=True)])
        good, bad = good + marks.count(False), bad + sum(marks)
        good_apart += sum(not ok and not mark for ok, mark in zip(kept, marks, strict=True))
        bad_apart += sum(not ok and mark for ok, mark in zip(kept, marks, strict=True))
    assert bad > 50
    assert bad_apart >= 0.95 * bad
    assert good_apart <= 0.03 * good


def test_spelling_does_not_judge_short_replies_or_other_scripts(chat: Chat) -> None:
    """An order number is no noise, and letters that the tokenizer does not know are not held against a text."""
    assert density(chat, ["X7-Q9K2"]) == 0.0
    assert density(chat, ["您的订单已经发货，预计三天内送达。"]) == 0.0
    plain = density(chat, ["Your parcel is on its way to you."])
    marked = density(chat, ["qzx vkj wpf hgq xzz kwq vpj"])
    assert 0 < 1.4 * plain < marked


def test_spelling_comes_back_when_the_lane_is_like_that() -> None:
    """What waited for its spelling is readmitted once most of its lane is spelled so; others keep waiting."""
    guard = Guard(2048, CONFIG)

    def see(keys: range, found: float) -> list[str]:
        batch = [Document((1, 2), (), Drawn("fresh", f"{key:04x}", lane="chat"), density=found) for key in keys]
        guard.look(batch)
        return guard.observe([(document, 1.0, guard.accepts(document, 1.0)) for document in batch])

    see(range(30), 0.3)
    assert not see(range(100, 120), 0.6)
    assert len(guard.waiting) == 20
    back = see(range(200, 220), 0.6)
    assert len(back) == 20
    assert not guard.waiting


def test_spelling_state_survives() -> None:
    """Saved as JSON it judges as before; a limit of 0 judges nothing."""
    spelling = Spelling(1.4)
    spelling.look([("chat", 0.3)] * 8)
    other, off = Spelling(1.4), Spelling(0.0)
    other.load(json.loads(json.dumps(spelling.state())))
    off.load(spelling.state())
    assert other.is_noise("chat", 0.5)
    assert not other.is_noise("chat", 0.4)
    assert not other.is_noise("mail", 0.9)
    assert not off.is_noise("chat", 0.9)
