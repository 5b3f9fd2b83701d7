"""Where a person's decision about a reply is made and sent, from the command line or from the console."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from learner.select import ReviewItem, ReviewQueue
from services.local.redis_server import client
from services.topic_feed import make_producer
from streams import review
from streams.topics import REVIEW_DECISIONS

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from services.settings import Settings

TIMEOUT_S = 10.0
"""Longest wait for the broker's acknowledgment of a decision, seconds."""


class Undelivered(Exception):
    """The broker did not take a decision; the item stays in the queue."""


class Desk:
    """The review queue, and the way of a decision: to the broker first, then the item leaves the queue."""

    def __init__(
        self, queue: ReviewQueue, producer: Producer, topic: str, clock: Callable[[], float], timeout_s: float
    ) -> None:
        self.queue = queue
        self._producer = producer
        self._topic = topic
        self._clock = clock
        self._timeout_s = timeout_s

    def decide(
        self,
        item: ReviewItem,
        action: review.Action,
        reviewer: str,
        *,
        stars: int | None = None,
        text: str | None = None,
    ) -> review.Decision:
        """Make a decision and send it. Raises `Undelivered`, or ValueError where it lacks what its action needs."""
        made = decision(item, action, reviewer, self._clock(), stars=stars, text=text)
        delivered: list[bool] = []

        def report(error: Any, _: Any) -> None:
            delivered.append(error is None)

        self._producer.produce(self._topic, key=made.conversation, value=review.encode(made), on_delivery=report)
        self._producer.flush(self._timeout_s)
        if delivered != [True]:
            raise Undelivered("the broker did not take the decision; the item stays in the queue")
        self.queue.done(item.sample_id)
        return made


def queue_of(settings: Settings) -> ReviewQueue:
    """The queue in Redis, by the settings."""
    return ReviewQueue(client(settings.redis.url, settings.redis.timeout_s), settings.select)


def desk(settings: Settings, process: str, clock: Callable[[], float], timeout_s: float = TIMEOUT_S) -> Desk:
    """The desk of a process, by the settings."""
    # A decision that nobody waits for any more must not arrive later: the item is decided again by then.
    soon = {"message.timeout.ms": int(timeout_s * 1000)}
    producer = make_producer(settings.kafka.asked_once(process, **soon))
    return Desk(queue_of(settings), producer, settings.kafka.prefix + REVIEW_DECISIONS, clock, timeout_s)


def decision(
    item: ReviewItem,
    action: review.Action,
    reviewer: str,
    at: float,
    *,
    stars: int | None = None,
    text: str | None = None,
) -> review.Decision:
    """The decision about an item at time `at`, seconds since the epoch. Raises ValueError if it is not whole."""
    editing = action == "edit"
    return review.Decision(
        decision_id=f"review-{uuid.uuid4()}", sample_id=item.sample_id, conversation=item.conversation,
        # an edit is of the last reply; other decisions are of all replies of the sample
        targets=item.targets[-1:] if editing else item.targets, action=action, at=at,
        rating=None if stars is None else float(stars), text=text if editing else None,
        draft=item.reply or None if editing else None, reviewer=reviewer, lane=item.lane, home=item.home,
    )  # fmt: skip
