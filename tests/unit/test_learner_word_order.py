from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from learner import guard
from learner.adapter import Base, load_base, new_lora
from learner.batch import Document, Drawn, documents
from learner.config import TrainConfig
from learner.guard import Guard
from learner.update import new_trajectory, step
from learner.word_order import FEWEST_WORDS, MOST_WORDS, WordOrder, shuffled, spoken
from services.simulation.dialogue import conversations
from streams.events import Sample, Turn

CONFIG = TrainConfig(learning_rate=1e-2, warmup_steps=2)


@pytest.fixture(scope="module")
def base() -> Base:
    torch.set_num_threads(1)
    return load_base(Path(__file__).resolve().parents[2] / "learner/demo_base")


def sample(replies: Sequence[str], key: int) -> Sample:
    turns = [turn for said in replies for turn in asked(said)]
    return Sample(
        sample_id=f"{key}/sft/0", conversation=str(key), customer=str(key), lane="chat", split="train",
        turns=tuple(turns), received_at=0.0, completed_at=0.0,
    )  # fmt: skip


def asked(reply: str) -> tuple[Turn, Turn]:
    return Turn(role="customer", text="Hello?"), Turn(role="agent", text=reply, is_target=True)


def fresh(base: Base, replies: Sequence[str], key: int) -> list[Document]:
    return documents(base.chat, sample(replies, key), Drawn("fresh", f"{key:06x}", lane="chat"), CONFIG)


def test_word_order_sets_salad_apart_and_keeps_good_chats(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a line learns from chats of which a fifth is word salad, nearly all of that waits and hardly a good one."""
    monkeypatch.setattr(guard, "READ", 9.0)  # as if rehearsal filled most of each step
    rng = random.Random(3)
    chats = [[text for role, text in told.turns if role == "agent"] for told in conversations(5, 104, personal=0.0)]
    words = [word for chat in chats for reply in chat for word in reply.split()]
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
    trajectory = new_trajectory(lora, base.shape.vocab, CONFIG)
    good = bad = good_apart = bad_apart = 0
    for at in range(0, len(chats), 8):
        batch: list[Document] = []
        salad = set[str]()
        for key, chat in enumerate(chats[at : at + 8], at):
            kind = rng.choice(["shuffled", "random"]) if rng.random() < 0.2 else ""
            said = [shuffled(reply, str(rng.random())) for reply in chat] if kind == "shuffled" else chat
            said = [" ".join(rng.choices(words, k=len(reply.split()))) for reply in chat] if kind == "random" else said
            made = fresh(base, said, key)
            salad |= {document.drawn.key for document in made if kind}
            batch += made
        apart = set(step(base, trajectory, batch).quarantined)
        if at >= 32:  # the first batches tell what is normal
            keys = {document.drawn.key for document in batch}
            good, bad = good + len(keys - salad), bad + len(salad)
            good_apart, bad_apart = good_apart + len(apart - salad), bad_apart + len(apart & salad)
    assert bad >= 10
    assert bad_apart >= 0.9 * bad, (bad_apart, bad)
    assert good_apart <= 0.03 * good


def test_word_order_reads_only_what_is_doubted(base: Base) -> None:
    """Rehearsal, short text and a setting of 0 cost nothing.

    Where a step is all fresh text, only the highest losses are doubted: what is read again has its share.
    """
    judge, off = Guard(2048, CONFIG), Guard(2048, replace(CONFIG, quarantine_order=0.0))
    text = "we will send you the new parcel to your address on the next day and refund the old one"
    known = [fresh(base, [text], key)[0] for key in range(40)]
    assert judge.doubts(known[0], 0.5)
    judge.observe([(document, 2.0 + key % 3 / 10, True) for key, document in enumerate(known)])
    assert not judge.doubts(replace(known[0], drawn=replace(known[0].drawn, component="rehearsal")), 2.5)
    assert not judge.doubts(fresh(base, ["Yes, of course."], 99)[0], 2.5)
    assert not off.doubts(known[0], 9.0)
    judge.look(known[:8])
    assert judge.doubts(known[0], 2.5)
    assert not judge.doubts(known[0], 2.1)


def test_word_order_bounds_what_is_read() -> None:
    """Long samples are cut, short ones are left alone, and so is text that has no words."""
    assert spoken(["one two three"] * 3) == ()
    assert spoken(["您的订单已经发货，预计三天内送达。"] * 20) == ()
    long = spoken([" ".join(map(str, range(60)))] * 3)
    assert FEWEST_WORDS <= sum(len(reply.split()) for reply in long) <= MOST_WORDS


def test_word_order_is_the_same_after_a_restart() -> None:
    """The order hangs on key and reply alone, and holds the same words."""
    reply = "your parcel will be with you on Monday at the latest"
    assert shuffled(reply, "a") == shuffled(reply, "a") != shuffled(reply, "b")
    assert sorted(shuffled(reply, "a").split()) == sorted(reply.split())


def test_word_order_comes_back_when_the_lane_is_like_that() -> None:
    """What waited for its order is readmitted once most of its lane is so; a fifth of noise moves nothing."""
    judge = Guard(2048, CONFIG)

    def see(keys: range, gain: float) -> list[str]:
        batch = [Document((1, 2), (), Drawn("fresh", f"{key:04x}", lane="chat"), said=("a b c",)) for key in keys]
        judge.look(batch)
        judge.hear(batch, {document.drawn.key: gain for document in batch})
        return judge.observe([(document, 1.0, judge.accepts(document, 1.0)) for document in batch])

    see(range(40), 1.5)
    for start in range(100, 200, 10):
        assert not see(range(start, start + 2), 0.1)
        see(range(start + 2, start + 10), 1.5)
    assert len(judge.waiting) == 20
    back = see(range(300, 340), 0.1)
    assert len(back) == 60
    assert not judge.waiting


def test_word_order_state_survives() -> None:
    """Saved as JSON it judges as before, and what waits comes back for the same reason."""
    order, other, off = WordOrder(0.4), WordOrder(0.4), WordOrder(0.0)
    order.hear([("chat", 1.0)] * 8)
    order.observe("chat", None)
    for one in (other, off):
        one.load(json.loads(json.dumps(order.state())))
    assert other.state() == order.state()
    assert other.is_salad("chat", 0.39)
    assert not other.is_salad("chat", 0.41)
    assert not other.is_salad("mail", -1.0)
    assert not off.is_salad("chat", -0.1)
