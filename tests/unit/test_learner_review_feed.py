"""The feed of the review queue: picks of the newest steps, and the quarantine lane as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import pytest
import redis
import torch

from learner.adapter import Tree, load_base
from learner.batch import Drawn, documents
from learner.config import TrainConfig
from learner.review_feed import ReviewFeed, Seen
from learner.select import ReviewQueue, SelectConfig
from learner.uncertainty import Unsure, uncertainty
from streams.events import Sample, Turn
from streams.replay import ReplayConfig, open_tables
from streams.replay.config import QUARANTINE, TrainTable
from streams.replay.tables import Tables
from tests.bench._course import SHIPPED
from tests.replay_fuzz import KEY, sample

CONFIG = SelectConfig(every_s=10.0, picks=2, measured=4, surprise=0.5, ceiling=1.0)


@pytest.fixture
def tables(redis_client: redis.Redis) -> Tables:
    """Empty tables."""
    config = ReplayConfig(train=TrainTable(samples_per_insert=0.0), require_aof=False)
    return open_tables(redis_client, config, KEY, "ep", configure=True)


def measured(seen: Sequence[Seen]) -> Mapping[str, Unsure]:
    """Later samples are less certain."""
    return {one.key: Unsure(entropy=float(one.key[1:]), margin=0.5) for one in seen}


def chats(table: Tables, count: int) -> dict[str, Sample]:
    now = float(table.client.time()[0])
    return {
        f"k{n}": sample(n, received_at=now, reply=f"the {n} answer to what was asked about item") for n in range(count)
    }


def test_review_feed_takes_the_uncertain_and_the_surprising(tables: Tables, redis_client: redis.Redis) -> None:
    """One round an interval puts the best of the newest samples into the queue, each sign its share."""
    queue = ReviewQueue(redis_client, CONFIG)
    feed = ReviewFeed(queue, tables.train, CONFIG, measured)
    fresh = chats(tables, 6)
    feed.observe({key: 3.0 if key == "k2" else 0.5 for key in fresh}, fresh)
    assert feed.turn(100.0) == 2
    assert feed.turn(105.0) == 0
    assert {(item.sample_id, item.reason) for item in queue.list(10)} == {
        (fresh["k2"].sample_id, "surprising"),
        (fresh["k5"].sample_id, "uncertain"),
    }
    assert feed.turn(111.0) == 0


def test_review_feed_lists_quarantine_as_it_is(tables: Tables, redis_client: redis.Redis) -> None:
    """What waits is listed with its reason, and is no longer once it was let out; decided items stay away."""
    queue = ReviewQueue(redis_client, CONFIG)
    feed = ReviewFeed(queue, tables.train, CONFIG, measured)
    held = [msgspec.structs.replace(one, lane=QUARANTINE) for one in chats(tables, 3).values()]
    held[0] = msgspec.structs.replace(held[0], tags=("contradicts", "held"))
    held[1] = msgspec.structs.replace(held[1], tags=("contradicts", "held", "source_flood"))
    tables.train.insert(held)
    assert feed.turn(0.0) == 3
    assert {item.sample_id: item.reason for item in queue.list(10)} == {
        held[0].sample_id: "contradicts", held[1].sample_id: "source_flood", held[2].sample_id: "loss",
    }  # fmt: skip
    assert {item.lane for item in queue.list(10)} == {QUARANTINE}
    tables.relane(["e0"], "chat")
    queue.done(held[1].sample_id)
    feed.turn(20.0)
    assert [item.sample_id for item in queue.list(10)] == [held[2].sample_id]


def test_review_feed_measures_certainty() -> None:
    """A reply in the base's own words is surer than word salad, within the bounds of both scores."""
    base = load_base(SHIPPED)
    said = {
        "plain": "Thank you, I have found your order and it will arrive tomorrow.",
        "salad": "Zebra quantum lamp of seventeen yes violet harmonic refund onto.",
    }
    made = [
        document
        for key, text in said.items()
        for document in documents(
            base.chat,
            msgspec.structs.replace(
                sample(1, received_at=0.0),
                turns=(Turn(role="customer", text="Where is my order?"), Turn(role="agent", text=text, is_target=True)),
            ),
            Drawn("fresh", key),
            TrainConfig(),
        )
    ]
    found = uncertainty(Tree(base), made)
    assert found["plain"].entropy < found["salad"].entropy
    for one in found.values():
        assert 0 < one.entropy < math.log(base.shape.vocab)
        assert 0 < one.margin < 1
    assert not torch.is_grad_enabled() or found
