"""The simulator: same seed, same traffic; its ground truth holds; customers tell good answers from bad ones."""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import pytest

from services.settings import Settings
from services.simulate import (
    BASE,
    LIVE,
    Mix,
    Record,
    Truth,
    arguments,
    base_conversations,
    conversations,
    facts,
    reaction,
    run,
    suits,
    traffic,
)
from services.simulation import people
from services.simulation.grammar import compiled, load
from services.simulation.noise import KINDS
from services.simulation.policy import stated
from streams.events import BadEvent, decode


def test_simulate_same_seed_gives_same_traffic() -> None:
    """Two runs with one seed agree line by line, another seed differs."""
    one, two, other = ([r.line() for r in traffic(seed, 40)] for seed in (5, 5, 6))
    assert one == two
    assert one != other


def test_simulate_records_arrive_in_order() -> None:
    """Offsets never go back, and the rate is about the one asked for."""
    records = list(traffic(1, 400, rate=50.0, mix=Mix(late=0)))
    assert all(a.offset_ms <= b.offset_ms for a, b in pairwise(records))
    begun = [r.offset_ms for r in records if r.line().find('"seq": 0') > 0]
    assert 35 < len(records) / (begun[-1] / 1000) < 70


def test_simulate_only_marked_records_are_broken() -> None:
    """A record is a chat event exactly when its truth does not call it malformed, and fails for the reason named."""
    reasons: Counter[str] = Counter()
    for record in traffic(2, 300, mix=Mix(malformed=0.05)):
        named = [fact["malformed"] for fact in record.truth if fact["kind"] == "malformed"]
        reason = _reason(record)
        assert named == ([reason] if reason else [])
        reasons.update(named)
    assert len(reasons) == 9


def test_simulate_planted_values_stand_in_their_turns() -> None:
    """Every value of the ground truth can be found where it says, and all kinds occur."""
    kinds = set()
    for record in traffic(3, 600, mix=Mix(personal=0.4)):
        for fact in record.truth:
            if fact["kind"] == "pii_canary":
                assert not isinstance(record.value, str)
                assert fact["value"] in record.value["text"]
                kinds.add(fact["pii_type"])
    assert kinds == set(people.MAKERS)


def test_simulate_check_digits_hold() -> None:
    """Card numbers pass Luhn, IBANs leave 1 modulo 97, so detectors that check will find them."""
    rng = Random(4)
    for _ in range(200):
        digits = [int(d) for d in people.card(rng) if d.isdigit()]
        total = sum(sum(divmod(d * 2, 10)) if i % 2 == 0 else d for i, d in enumerate(digits))
        assert len(digits) == 16
        assert total % 10 == 0
        iban = people.iban(rng).replace(" ", "")
        assert int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def test_simulate_facts_change_when_told() -> None:
    """Policy questions are answered with the old value, and with the new one once the fact is handed in."""
    fact = facts()[0]
    for changed, wanted in ((None, "old"), ((fact,), "new")):
        chats = conversations(7, 400, facts=changed, shops=[fact.shop])
        said = {fact.states(" ".join(t for r, t in c.turns if r == "agent")) for c in chats if c.intent == fact.name}
        assert said == {wanted}


def test_simulate_change_keeps_the_chats_before_it() -> None:
    """Traffic in which a policy changes half-way begins like the traffic in which it does not."""
    plain = [r.line() for r in islice(traffic(8, 60), 80)]
    changing = [r.line() for r in islice(traffic(8, 60, facts=facts(), changes_at=0.5), 80)]
    assert plain == changing


@pytest.mark.parametrize("fact", facts(), ids=lambda f: f.key)
def test_simulate_fact_is_recognised_in_answers(fact: object) -> None:
    """Each agent line states the value it was given; the question itself states none."""
    rng = Random(9)
    known = next(f for f in facts() if f is fact or f == fact)
    for _ in range(10):
        assert known.states(known.answer(rng, changed=True)) == "new"
        assert known.states(known.answer(rng, changed=False)) == "old"
        assert known.states(known.question(rng)) is None
    assert len(known.questions(3)) == 3
    assert known.states(f"{known.old} or {known.new}") is None


def test_simulate_stated_reads_values_as_words() -> None:
    """A value counts in any casing and spacing, never as part of a longer number."""
    assert stated("14 days", "Within 14-DAY windows")
    assert stated("2 euros", "it is 2  Euros")
    assert not stated("2 euros", "it is 22 euros, or 1.2 euros")
    assert not stated("14 days", "14 daylights")


def test_simulate_base_text_is_large_distinct_and_knows_no_live_shop() -> None:
    """Thousands of base chats hardly repeat, hold no personal data and no wording of the live shops."""
    chats = list(base_conversations(1, 3000))
    assert len({c.turns for c in chats}) > 2950
    assert {c.shop for c in chats} == set(BASE)
    assert not any(c.planted for c in chats)
    text = " ".join(t for c in chats for _, t in c.turns)
    assert not any(load(key).name in text for key in LIVE)
    assert len(text.split()) > 120_000
    assert "<PERSON_1>" in text


def test_simulate_no_slot_is_left_open() -> None:
    """Every slot and rule of every grammar is filled."""
    for chat in (*conversations(3, 1500), *base_conversations(3, 3000)):
        assert not any("{" in text or "(" in text.replace("(", "", text.count(") 555-")) for _, text in chat.turns)


def test_simulate_reaction_follows_the_answer() -> None:
    """True replies please, replies of other intents and nonsense do not, and a wrong policy is noticed."""
    rng = Random(1)
    chats = [c for c in conversations(2, 300, fact_share=0.4) if c.turns[0][1] and len(c.turns) > 3]
    true = [suits(c.turns[0][1], c.turns[1][1], Truth.of(c)) for c in chats if not _greets(c.turns[1][1])]
    assert sum(true) / len(true) > 0.97
    swapped = [
        suits(a.turns[0][1], b.turns[1][1], Truth.of(a))
        for a, b in pairwise(chats)
        if a.intent != b.intent and not _greets(a.turns[1][1]) and not _greets(b.turns[1][1])
    ]
    assert sum(swapped) / len(swapped) < 0.15
    truth = Truth("harbour", "refund_days", "30 days")
    question = "How long do I have to return something?"
    bad = [reaction(question, "Within 14 days of delivery.", truth, rng) for _ in range(200)]
    assert sum(r.kind == "escalated" for r in bad) > 15
    assert sum(r.rating == 0 for r in bad) > 20
    assert not suits(question, "zxcv qwrt plok", truth)


def test_simulate_reaction_gives_chat_events() -> None:
    """The reaction's events decode as feedback of that conversation."""
    rng = Random(2)
    truth = Truth("lumen", "roaming_fee", "1 euro")
    for _ in range(30):
        seen = reaction("What does roaming cost?", "That's 3 euros a day.", truth, rng)
        for event in seen.events("c-1", 4, "a-1", "2026-01-02T03:04:05Z", rng):
            assert decode(b"c-1", json.dumps(event).encode())


def _reason(record: Record) -> str | None:
    try:
        decode(None if record.key is None else record.key.encode(), record.raw())
    except BadEvent as bad:
        return str(bad.reason)
    return None


def _greets(text: str) -> bool:
    return text.startswith(("Ahoy", "Harbour &", "Tessera member", "Greetings", "Lumen crew", "Hey, you've got"))


@pytest.mark.parametrize("label", sorted(KINDS))
def test_simulate_noise_is_text_without_marks(label: str) -> None:
    """Noise of every kind is non-empty and leaves no mark of its grammar."""
    rng = Random(label)
    for _ in range(100):
        text = KINDS[label](rng)
        assert text.strip()
        assert "{" not in text


def test_simulate_grammar_refuses_open_brackets() -> None:
    """A line whose brackets do not match is an error with the line in it."""
    for line in ("a (b|c", "a) b", "(a|(b)"):
        with pytest.raises(ValueError, match="bracket"):
            compiled(line)


def test_simulate_command_writes_traffic_and_truth(tmp_path: Path) -> None:
    """The command writes gzip traffic and its truth, and refuses a count of zero."""
    parser = argparse.ArgumentParser()
    arguments(parser)
    out, truth = tmp_path / "t.jsonl.gz", tmp_path / "truth.jsonl"
    args = parser.parse_args(["--out", str(out), "--truth", str(truth), "--count", "30", "--seed", "4"])
    assert run(args, Settings()) == 0
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(r.line()) for r in traffic(4, 30)]
    assert all("kind" in json.loads(line) for line in truth.read_text().splitlines())
    assert run(parser.parse_args(["--count", "0"]), Settings()) == 2
