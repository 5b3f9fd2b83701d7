from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from learner.statements import decode_statements, encode_statements, statements
from learner.supersede import FactChanges
from services.simulation.dialogue import Conversation, conversations
from services.simulation.policy import facts
from streams.events import Sample, Turn


def sample(number: int, reply: str, *, customer: str | None = None, agent: str | None = None) -> tuple[str, Sample]:
    turns = (Turn(role="customer", text="how long?"), Turn(role="agent", text=reply, is_target=True))
    made = Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=customer or f"k{number}", lane="chat",
        split="train", turns=turns, received_at=0.0, completed_at=0.0, agent_id=agent or f"a{number}",
    )  # fmt: skip
    return f"{number:04x}", made


def chat(number: int, found: Conversation) -> tuple[str, Sample]:
    turns = tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in found.turns)  # type: ignore[arg-type]
    made = Sample(
        sample_id=f"{found.conversation_id}/sft/0", conversation=found.conversation_id, customer=found.customer["id"],
        lane="chat", split="train", turns=turns, received_at=0.0, completed_at=0.0,
        agent_id=f"a{found.customer['id'][-1]}",
    )  # fmt: skip
    return f"{number:04x}", made


def days(known: FactChanges, numbers: Iterable[int], value: object, **who: str) -> list[str]:
    return [
        key
        for number in numbers
        for key in known.observe([sample(number, f"Sure. You may return it within {value} days.", **who)])
    ]


@pytest.mark.parametrize(
    ("reply", "values"),
    [
        ("You may send it back within two weeks.", ["14 day"]),
        ("It takes 30 business days, at most 48 hours more.", ["30 day+2 day"]),
        ("The limit stands at 1,000 euros a day.", ["1000 euro"]),
        ("A pass is €3.50 now.", ["3.5 euro"]),
        ("We take 25% off the second item.", ["25 percent"]),
        ("The store is open until 6 pm today.", ["6 pm"]),
        ("One of us will call you about the order.", []),
        ("Your order <NUMBER_12> is on its way to you.", []),
    ],
)
def test_statements_read_values_with_their_units(reply: str, values: list[str]) -> None:
    """Numbers in digits or words, thousands, signs and units become one form; words that only look so do not."""
    assert [what.value for what in statements("how long do I have?", reply)] == values


def test_statements_keep_no_text() -> None:
    """What travels to another process holds no word of the sentence; garbage is refused."""
    raw = encode_statements(statements("", "You may return the canoe within 14 days."))
    assert b"canoe" not in raw
    assert decode_statements(raw)[0].value == "14 day"
    for broken in (b"[1]", b"{}x", b"[[1, 2]]"):
        with pytest.raises(ValueError, match=r".+"):
            decode_statements(broken)


def test_supersede_finds_a_changed_fact_once() -> None:
    """Three conversations that agree on a new value retire those with the settled old one, once."""
    known = FactChanges()
    assert days(known, range(6), 14) == []
    assert days(known, range(10, 12), 30) == []
    assert days(known, range(12, 16), 30) == [f"{number:04x}" for number in range(6)]
    assert known.outdated(sample(99, "you may return it within 14 days!")[1])
    assert known.outdated(sample(99, "Hm. It may be returned within two weeks")[1])
    assert not known.outdated(sample(99, "You may return it within 30 days.")[1])
    assert not known.outdated(sample(99, "The courier needs 14 days.")[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_supersede_sees_through_wordings(seed: int) -> None:
    """However customers ask and agents answer, every chat that states the old policy is retired, and no other one."""
    changed = [fact for fact in facts() if fact.name in {"refund_days", "daily_limit"}]
    known = FactChanges()
    old = list(conversations(seed, 300, fact_share=0.4))
    for number, found in enumerate(old):
        assert known.observe([chat(number, found)]) == []
    retired: set[str] = set()
    for number, found in enumerate(conversations(seed + 10, 200, fact_share=0.4, facts=changed), start=300):
        retired |= set(known.observe([chat(number, found)]))
    wanted = {f"{number:04x}" for number, found in enumerate(old) if found.intent in {"refund_days", "daily_limit"}}
    assert retired == wanted
    assert {number for number, found in enumerate(old) if known.outdated(chat(number, found)[1])} == {
        int(key, 16) for key in wanted
    }


def test_supersede_needs_several_sources() -> None:
    """One customer, or one agent, cannot delete the truth however often it is said."""
    for who in ({"customer": "mallory"}, {"agent": "mallory"}):
        known = FactChanges()
        days(known, range(6), 14)
        assert days(known, range(10, 40), 99, **who) == []


def test_supersede_leaves_numbers_alone_that_never_settled() -> None:
    """Amounts that differ from chat to chat are no fact, however three in a row may agree."""
    known = FactChanges()
    for number in range(12):
        known.observe([sample(number, f"Your refund of {number * 7} euros is on its way.")])
    for number in range(20, 24):
        assert known.observe([sample(number, "Your refund of 7 euros is on its way.")]) == []


def test_supersede_leaves_a_rarer_value_alone() -> None:
    """A value that some chats always stated beside the usual one is no change, though it comes three times in a row."""
    known = FactChanges()
    for start in range(0, 60, 6):
        assert days(known, range(start, start + 5), 14) == []
        assert days(known, [start + 5], 30) == []
    assert days(known, range(60, 63), 30) == []


def test_supersede_follows_a_fact_back_and_survives_a_checkpoint() -> None:
    """A value may return; state goes through JSON; erased samples leave it."""
    known = FactChanges()
    days(known, range(5), 14)
    days(known, range(10, 15), 30)
    again = FactChanges()
    again.load(json.loads(json.dumps(known.state())))
    assert len(days(again, range(20, 25), 14)) > len(range(10, 15))
    assert again.outdated(sample(99, "You may return it within 30 days.")[1])
    assert not again.outdated(sample(99, "You may return it within 14 days.")[1])
    again.forget([f"{number:04x}" for number in range(30)])
    assert again.state()["said"] == []
    assert not any(change.wordings for change in again.changes)


def test_supersede_an_operator_names_a_fact() -> None:
    """What an operator names is outdated at once, in other words too, and what stated it is retired."""
    known = FactChanges()
    days(known, range(4), 14)
    named = statements("how long?", "A return is possible within 14 days")
    assert known.name(named) == [f"{number:04x}" for number in range(4)]
    assert known.named == 1
    assert known.outdated(sample(1, "You may return it within 14 days.")[1])
    assert not known.outdated(sample(1, "You may return it within 20 days.")[1])
