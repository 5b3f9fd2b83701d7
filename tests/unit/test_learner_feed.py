"""What a step may hold: of one customer, of an erased one, of what is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import redis

from learner.adapter import Base, load_base
from learner.batch import Document, Drawn, Reply
from learner.config import TrainConfig
from learner.feed import ACTIVE_CUSTOMERS, SHARE_STEPS, Feed
from streams.events import Sample, Split, Turn
from streams.replay import ANCHOR, ReplayBuffer, ReplayConfig, ReplayError, TableConfig, open_table, open_tables
from tests.bases import TEXTS, tiny_base

STEPS = SHARE_STEPS + 50


def _sample(number: int, customer: str, split: Split = "train", lane: str = "chat") -> Sample:
    turns = (
        Turn(role="customer", text=f"{TEXTS[number % 5]} {number}"),
        Turn(role="agent", text=f"{TEXTS[number % 6][::-1]} {number}", is_target=True),
    )
    return Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=customer, lane=lane, split=split,
        turns=turns, received_at=2e9, completed_at=1e6 + number,
    )  # fmt: skip


def _feed(base: Base, buffer: ReplayBuffer, config: TrainConfig) -> Feed:
    return Feed(buffer, base.chat, [Document(tuple(range(4, 60)), (Reply(20, 56, 1.0),), Drawn("anchor", "0"))], config)


def test_feed_bounds_the_share_of_a_customer(redis_client: redis.Redis, tmp_path: Path) -> None:
    """Once 50 are active, who sends 30 % of the chats has 2 % of the tokens of 100 steps and a document at most."""
    base, config = load_base(tiny_base(tmp_path)), TrainConfig(fresh_batch=4, document_tokens=96, fresh_wait_s=0.0)
    buffer = open_table(redis_client, "train", TableConfig(), b"k" * 16, configure=True)
    feed = _feed(base, buffer, config)
    used: list[Counter[str]] = []
    for step in range(STEPS):
        numbers = range(step * 6, step * 6 + 6)
        buffer.insert([_sample(n, "attacker" if n % 10 < 3 else f"k{n % 70}") for n in numbers])
        plan = feed.gather(1, step + 1, float(step))
        assert plan is not None
        feed.trained(plan, {}, 1, ())
        used.append(Counter())
        for document in plan.documents:
            used[-1][document.drawn.customer] += len(document.ids)
    active = next(at for at in range(STEPS) if len(sum(used[:at], Counter[str]())) > ACTIVE_CUSTOMERS)
    for first in range(active, STEPS - SHARE_STEPS):
        tokens = sum(used[first : first + SHARE_STEPS], Counter[str]())
        known = tokens.total() - tokens[""]
        assert len(tokens) > ACTIVE_CUSTOMERS
        assert 0 < tokens["attacker"] <= config.customer_share * known + config.document_tokens
    feed.forget({"attacker", "k7"}, set())
    assert not {"attacker", "k7"} & {customer for step in feed.state()["used"] for customer in step}


def test_feed_never_draws_what_is_held_out(redis_client: redis.Redis, tmp_path: Path) -> None:
    """Fresh, rehearsed and curated documents are all of the training split; a held-out table is not even drawn from."""
    base = load_base(tiny_base(tmp_path))
    config = TrainConfig(fresh_batch=4, document_tokens=96, fresh_wait_s=0.0, curated_anchors=True)
    redis_client.flushall()
    tables = open_tables(redis_client, ReplayConfig(require_aof=False), b"k" * 16, "e", configure=True)
    splits: tuple[Split, ...] = ("train", "val", "test")
    tables.insert([_sample(n, f"k{n}", splits[n % 3], ANCHOR if n % 5 == 0 else "chat") for n in range(90)])
    tables.golden.insert([_sample(n, f"k{n}", "test", "golden") for n in range(90, 120)])
    feed, drawn = _feed(base, tables.of("a"), config), Counter[str]()
    for step in range(20):
        plan = feed.gather(1, step + 1, float(step))
        if plan is not None:
            feed.trained(plan, {}, 1, ())
            drawn.update(document.drawn.customer for document in plan.documents if document.drawn.customer)
    training = range(0, 90, 3)
    assert {f"k{n}" for n in training if n % 5} < set(drawn) <= {f"k{n}" for n in training}
    assert max(drawn.values()) > 1
    for held in (tables.val, tables.test, tables.golden):
        with pytest.raises(ReplayError, match="not drawn"):
            _feed(base, held, config).gather(1, 1, 0.0)
