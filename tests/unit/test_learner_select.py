"""Selection: uncertain and surprising samples, no copies, spread over topics; and the queue in Redis."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis

from learner.select import ITEMS, ReviewQueue, Scored, SelectConfig, item, select
from streams import near_copies
from streams.events import Sample, Turn

CONFIG = SelectConfig(size=3)


def _scored(count: int, seed: int = 1) -> list[Scored]:
    rng = random.Random(seed)
    return [
        Scored(f"s{at}", rng.random() * 3, rng.random() * 2, rng.random(), topic=f"t{at % 4}") for at in range(count)
    ]


def test_select_takes_both_signs_and_no_garbage() -> None:
    """Surprise has its share, uncertainty the rest; losses above the ceiling are left out."""
    scored = [*_scored(100), Scored("garbage", 50.0, 9.0, 0.0)]
    picks = select(scored, 20, SelectConfig(surprise=0.3))
    assert len(picks) == 20
    assert sum(pick.reason == "surprising" for pick in picks) == 6
    assert "garbage" not in {pick.sample_id for pick in picks}
    assert [pick.score for pick in picks] == sorted((pick.score for pick in picks), reverse=True)


def test_select_spreads_over_topics() -> None:
    """A topic that is uncertain throughout does not take the whole queue."""
    crowd = [Scored(f"a{at}", 1.0, 1.9 + at / 1000, 0.0, topic="a") for at in range(50)]
    others = [Scored(f"b{at}", 1.0, 0.5, 0.5, topic=f"b{at}") for at in range(5)]
    picks = select([*crowd, *others], 12, SelectConfig(surprise=0.0, ceiling=1.0))
    assert {f"b{at}" for at in range(5)} <= {pick.sample_id for pick in picks}


def test_select_leaves_near_copies_out() -> None:
    """Of near copies one is asked about."""
    reply = "You can send it back within thirty days, and the label is in the box."
    signatures = [
        near_copies.signature("How do returns work?", text) for text in (reply, reply.upper(), f"Sure. {reply}")
    ]
    scored = [Scored(f"s{at}", 1.0, 1.0, 0.1, signature=held) for at, held in enumerate(signatures)]
    assert len(select(scored, 3, SelectConfig(ceiling=1.0))) == 1


def test_select_is_deterministic_and_takes_what_there_is() -> None:
    """The same scores give the same picks; fewer samples than asked for give all of them."""
    scored = _scored(10)
    assert select(scored, 5, CONFIG) == select(list(reversed(scored)), 5, CONFIG)
    assert len(select(scored, 50, SelectConfig(ceiling=1.0))) == 10
    assert select([], 5, CONFIG) == []


def _sample(name: str, customer: str = "k") -> Sample:
    turns = (
        Turn(role="customer", text="Where is it?"),
        Turn(role="agent", text="Here.", is_target=True, event_id=name),
    )
    return Sample(
        sample_id=f"{name}/sft/0", conversation="c", customer=customer, lane="quarantine", split="train", turns=turns,
        received_at=1.0, completed_at=1.0,
    )  # fmt: skip


def test_select_queue_keeps_the_best_and_forgets_the_decided(redis_client: redis.Redis) -> None:
    """The lowest scores fall out; a decided item does not come back."""
    queue = ReviewQueue(redis_client, CONFIG)
    assert queue.add(item(_sample(f"e{at}"), "uncertain", at / 10) for at in range(5)) == 5
    assert [held.sample_id for held in queue.list(10)] == ["e4/sft/0", "e3/sft/0", "e2/sft/0"]
    assert queue.get("e0/sft/0") is None
    held = queue.get("e4/sft/0")
    assert held is not None
    assert held.targets == ("e4",)
    assert queue.done("e4/sft/0")
    assert not queue.done("e4/sft/0")
    assert queue.add([item(_sample("e4"), "uncertain", 0.9)]) == 0
    assert len(queue.list(10)) == 2


def test_select_queue_forgets_a_customer(redis_client: redis.Redis) -> None:
    """Erasure takes out all items of a customer and nobody else's."""
    queue = ReviewQueue(redis_client, CONFIG)
    queue.add([item(_sample("a", "x"), "quarantine", 0.5), item(_sample("b", "y"), "quarantine", 0.6)])
    assert queue.forget("x") == 1
    assert [held.customer for held in queue.list(10)] == ["y"]
    assert queue.forget("nobody") == 0


@pytest.mark.parametrize(
    "look",
    [
        lambda queue: len(queue.list(10)) == 1,
        lambda queue: queue.get("a/sft/0") is None,
        lambda queue: queue.keep({"b/sft/0"}, "quarantine") == 0,
        lambda queue: queue.forget("nobody") == 0,
    ],
    ids=["list", "get", "keep", "forget"],
)
def test_select_queue_drops_an_item_that_cannot_be_read(
    redis_client: redis.Redis, look: Callable[[ReviewQueue], bool]
) -> None:
    """A torn record stops neither reviewers nor an erasure: it may hold anybody's text, so it goes."""
    queue = ReviewQueue(redis_client, CONFIG)
    queue.add([item(_sample("a"), "quarantine", 0.5), item(_sample("b"), "quarantine", 0.6)])
    redis_client.hset(ITEMS, "a/sft/0", b'{"sample_id": ')
    assert look(queue)
    assert redis_client.hkeys(ITEMS) == [b"b/sft/0"]
    assert queue.waiting() == 1


@pytest.mark.parametrize("bad", [{"size": 0}, {"surprise": 2.0}, {"ceiling": -1.0}])
def test_select_config_refuses_bad_values(bad: dict[str, float]) -> None:
    """Ranges are checked by name."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        SelectConfig(**bad)  # type: ignore[arg-type]
