from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

from learner.batch import Document, Drawn
from learner.config import TrainConfig
from learner.guard import Guard
from learner.word_order import FEWEST_WORDS, KEPT, MOST_WORDS, Surplus, WordOrder, spoken
from services.simulation.dialogue import conversations

CONFIG = TrainConfig()


def chats(count: int) -> list[list[str]]:
    """What the agents of simulated chats say."""
    return [[text for role, text in told.turns if role == "agent"] for told in conversations(5, count, personal=0.0)]


def fresh(replies: Sequence[str], key: int, lane: str = "chat") -> Document:
    return Document((1, 2), (), Drawn("fresh", f"{key:06x}", lane=lane), said=spoken(replies))


def salad(rng: random.Random, replies: Sequence[str]) -> list[str]:
    return [" ".join(rng.sample(words, len(words))) for words in (reply.split() for reply in replies)]


def see(guard: Guard, batch: Sequence[Document], loss: float = 1.0) -> tuple[set[str], list[str]]:
    """Keys of what is set apart, and of what comes back."""
    guard.look(batch)
    judged = [(document, loss, guard.accepts(document, loss)) for document in batch]
    return {document.drawn.key for document, _, kept in judged if not kept}, guard.observe(judged)


def test_word_order_sets_salad_apart_and_keeps_good_chats() -> None:
    """Of chats of which a fifth is word salad nearly all of that waits and hardly a good one, from the first batch."""
    rng, guard = random.Random(3), Guard(2048, CONFIG)
    said = chats(240)
    words = [word for chat in said for reply in chat for word in reply.split()]
    good = bad = good_apart = bad_apart = 0
    for at in range(0, len(said), 8):
        batch, odd = [], set[str]()
        for key, chat in enumerate(said[at : at + 8], at):
            kind = rng.choice(["shuffled", "random"]) if rng.random() < 0.2 else ""
            replies = salad(rng, chat) if kind == "shuffled" else chat
            replies = [" ".join(rng.choices(words, k=len(r.split()))) for r in chat] if kind == "random" else replies
            batch.append(fresh(replies, key))
            odd |= {batch[-1].drawn.key} if kind else set()
        apart, _ = see(guard, batch)
        good, bad = good + len(batch) - len(odd), bad + len(odd)
        good_apart, bad_apart = good_apart + len(apart - odd), bad_apart + len(apart & odd)
    assert bad >= 30
    assert bad_apart >= 0.95 * bad, (bad_apart, bad)
    assert good_apart <= 0.03 * good, (good_apart, good)


def test_word_order_judges_only_fresh_text_that_can_be_told_apart() -> None:
    """Rehearsal, few words, text without words and messages that share nothing are never held for salad."""
    guard = Guard(2048, CONFIG)
    known = [fresh(chat, key) for key, chat in enumerate(chats(48))]
    see(guard, known)
    odd = fresh(salad(random.Random(1), chats(48)[7]), 99)
    assert see(guard, [odd])[0] == {odd.drawn.key}
    rehearsed = replace(odd, drawn=replace(odd.drawn, component="rehearsal"))
    few, unspaced = fresh(["course of yes"], 100), fresh(["您的订单已经发货，预计三天内送达。"] * 20, 101)
    assert see(guard, [rehearsed, few, unspaced]) == (set(), [])
    strange = [fresh([" ".join(f"w{key}x{n}" for n in range(20))], key, "forum") for key in range(200, 232)]
    assert not see(guard, strange)[0]


def test_word_order_bounds_what_is_looked_at() -> None:
    """Long samples are cut, short ones are left alone, and so is text that has no words."""
    assert spoken(["one two three"] * 2) == ()
    assert spoken(["您的订单已经发货，预计三天内送达。"] * 20) == ()
    long = spoken([" ".join(map(str, range(60)))] * 3)
    assert FEWEST_WORDS <= sum(len(reply.split()) for reply in long) <= MOST_WORDS


def test_word_order_a_sample_never_vouches_for_itself() -> None:
    """However often a sample comes, its own pairs count for others alone; erased ones count for none, old ones go."""
    order, text = WordOrder(0.35), ("we send the new parcel on Monday",)
    first = {"a": ("chat", text)}
    for _ in range(3):
        order.look(first)
        assert order.found["a"].value == 0.0
    order.look({"b": ("chat", text)})
    assert order.found["b"].value > 1.0
    order.forget(["a"])
    order.look({"b": ("chat", text)})
    assert order.found["b"].value == 0.0
    order.look({f"{n}": ("chat", (f"x{n} y{n} z{n}",)) for n in range(KEPT)})
    order.look({"c": ("chat", text)})
    assert order.found["c"].value == 0.0


def test_word_order_comes_back_when_the_lane_is_like_that() -> None:
    """What waited for its order is readmitted once most of its lane is so; a fifth of noise moves nothing."""
    rng, guard, said, key = random.Random(2), Guard(2048, CONFIG), chats(200), iter(range(10_000))
    see(guard, [fresh(chat, next(key)) for chat in said[:40]])
    waited = set[str]()
    for at in range(40, 140, 10):
        batch = [fresh(salad(rng, c) if n < 2 else c, next(key)) for n, c in enumerate(said[at : at + 10])]
        apart, back = see(guard, batch)
        waited |= apart
        assert not back
    assert len(waited) >= 18
    returned = list[str]()
    for at in range(0, 200, 10):
        returned += see(guard, [fresh(salad(rng, chat), next(key)) for chat in said[at : at + 10]])[1]
    assert waited <= set(returned)


def test_word_order_state_survives() -> None:
    """Saved as JSON it judges as before, and what waits comes back for the same reason; switched off it judges none."""
    guard, other, off = (Guard(2048, replace(CONFIG, quarantine_order=share)) for share in (0.35, 0.35, 0.0))
    see(guard, [fresh(chat, key) for key, chat in enumerate(chats(48))])
    apart, _ = see(guard, [fresh(salad(random.Random(1), chats(48)[7]), 99)])
    for one in (other, off):
        one.load(json.loads(json.dumps(guard.state())))
    assert json.dumps(other.state()) == json.dumps(guard.state())
    assert apart == {f"{99:06x}"} <= set(other.waiting)
    again = fresh(salad(random.Random(4), chats(48)[9]), 100)
    assert see(other, [again])[0] == {again.drawn.key}
    assert see(off, [again]) == (set(), [*guard.waiting])


def test_word_order_needs_to_stand_out() -> None:
    """Of a lane whose messages hardly share a pair nothing is judged that could not stand out."""
    order = WordOrder(0.35)
    order.load({"newest": [], "lanes": {"forum": [0.2] * 8, "chat": [1.0] * 8}})
    assert not order.is_salad("forum", Surplus(0.0, 50))
    assert order.is_salad("forum", Surplus(0.0, 100))
    assert order.is_salad("chat", Surplus(0.34, 4))
    assert not order.is_salad("chat", Surplus(0.36, 90))
    assert not order.is_salad("unseen", Surplus(-1.0, 90))
