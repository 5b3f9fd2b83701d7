"""Conversations -> samples: order, completeness, gaps, replies, late turns, feedback, splits. Pure, without a store."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.assemble import Conversation, Cut, cut, prepare, split_of, view
from streams.config import StreamConfig
from streams.events import CleanEvent, Pair
from streams.near_copies import template_weight
from streams.near_copies_store import Copies
from streams.quality import QualityConfig, Reason, Tag
from streams.replay.codec import sample_digest
from tests.conversations import START, clean, conversation, said

CONFIG = StreamConfig()
QUALITY = QualityConfig()
LATER = START + 10_000_000


def holding(events: list[CleanEvent]) -> Conversation:
    found = Conversation(events[0].conversation)
    for event in events:
        found.add(event)
    return found


def leave(held: Conversation, now: float, config: StreamConfig = CONFIG, uses: int = 0) -> Cut:
    prepared = prepare(held, now, config, QUALITY)
    assert prepared.due
    made = cut(prepared, [Copies()] * len(prepared.units), [uses] * len(prepared.units), config, b"k")
    held.memo = made.memo
    return made


def test_assemble_closed_conversation_is_one_sample() -> None:
    """All replies of a closed conversation leave as one sample with loss on each, the customer's turns as context."""
    events = conversation("c", 6)
    made = leave(holding(events), events[-1].received_at)
    (sample,) = made.samples
    assert sample.sample_id == "c.5/sft/0"
    assert [turn.is_target for turn in sample.turns] == [False, True] * 3
    assert sample.event_ids == tuple(event.event_id for event in events[:-1])
    assert sample.offsets == {"chats.raw-0": (0, 5)}
    assert made.memo.final
    assert made.settled == ("c.6",)


def test_assemble_last_words_of_customer_are_no_reply() -> None:
    """What no reply follows never enters a sample and is rejected when the conversation is complete."""
    events = conversation("c", 5)
    made = leave(holding(events), LATER)
    assert made.rejected == {"c.4": Reason.NO_REPLY}


def test_assemble_without_replies_rejects_everything() -> None:
    """A close or a customer without any reply teaches nothing."""
    made = leave(holding([clean("c", 0), clean("c", 1, type="conversation_closed", turns=1)]), LATER)
    assert not made.samples
    assert made.rejected == {"c.0": Reason.NO_REPLY}
    assert made.settled == ("c.1",)


def test_assemble_marks_what_is_kept() -> None:
    """An angry customer, a macro said often before and a reply that failed are kept with their tags and weights."""
    events = [
        clean("c", 0, text="this is ridiculous, you are all useless, where is my damn parcel"),
        clean("c", 1, role="agent", text="I am sorry, it leaves our house today and you get it on Friday."),
        clean("c", 2, text="still not working, that does not help"),
        clean("c", 3, role="agent", text="I have now sent you another one by express."),
        clean("c", 4, text="thanks, that helped"),
    ]
    (sample,) = leave(holding(events), LATER).samples
    assert sample.tags == (Tag.TONE, Tag.LOW_SIGNAL)
    labels = [(turn.label, turn.weight) for turn in sample.turns if turn.is_target]
    assert [label for label, _ in labels] == ["bad", "good"]
    (macro,) = leave(holding(events), LATER, uses=QUALITY.template_count).samples
    assert macro.tags == (Tag.TONE, Tag.LOW_SIGNAL, Tag.TEMPLATE)
    assert macro.turns[3].weight == pytest.approx(labels[1][1] * template_weight(QUALITY.template_count))


def test_assemble_reply_leaves_after_emit_after() -> None:
    """A complete reply of an open conversation leaves when it is `emit_after_s` old, not before."""
    held = holding(conversation("c", 3, close=False))
    completed = held.messages()[2].received_at
    early = prepare(held, completed + CONFIG.emit_after_s - 1, CONFIG, QUALITY)
    assert not early.due
    assert early.again_at == completed + CONFIG.emit_after_s
    made = leave(held, completed + CONFIG.emit_after_s)
    assert [sample.sample_id for sample in made.samples] == ["c.1/sft/0"]
    assert made.memo.left == 1


def test_assemble_nothing_behind_a_gap_leaves_in_its_time() -> None:
    """A missing seq holds back what is behind it for `gap_s`, divided by the speed."""
    config = replace(CONFIG, speed=4.0)
    held = holding([event for event in conversation("c", 7, close=False) if event.seq != 2])
    behind = held.messages()[2].received_at
    assert [m.seq for m in view(held, behind + 29, config).messages] == [0, 1]
    assert view(held, behind + 29, config).again_at == behind + 30
    assert [m.seq for m in view(held, behind + 30, config).messages] == [0, 1, 3, 4, 5, 6]


def test_assemble_close_waits_for_missing_turns() -> None:
    """A close without all its turns completes after `gap_s`; with them at once."""
    events = conversation("c", 4)
    held = holding([event for event in events if event.seq != 1])
    closed = events[-1].received_at
    assert view(held, closed, CONFIG).completed_at == closed + CONFIG.gap_s
    held.add(events[1])
    assert view(held, closed, CONFIG).completed_at == closed


@pytest.mark.parametrize(
    ("events", "torn"),
    [
        ([clean("c", 0), clean("c", 2, role="agent", text="i have sent the parcel again today")], {"c.2"}),
        (
            [clean("c", 0), clean("c", 1, role="agent", text="let me look"),
             clean("c", 3, role="agent", text="it was sent again today")],
            {"c.1", "c.3"},
        ),
        (
            [clean("c", 0), clean("c", 1, event_id="x"), clean("c", 1, role="agent", text="it was sent again today")],
            {"c.1"},
        ),
        ([clean("c", 0), clean("c", 1, type="feedback"), clean("c", 2, role="agent", text="it was sent today")], set()),
        ([clean("c", 4), clean("c", 5, role="agent", text="i have sent the parcel again today")], set()),
        ([clean("c", 4, role="agent", text="i have sent the parcel again today")], set()),
    ],
    ids=["question lost", "hole inside", "two in one place", "feedback between", "begins later", "no question"],
)  # fmt: skip
def test_assemble_replies_that_nobody_can_place_are_out_of_order(events: list[CleanEvent], torn: set[str]) -> None:
    """A reply next to a turn that never came, or in a place that another claims, has an unknown question."""
    made = leave(holding(events), LATER)
    assert {event for event, reason in made.rejected.items() if reason == Reason.OUT_OF_ORDER} == torn
    assert bool(made.samples) is not bool(torn)


def test_assemble_reopened_conversation_waits_again() -> None:
    """A turn above all that left opens a complete conversation, which then completes by idleness."""
    held = holding(conversation("c", 2))
    leave(held, LATER)
    assert held.memo.final
    held.add(clean("c", 3, received_at=LATER))
    held.add(clean("c", 4, role="agent", text=said(random.Random(1), "agent"), received_at=LATER + 5))
    assert not held.memo.complete
    assert view(held, LATER + 6, CONFIG).completed_at == LATER + 5 + CONFIG.idle_s
    made = leave(held, LATER + 5 + CONFIG.idle_s)
    assert [sample.sample_id for sample in made.samples] == ["c.4/sft/0"]


def test_assemble_unrated_answer_of_the_model_waits() -> None:
    """The model's own answer stays until something rates it, at most `rating_wait_s` after completion."""
    held = holding(conversation("c", 2, role="assistant"))
    made = leave(held, held.closes()[0].received_at)
    assert not made.samples
    assert made.memo.complete
    assert not made.memo.final
    waits = prepare(held, LATER - 9_990_000, CONFIG, QUALITY)
    assert not waits.due
    over = leave(held, waits.again_at)
    assert over.rejected == {"c.1": Reason.UNRATED, "c.0": Reason.NO_REPLY}


def test_assemble_rated_answer_of_the_model_is_learned() -> None:
    """A good rating turns the model's answer into a target with its label."""
    events = conversation("c", 2, role="assistant")
    held = holding([*events, clean("c", 3, type="feedback", rating=1.0)])
    (sample,) = leave(held, LATER).samples
    assert sample.turns[-1].label == "good"
    assert sample.turns[-1].weight > 1
    assert "c.3" in sample.event_ids


def test_assemble_feedback_on_left_reply_becomes_annotation() -> None:
    """A rating that comes after the sample travels behind it and names its replies."""
    held = holding(conversation("c", 4))
    leave(held, LATER)
    held.add(clean("c", 5, type="feedback", rating=0.0, target_seq=3))
    (note,) = leave(held, LATER).annotations
    assert note.feedback_id == "c.5"
    assert note.targets == ("c.3",)
    assert note.label == "bad"


def test_assemble_feedback_without_target_is_rejected() -> None:
    """Feedback on a reply that never was ends as no_target once nothing can change that."""
    held = holding(conversation("c", 4))
    leave(held, LATER)
    held.add(clean("c", 5, type="feedback", rating=0.0, target_seq=77))
    made = leave(held, LATER)
    assert made.rejected == {"c.5": Reason.NO_TARGET}
    assert not made.annotations


def test_assemble_edit_becomes_pair() -> None:
    """An agent's better text is a sample of kind edit that prefers it over the draft, and marks the draft bad."""
    events = conversation("c", 2)
    better = "please open the settings, choose billing, and press the button that says cancel the plan"
    held = holding([*events, clean("c", 3, type="feedback", corrected_text=better, target_seq=1)])
    made = leave(held, LATER)
    sft, edit = made.samples
    assert (sft.kind, edit.kind) == ("sft", "edit")
    assert sft.turns[-1].label == "bad"
    assert edit.pair is not None
    assert (edit.pair.draft, edit.pair.final) == (events[1].text, better)
    assert edit.turns[-1].text == better


def test_assemble_at_most_eight_replies_a_sample() -> None:
    """More replies leave as several samples, each reply a target of one."""
    made = leave(holding(conversation("c", 22)), LATER)
    targets = [[t.event_id for t in sample.turns if t.is_target] for sample in made.samples]
    assert [len(names) for names in targets] == [8, 3]
    assert len({name for names in targets for name in names}) == 11


def test_assemble_mixed_versions_are_rejected() -> None:
    """Once two versions have answered in one conversation, the second one's answers are no training data."""
    events = conversation("c", 4, role="assistant")
    versions = {1: "v1", 3: "v2"}
    told = [
        CleanEvent(**{**{f: getattr(e, f) for f in e.__struct_fields__}, "adapter": versions.get(e.seq)})
        for e in events
    ]
    made = leave(holding([*told, clean("c", 5, type="feedback", rating=1.0)]), LATER)
    assert made.rejected["c.3"] == Reason.VERSION_MIXED
    assert [s.adapter for s in made.samples] == ["v1"]


def test_assemble_copies_are_rejected_with_their_reason() -> None:
    """What the store calls a copy does not leave; its customer's turn then has no reply."""
    prepared = prepare(holding(conversation("c", 2)), LATER, CONFIG, QUALITY)
    made = cut(prepared, [Copies(reason=Reason.NEAR_DUPLICATE)], [0], CONFIG, b"k")
    assert made.rejected == {"c.1": Reason.NEAR_DUPLICATE, "c.0": Reason.NO_REPLY}


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 14))
def test_assemble_order_of_arrival_does_not_matter(rng: random.Random, turns: int) -> None:
    """Whatever the order in which events arrive within the window, the samples are the same."""
    events = conversation("c", turns, seed=turns)
    expected = leave(holding(events), LATER)
    shuffled = [*events, *rng.sample(events, len(events) // 2)]
    rng.shuffle(shuffled)
    made = leave(holding(shuffled), LATER)
    assert made.samples == expected.samples
    assert made.rejected == expected.rejected


@pytest.mark.parametrize("shares", [(0.85, 0.10, 0.05), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0)])
def test_assemble_split_follows_its_shares(shares: tuple[float, float, float]) -> None:
    """Splits come in their shares, and the same key always gets the same."""
    found: list[str] = [split_of(f"key-{n}", "salt", shares) for n in range(20_000)]
    assert found == [split_of(f"key-{n}", "salt", shares) for n in range(20_000)]
    for name, share in zip(("train", "val", "test"), shares, strict=True):
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.01)


def test_assemble_config_refuses_contradictions() -> None:
    """A bad value is refused with key, value and rule."""
    with pytest.raises(ValueError, match="shares"):
        StreamConfig(shares=(0.5, 0.5))
    with pytest.raises(ValueError, match="speed = 0"):
        StreamConfig(speed=0)


def test_assemble_reads_rephrased_questions_and_abandonment() -> None:
    """Who asks the same again was not answered, and a question that nobody ever answered weighs less."""
    asked = "how do I change the delivery address of my blue lamp"
    events = [
        clean("c", 0, text=asked),
        clean("c", 1, role="agent", text="You can track parcels on our page."),
        clean("c", 2, text=f"{asked} please"),
        clean("c", 3, role="agent", text="Sorry, I can do that. Which street and town shall it be?"),
    ]
    (sample,) = leave(holding(events), LATER).samples
    first, second = (turn for turn in sample.turns if turn.is_target)
    assert (first.label, second.label) == ("bad", "unknown")
    assert 0 < second.weight < 1


def test_assemble_samples_are_made_again_with_masked_text() -> None:
    """Of a sample that has left, and of an agent's edit, only what was masked since changes, and the number."""
    config = replace(CONFIG, emit_after_s=1.0)
    held = holding(conversation("c", 6, close=False))
    (first,) = leave(held, START + 55, config).samples
    held.add(clean("c", 6, type="feedback", corrected_text="this is what went out to anton in the end", target_seq=3))
    (edit,) = leave(held, START + 61, config).samples
    held.events["c.2"] = msgspec.structs.replace(held.events["c.2"], text="my <PERSON_1>")
    held.events["c.6"] = msgspec.structs.replace(held.events["c.6"], corrected_text="it went out to <PERSON_2>")
    held.masked = {"c.2", "c.6"}
    again = leave(held, START + 62, config).samples
    assert [sample.sample_id for sample in again] == ["c.3/sft/1", "c.3/edit/1"]
    for old, new in zip((first, edit), again, strict=True):
        assert new.replaces == sample_digest(old, b"k").hex()
        said_before, said_now = ([turn.text for turn in sample.turns] for sample in (old, new))
        assert next(text for text in said_now if text not in said_before) == "my <PERSON_1>"
        blank = [
            msgspec.structs.replace(sample, sample_id="", replaces=None, turns=(), pair=None) for sample in (old, new)
        ]
        assert blank[0] == blank[1]
    assert again[1].pair == Pair(first.turns[3].text, "it went out to <PERSON_2>")
    assert again[1].turns[-1].text == "it went out to <PERSON_2>"
    held.masked = {"c.2"}
    assert [s.sample_id for s in leave(held, START + 63, config).samples] == ["c.3/sft/2", "c.3/edit/2"]
    held.masked = set()
    assert not prepare(held, START + 64, config, QUALITY).due
