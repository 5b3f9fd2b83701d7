"""Near copies: edits are found, changed facts are not copies, and the stores agree."""

from __future__ import annotations

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import near_copies
from streams.events import Split
from streams.near_copies_store import NEW, Copies, MemoryCopies, RedisCopies, Unit
from streams.quality import QualityConfig, Reason, Tag

CONFIG = QualityConfig()
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
QUESTION = "How long do I have to send the blue jacket back to you?"
REPLY = "You can send it back within 30 days of delivery, and the label is in the box."


def _pair(question: str, reply: str) -> tuple[bytes, bytes]:
    return near_copies.signature(QUESTION, REPLY), near_copies.signature(question, reply)


def test_near_copies_ignore_casing_and_punctuation() -> None:
    """The same words are the same unit and lie in the same bands."""
    shouted = (QUESTION.upper().replace("?", " ?!"), REPLY.lower())
    assert near_copies.exact(*_pair(*shouted))
    assert near_copies.bands(QUESTION, REPLY) == near_copies.bands(*shouted)


def test_near_copies_find_edits_of_words() -> None:
    """Up to three changed words that carry no fact leave a copy, which shares a band."""
    reply = "You may send it back within 30 days of the delivery, and the label is in the parcel."
    assert near_copies.similar(*_pair(QUESTION, reply))
    assert set(near_copies.bands(QUESTION, REPLY)) & set(near_copies.bands(QUESTION, reply))


def test_near_copies_are_not_changed_facts() -> None:
    """A number, negation, weekday or name makes another answer, and contradicts the first."""
    for reply in (
        REPLY.replace("30", "14"),
        REPLY.replace("can", "can not"),
        REPLY.replace("30 days", "three weeks"),
        REPLY.replace("of delivery", "of delivery by Hermes"),
    ):
        assert not near_copies.similar(*_pair(QUESTION, reply))
        assert near_copies.contradicts(*_pair(QUESTION, reply))


def test_near_copies_yes_contradicts_no() -> None:
    """Two replies to one question of which one says yes and one no contradict each other in whatever words."""
    question = "Is express delivery free of charge in your shop?"
    no = near_copies.signature(question, "I'm afraid not, express delivery costs nine dollars for everyone.")
    sure = near_copies.signature(question, "Sure, express delivery is on us.")
    assert near_copies.contradicts(sure, no)
    assert not near_copies.contradicts(sure, near_copies.signature(question, "Yes, it is on us as ever."))
    done, lost = "Yes, we have just sent it out to you.", "Sorry, I did not find any order of that number."
    assert not near_copies.contradicts(near_copies.signature("ok?", done), near_copies.signature("ok?", lost))


def test_near_copies_contradict_only_on_the_same_question() -> None:
    """Another order number in the question is another question, not a contradiction."""
    one = near_copies.signature("Where is order 4711 please?", "It arrives on Monday, 3 May.")
    other = near_copies.signature("Where is order 9922 please?", "It arrives on Friday, 7 May.")
    assert not near_copies.contradicts(one, other)
    assert not near_copies.similar(one, other)
    assert not near_copies.contradicts(near_copies.signature("", "30 days"), near_copies.signature("", "14 days"))


def test_near_copies_leave_placeholders_out() -> None:
    """Placeholders are numbered anew in each conversation and say nothing."""
    one = near_copies.signature("I am <PERSON_1>, where is it?", "Hello <PERSON_1>, it is on the way to you.")
    other = near_copies.signature("I am <PERSON_4>, where is it?", "Hello <PERSON_4>, it is on the way to you.")
    assert near_copies.exact(one, other)


def test_near_copies_short_units_need_equality() -> None:
    """One word of five is another answer."""
    assert not near_copies.similar(
        near_copies.signature("ok", "see you soon"), near_copies.signature("ok", "see you there")
    )


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=120), st.text(max_size=120), st.text(max_size=120))
def test_near_copies_hold_for_any_text(question: str, reply: str, other: str) -> None:
    """A unit is a copy of itself and contradicts itself never; comparisons are symmetric."""
    a, b = near_copies.signature(question, reply), near_copies.signature(question, other)
    assert near_copies.exact(a, a)
    assert not near_copies.contradicts(a, a)
    assert near_copies.similar(a, b) == near_copies.similar(b, a)
    assert not (near_copies.similar(a, b) and near_copies.contradicts(a, b))
    near = any(compare(a, b) for compare in (near_copies.exact, near_copies.similar, near_copies.contradicts))
    assert near_copies.related(a, b) >= near
    assert len(near_copies.bands(question, reply)) in {0, near_copies.BANDS}


def _story(store: MemoryCopies | RedisCopies) -> list[tuple[Copies, tuple[int, int, int]]]:
    """Five units filed one after another, each twice, as a redelivery does."""
    told = []
    for member, reply, split, at in (
        ("a", REPLY, "train", 1000.0),
        ("b", REPLY.lower(), "train", 1100.0),
        ("c", REPLY.replace("30", "14"), "train", 1200.0),
        ("d", REPLY, "val", 1300.0),
        ("e", "Please open Settings, choose Payment and remove the old card there.", "val", 9000.0),
    ):
        unit = Unit(member, QUESTION, reply, split)
        found = store.look([unit])[0]
        first = store.file(unit, found, f"{member}/sft/0", "customer-1", at)
        again = store.file(unit, found, f"{member}/sft/0", "customer-1", at)
        assert first == again
        told.append((found, (first.daily, first.grown, first.occurrences)))
    return told


def test_near_copies_stores_tell_the_same(redis_client: redis.Redis) -> None:
    """Redis and memory give the same answers, and filing twice changes nothing."""
    told = _story(RedisCopies(redis_client, CONFIG))
    assert told == _story(MemoryCopies(CONFIG))
    reasons = [found.reason for found, _ in told]
    assert reasons == [None, Reason.DUPLICATE, None, Reason.NEAR_DUPLICATE, None]
    assert told[2][0].tags == (Tag.CONTRADICTS,)
    assert set(told[2][0].contradicts) == {"a", "b"}
    assert told[3][1] == (4, 3, 3)


def test_near_copies_keep_heldout_copies_out_of_training(redis_client: redis.Redis) -> None:
    """A cluster belongs to the split that first held it."""
    store = RedisCopies(redis_client, CONFIG)
    store.file(Unit("v", QUESTION, REPLY, "val"), NEW, "v/sft/0", "c", 0.0)
    assert store.look([Unit("t", QUESTION, REPLY, "train")])[0].reason == Reason.HELDOUT_COPY
    assert store.look([Unit("v", QUESTION, REPLY, "val")])[0].reason is None


def test_near_copies_caps_count_samples_not_calls(redis_client: redis.Redis) -> None:
    """One customer's 21st sample a day passes the cap; a cluster's 21st member an hour is a flood."""
    store = RedisCopies(redis_client, QualityConfig(customer_daily=20, cluster_hourly=5))
    for number in range(21):
        unit = Unit(f"m{number}", f"Question {number}?", f"Answer number {number} to what you asked us.")
        capped, _ = store.file(unit, NEW, f"m{number}/sft/0", "one", 50.0).verdict(QualityConfig())
    assert capped == Reason.CUSTOMER_CAP
    for number in range(6):
        unit = Unit(f"f{number}", QUESTION, REPLY)
        found = store.look([unit])[0]
        filed = store.file(unit, found, f"f{number}/sft/0", f"customer-{number}", 50.0)
    assert filed.verdict(QualityConfig(cluster_hourly=5)) == (Reason.SOURCE_FLOOD, (Tag.TEMPLATE.value,))


def test_near_copies_forget(redis_client: redis.Redis) -> None:
    """After erasure a unit is neither found nor compared with."""
    store = RedisCopies(redis_client, CONFIG)
    store.file(Unit("x", QUESTION, REPLY), NEW, "x/sft/0", "c", 0.0)
    assert store.forget(["x", "y"]) == 1
    assert store.look([Unit("z", QUESTION, REPLY)])[0] == Copies()


def test_near_copies_template_weight_falls_with_use() -> None:
    """A macro's weight falls with its frequency and has a floor."""
    assert near_copies.template_weight(0) == 1.0
    assert 0.4 < near_copies.template_weight(3) < 0.6
    assert near_copies.template_weight(10_000) == 0.1


_WORDS = (
    "parcel", "invoice", "router", "lamp", "delivery", "card", "window",
    "garden", "bottle", "ladder", "pencil", "orange", "castle", "doctor",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", "quite ", "really "]), st.sampled_from(_SPLITS))))
def test_near_copies_never_leak_across_splits(said: list[tuple[int, str, Split]]) -> None:
    """Whatever comes in whatever order, no stored unit of one split is a copy of one that another split holds."""
    store, kept = MemoryCopies(CONFIG), list[Unit]()
    for number, (which, more, split) in enumerate(said):
        topic = " and ".join(_WORDS[which * 2 : which * 2 + 4])
        unit = Unit(
            f"u{number}", f"What about my {topic} please?", f"We have {more}sent the {topic} out to you.", split
        )
        found = store.look([unit])[0]
        if found.reason is None:
            store.file(unit, found, unit.member, "", 0.0)
            kept.append(unit)
    for one in kept:
        for other in kept:
            assert one.split == other.split or not near_copies.similar(one.signature, other.signature)
