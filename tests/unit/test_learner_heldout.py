"""Which conversations the gate may look at."""

from __future__ import annotations

import random

import pytest

from learner import heldout
from learner.heldout import SetLimits, choose
from streams.events import Label, Role, Sample, Turn

WORDS = [
    f"{first}{last}"
    for first in ("par", "in", "rou", "scre", "tick", "ca", "bat")
    for last in ("cel", "voice", "ter", "en", "et", "ble")
]


def sample(n: int, *, role: Role = "agent", topic: str = "a", text: str = "", label: Label = "unknown") -> Sample:
    """A conversation of one question and one reply in words of its own."""
    draw = random.Random(n)
    said = [" ".join(draw.choices(WORDS, k=12)) for _ in range(2)]
    return Sample(
        sample_id=f"e{n}/sft/0", conversation=f"c{n}", customer=f"c{n}", lane="x", split="val", topic=topic,
        received_at=float(n), completed_at=float(n), adapter=f"a00000{n % 2 + 1}-00000000" if role != "agent" else None,
        turns=(
            Turn(role="customer", text=said[0]),
            Turn(role=role, text=text or said[1], is_target=True, event_id=f"e{n}", label=label),
        ),
    )  # fmt: skip


def test_heldout_sets_are_apart_and_newest_first() -> None:
    """No conversation is in both sets, both are newest first, and membership does not change as others arrive."""
    samples = [sample(n, topic="ab"[n % 2]) for n in range(400)]
    first, second = choose(samples[:300], {}, SetLimits()), choose(samples, {}, SetLimits())
    recent = {found.sample_id for found in second.recent}
    sliced = {found.sample_id for held in second.slices.values() for found in held}
    assert not recent & sliced
    assert len(recent) + len(sliced) == 400
    assert 150 < len(recent) < 250
    assert {found.sample_id for found in first.recent} <= recent
    times = [found.completed_at for found in second.recent]
    assert times == sorted(times, reverse=True)
    assert len(choose(samples, {}, SetLimits(recent=40)).recent) == 40
    assert first.digest != second.digest


def test_heldout_scores_people_only() -> None:
    """Answers of adapters are no targets while people write any; else those rated good, equally by version."""
    mixed = choose([sample(1), sample(2, role="assistant", label="good")], {}, SetLimits())
    assert mixed.source == "human"
    assert [found.sample_id for found in mixed.everything] == ["e1/sft/0"]
    rated = [sample(n, role="assistant", label="good") for n in (2, 4, 6, 8, 3, 5)]
    only = choose([*rated, sample(10, role="assistant", label="bad")], {}, SetLimits())
    assert only.source == "rated"
    assert sorted(found.sample_id for found in only.everything) == ["e3/sft/0", "e5/sft/0", "e6/sft/0", "e8/sft/0"]


def test_heldout_drops_near_copies() -> None:
    """The same question with the same reply counts once, the newest; another value is no copy."""
    question = "where is the refund for my broken keyboard that I sent back to you last week"
    reply = "the refund for the keyboard takes five days and goes to the card that you used for it"

    def said(n: int, text: str) -> Sample:
        turns = (Turn(role="customer", text=question), Turn(role="agent", text=text, is_target=True))
        return Sample(
            sample_id=f"e{n}/sft/0", conversation=f"c{n}", customer="x", lane="x", split="val", turns=turns,
            received_at=n, completed_at=n,
        )  # fmt: skip

    copies = heldout.Copies()
    assert copies.adds(said(3, reply))
    assert not copies.adds(said(2, reply))
    assert copies.adds(said(1, reply.replace("five", "nine")))
    assert len(choose([said(3, reply), said(2, reply)], {}, SetLimits()).everything) == 1


def test_heldout_retires_used_conversations() -> None:
    """A conversation is used up after its decisions."""
    samples = [sample(n) for n in range(20)]
    uses: dict[str, int] = {}
    limits = SetLimits(retire_after=3)
    for _ in range(3):
        held = choose(samples, uses, limits)
        assert len(held.everything) == 20
        uses = heldout.counted(uses, held)
    assert choose(samples, uses, limits).everything == []


def test_heldout_limits_are_checked() -> None:
    """A bad setting is refused with key, value and rule."""
    with pytest.raises(ValueError, match="'recent' has value 0: must be above 0"):
        SetLimits(recent=0)
    with pytest.raises(ValueError, match="'recent_share' has value 2"):
        SetLimits(recent_share=2)
