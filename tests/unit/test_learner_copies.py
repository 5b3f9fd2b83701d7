"""Augmented copies in a step: their share, their parents, the log that makes them again."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import redis

from learner.adapter import Base, load_base
from learner.batch import Document, Drawn, Reply
from learner.config import TrainConfig
from learner.copies import Copies
from learner.draw_log import log_entry
from learner.feed import Feed, Plan
from learner.paraphrases import Paraphrases
from streams.augment import AugmentConfig, Say
from streams.events import Sample, Turn
from streams.replay import ReplayBuffer, TableConfig, open_table
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(fresh_batch=4, document_tokens=96, fresh_wait_s=0.0, lease_s=3600.0)
MANY = AugmentConfig(copies=3, typos=0.1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def sample(number: int, **changed: object) -> Sample:
    turns = (
        Turn(role="customer", text=f"Hello, {TEXTS[number % 5]} {number}, can you help me please?"),
        Turn(role="agent", text=f"{TEXTS[number % 6][::-1]} {number}", is_target=True),
    )
    made = Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=f"k{number}", lane="chat", split="train",
        turns=turns, received_at=2e9, completed_at=1e6 + number,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def feed_of(base: Base, client: redis.Redis, augmented: AugmentConfig) -> tuple[Feed, ReplayBuffer]:
    client.flushall()
    buffer = open_table(client, "train", TableConfig(), b"k" * 16, configure=True)
    anchors = [
        Document(tuple(range(4 + at, 60 + at)), (Reply(20, 56, 1.0),), Drawn("anchor", str(at))) for at in (0, 1)
    ]
    return Feed(buffer, base.chat, anchors, CONFIG, augmented), buffer


def steps(feed: Feed, buffer: ReplayBuffer, made: list[Sample], count: int) -> list[Plan]:
    plans = []
    for step in range(count):
        buffer.insert(made[step * CONFIG.fresh_batch : (step + 1) * CONFIG.fresh_batch])
        plan = feed.gather(1, step + 1, float(step))
        assert plan is not None
        feed.trained(plan, {}, 1, ())
        plans.append(plan)
    return plans


def tokens(plan: Plan, *components: str) -> int:
    return sum(len(d.ids) for d in plan.documents if not components or d.drawn.component in components)


def test_copies_keep_to_their_share_of_each_step(base: Base, redis_client: redis.Redis) -> None:
    """No step holds more than a fifth of copies, all of them of rehearsed samples; other documents stay the same."""
    feed, buffer = feed_of(base, redis_client, MANY)
    plans = steps(feed, buffer, [sample(number) for number in range(100)], 20)
    shares = [tokens(plan, "copy") / tokens(plan) for plan in plans]
    assert max(shares) <= 0.2
    assert min(shares[3:]) > 0.1
    for plan in plans:
        rehearsed = {d.drawn.key for d in plan.documents if d.drawn.component == "rehearsal"}
        copied = [d for d in plan.documents if d.drawn.component == "copy"]
        assert {d.drawn.key for d in copied} <= rehearsed
        assert all(d.drawn.key in plan.handles and d.drawn.customer for d in copied)
        assert len({d.drawn.seed for d in copied}) == len(copied)
    plain_feed, plain_buffer = feed_of(base, redis_client, AugmentConfig())
    plain = steps(plain_feed, plain_buffer, [sample(number) for number in range(100)], 20)
    kept = [[d for d in plan.documents if d.drawn.component != "copy"] for plan in plans]
    # from the fiftieth customer on a customer's share is bounded, and copies count in it
    assert kept[:9] == [list(plan.documents) for plan in plain[:9]]


def test_copies_change_the_question_and_never_the_reply(base: Base, redis_client: redis.Redis) -> None:
    """A copy's target tokens are its parent's."""
    feed, buffer = feed_of(base, redis_client, MANY)
    for plan in steps(feed, buffer, [sample(number) for number in range(50)], 10):
        said = {d.drawn.key: _targets(d) for d in plan.documents if d.drawn.component == "rehearsal"}
        whole = {d.drawn.key: d.ids for d in plan.documents if d.drawn.component == "rehearsal"}
        for copy in (d for d in plan.documents if d.drawn.component == "copy"):
            assert _targets(copy) == said[copy.drawn.key]
            assert copy.ids != whole[copy.drawn.key]


def test_copies_stand_in_the_draw_log_and_go_with_their_parent(base: Base, redis_client: redis.Redis) -> None:
    """A logged step is drawn again copy for copy; once the parent is erased, its copies are missing with it."""
    feed, buffer = feed_of(base, redis_client, MANY)
    plan = steps(feed, buffer, [sample(number) for number in range(50)], 10)[-1]
    entry = msgspec.json.decode(msgspec.json.encode(log_entry(1, plan, feed)))
    again = feed.logged(entry)
    assert again.documents == plan.documents
    assert not again.missing
    parent = next(d.drawn.key for d in plan.documents if d.drawn.component == "copy")
    family = [d for d in plan.documents if d.drawn.key == parent]
    assert len(family) > 1
    assert buffer.retire([bytes.fromhex(parent)], "erased") == 1
    left = feed.logged(entry)
    assert left.missing == len(family)
    assert all(d.drawn.key != parent for d in left.documents)


def test_copies_are_off_unless_asked_for_and_spare_ratings(base: Base, redis_client: redis.Redis) -> None:
    """Without the setting, with a share of 0, and of rated replies there is none."""
    for how in (AugmentConfig(), replace(MANY, token_share=0.0)):
        feed, buffer = feed_of(base, redis_client, how)
        plans = steps(feed, buffer, [sample(number) for number in range(25)], 5)
        assert not any(tokens(plan, "copy") for plan in plans)
    feed, buffer = feed_of(base, redis_client, MANY)
    rated = [
        sample(number, turns=tuple(msgspec.structs.replace(turn, label="good") for turn in sample(number).turns))
        for number in range(25)
    ]
    assert not any(tokens(plan, "copy") for plan in steps(feed, buffer, rated, 5))


def test_copies_said_by_a_model_are_made_again_from_the_log(base: Base, redis_client: redis.Redis) -> None:
    """With `generated` the question is the model's, under its parent's key, and a logged step has it again."""
    feed, buffer = feed_of(base, redis_client, replace(MANY, generated=1.0))
    feed.copies.say = lambda text, _seed: text.replace("can you help me please", "I would be glad of some help with it")
    plan = steps(feed, buffer, [sample(number) for number in range(30)], 6)[-1]
    copied = [d for d in plan.documents if d.drawn.component == "copy"]
    assert copied
    assert all("glad of some help" in base.chat.decode(d.ids) for d in copied)
    again = feed.logged(msgspec.json.decode(msgspec.json.encode(log_entry(1, plan, feed))))
    assert again.documents == plan.documents


def test_copies_are_translated_where_that_is_configured(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two models named, they say the question otherwise and the base is not asked."""
    asked: list[tuple[str, str]] = []

    def models(there: str, back: str) -> Say:
        asked.append((there, back))
        return lambda text, _seed: text.replace("can you help me please", "is there help for this")

    monkeypatch.setattr("learner.copies.BackTranslation", models)
    copies = Copies(base.chat, CONFIG, replace(MANY, generated=1.0, translation=("en-de", "de-en")))
    copies.say = lambda _text, _seed: pytest.fail("the base was asked")
    parent = Document(tuple(range(4, 60)), (Reply(20, 56, 1.0),), Drawn("rehearsal", "ab", customer="k"))
    found = copies.of({"ab": sample(1)}, [parent] * 9, run=1, step=1)
    assert asked == [("en-de", "de-en")]
    assert found
    assert all("is there help for this" in base.chat.decode(document.ids) for document in found)


def test_copies_paraphrases_hang_on_text_and_seed_alone(base: Base) -> None:
    """The base says the same again for the same seed."""
    say = Paraphrases(base)
    assert say(TEXTS[0], 5) == say(TEXTS[0], 5)
    assert len({say(TEXTS[0], seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_copies_are_never_of_heldout_samples(base: Base, split: str) -> None:
    """What is held out has no copies, whoever asks."""
    parent = Document(tuple(range(4, 60)), (Reply(20, 56, 1.0),), Drawn("rehearsal", "ab", customer="k"))
    copies = Copies(base.chat, CONFIG, MANY)
    assert copies.of({"ab": sample(1)}, [parent] * 9, run=1, step=1)
    assert not copies.of({"ab": sample(1, split=split)}, [parent] * 9, run=1, step=1)


def _targets(document: Document) -> list[tuple[int, ...]]:
    return [document.ids[reply.start : reply.stop] for reply in document.replies]
