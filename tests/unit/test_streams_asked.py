"""Questions of pages as customers put them: the same words that matter, whatever the dressing."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.asked import in_a_chat, otherwise
from streams.augment import AugmentConfig, augment
from streams.events import Sample, Turn
from streams.near_copies import same_facts
from streams.quality import QualityConfig, judge_turn

QUESTIONS = (
    "How do I return an item within 30 days?", "What can you tell me about Aqua 3000 kettle: Cleaning?",
    "Do you ship to <CITY_1>?", "Where is my invoice?", "Is the lamp dimmable?", "Can I pay with 2 cards?",
    "How long does a refund take?", "Who pays for the return?", "Card?", "What else should I know about Robot R2: Use?",
)  # fmt: skip


def _sample(lane: str = "faq") -> Sample:
    turns = (
        Turn(role="customer", text=QUESTIONS[0]),
        Turn(role="agent", text="Bring it to any post office.", is_target=True, event_id="e1"),
    )
    return Sample(
        sample_id="e1/sft/0", conversation="c", customer="c", lane=lane, split="train", turns=turns, received_at=1.0,
        completed_at=2.0, event_ids=("e0", "e1"),
    )  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_asked_keeps_the_facts(question: str) -> None:
    """Every way to put it has the same numbers, names and placeholders, passes the filter, and most differ."""
    ways = {otherwise(question, random.Random(seed)) for seed in range(40)}
    assert len(ways) > (1 if question == "Card?" else 3)
    for way in ways:
        assert re.findall(r"<\w+>|\d+", way) == re.findall(r"<\w+>|\d+", question)
        assert judge_turn(way, "customer", QualityConfig()).keep, way
    assert any(same_facts(question, way) for way in ways)


def test_asked_turns_questions_round() -> None:
    """What the grammar knows is put otherwise; a clause that does not end behind its subject is left alone."""
    ways = {otherwise("How do I return an item?", random.Random(seed)) for seed in range(40)}
    assert "I want to return an item, how does that work?" in ways
    assert "Hi, how do I return an item?" in ways
    assert "Could you tell me where my invoice is?" in {
        otherwise("Where is my invoice?", random.Random(seed)) for seed in range(40)
    }
    long = {otherwise("What is the fee of a card that was stolen abroad?", random.Random(seed)) for seed in range(40)}
    assert all("fee of a card that was stolen abroad" in way for way in long)


@given(st.text(max_size=80), st.integers(0, 50))
def test_asked_takes_any_text(text: str, seed: int) -> None:
    """No text is an error, none gets lost, and the same seed says the same."""
    said = otherwise(text, random.Random(seed))
    assert said == otherwise(text, random.Random(seed))
    assert bool(said.strip()) is bool(text.strip())


@pytest.mark.parametrize("lane", ["faq", "documents"])
def test_asked_pairs_of_pages_become_chats(lane: str) -> None:
    """Copies of a page's pair are chats about it with its reply as only target, under its parent's name."""
    parent = _sample(lane)
    copies = augment(parent, AugmentConfig(copies=8, typos=0.0), random.Random(3))
    assert len(copies) == 8
    for copy in copies:
        assert [turn for turn in copy.turns if turn.is_target] == [parent.turns[1]]
        assert copy.turns[-2].role == "customer"
        assert "30" in copy.turns[-2].text
        assert (copy.sample_id.split("/")[:2], copy.split, copy.lane) == (["e1", "aug"], "train", lane)
    assert {len(copy.turns) for copy in copies} == {2, 4}
    assert len({copy.turns[-2].text for copy in copies}) > 3


def test_asked_lanes_can_be_chosen() -> None:
    """With `lanes` only their samples are copied."""
    config = AugmentConfig(copies=2, lanes=("faq",))
    assert augment(_sample("faq"), config, random.Random(1))
    assert not augment(_sample("chat"), config, random.Random(1))


def test_asked_leaves_a_chat_without_a_question_alone() -> None:
    """A reply that opens a chat keeps standing first, or behind a greeting."""
    turns = (Turn(role="agent", text="Welcome.", is_target=True),)
    assert {in_a_chat(turns, random.Random(seed))[-1] for seed in range(9)} == {turns[0]}
