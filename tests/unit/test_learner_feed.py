"""What a step may hold of one customer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import redis

from learner.adapter import load_base
from learner.batch import Document, Drawn, Reply
from learner.config import TrainConfig
from learner.feed import ACTIVE_CUSTOMERS, SHARE_STEPS, Feed
from streams.events import Sample, Turn
from streams.replay import TableConfig, open_table
from tests.bases import TEXTS, tiny_base

STEPS = SHARE_STEPS + 50


def _sample(number: int, customer: str) -> Sample:
    turns = (
        Turn(role="customer", text=f"{TEXTS[number % 5]} {number}"),
        Turn(role="agent", text=f"{TEXTS[number % 6][::-1]} {number}", is_target=True),
    )
    return Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=customer, lane="chat", split="train",
        turns=turns, received_at=2e9, completed_at=1e6 + number,
    )  # fmt: skip


def test_feed_bounds_the_share_of_a_customer(redis_client: redis.Redis, tmp_path: Path) -> None:
    """Once 50 are active, who sends 30 % of the chats has 2 % of the tokens of 100 steps and a document at most."""
    base, config = load_base(tiny_base(tmp_path)), TrainConfig(fresh_batch=4, document_tokens=96, fresh_wait_s=0.0)
    buffer = open_table(redis_client, "train", TableConfig(), b"k" * 16, configure=True)
    anchors = [Document(tuple(range(4, 60)), (Reply(20, 56, 1.0),), Drawn("anchor", "0"))]
    feed = Feed(buffer, base.chat, anchors, config)
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
