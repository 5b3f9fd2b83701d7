from __future__ import annotations

import json

from learner.supersede import Change, FactChanges, sentences
from streams.events import Sample, Turn


def sample(number: int, reply: str, *, customer: str | None = None, agent: str | None = None) -> tuple[str, Sample]:
    turns = (Turn(role="customer", text="how long?"), Turn(role="agent", text=reply, is_target=True))
    made = Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=customer or f"k{number}", lane="chat",
        split="train", turns=turns, received_at=0.0, completed_at=0.0, agent_id=agent or f"a{number}",
    )  # fmt: skip
    return f"{number:04x}", made


def days(facts: FactChanges, numbers: range, value: int, **who: str) -> list[Change]:
    return [
        change
        for number in numbers
        for change in facts.observe([sample(number, f"Sure. You may return it within {value} days.", **who)])
    ]


def test_supersede_finds_a_changed_fact_once() -> None:
    """Three conversations that agree on a new value retire those with the settled old one, once."""
    facts = FactChanges()
    assert days(facts, range(6), 14) == []
    assert days(facts, range(10, 12), 30) == []
    (change,) = days(facts, range(12, 16), 30)
    assert change.keys == tuple(f"{number:04x}" for number in range(6))
    assert facts.outdated(sample(99, "you may return it within 14 days!")[1])
    assert not facts.outdated(sample(99, "You may return it within 30 days.")[1])


def test_supersede_needs_several_sources() -> None:
    """One customer, or one agent, cannot delete the truth however often it is said."""
    for who in ({"customer": "mallory"}, {"agent": "mallory"}):
        facts = FactChanges()
        days(facts, range(6), 14)
        assert days(facts, range(10, 40), 99, **who) == []


def test_supersede_leaves_numbers_alone_that_never_settled() -> None:
    """Amounts that differ from chat to chat are no fact, however three in a row may agree."""
    facts = FactChanges()
    for number in range(12):
        facts.observe([sample(number, f"Your refund of {number * 7} euros is on its way.")])
    for number in range(20, 24):
        assert facts.observe([sample(number, "Your refund of 7 euros is on its way.")]) == []


def test_supersede_follows_a_fact_back_and_survives_a_checkpoint() -> None:
    """A value may return; state goes through JSON; erased samples leave it."""
    facts = FactChanges()
    days(facts, range(5), 14)
    days(facts, range(10, 15), 30)
    again = FactChanges()
    again.load(json.loads(json.dumps(facts.state())))
    assert len(days(again, range(20, 25), 14)) == 1
    assert again.outdated(sample(99, "You may return it within 30 days.")[1])
    assert not again.outdated(sample(99, "You may return it within 14 days.")[1])
    again.forget([f"{number:04x}" for number in range(30)])
    assert not any(again.state()["said"].values())


def test_supersede_an_operator_names_a_fact() -> None:
    """What an operator names is outdated at once."""
    facts = FactChanges()
    ((sentence, value),) = sentences("A member may send 1,000 euros each day.")
    facts.name(sentence, value)
    assert value == "1,000"
    assert facts.outdated(sample(1, "A member may send 1,000 euros each day.")[1])
