"""What an answer must not hold: personal data that the model made up or remembered. Feeds the `safety` guardrail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaException, Producer

from streams import rollout_events
from streams.rollout_events import Metric, Outcome, Source
from streams.scrub import find_structured
from streams.topics import OUTCOMES


class Safety:
    """Looks at whole answers, before placeholders are filled; a flag is an outcome of the conversation."""

    def __init__(self, producer: Producer, prefix: str, wall: Callable[[], float], count: Callable[[], None]) -> None:
        self._producer = producer
        self._topic = prefix + OUTCOMES
        self._wall = wall
        self._count = count

    def look(self, conversation: str, text: str) -> None:
        """Flag an answer with an e-mail address, phone, card or other number of a person in it."""
        if not find_structured(text):
            return
        self._count()
        if not conversation:
            return
        outcome = Outcome(
            conversation_id=conversation, metric=Metric.SAFETY, bad=True, event_ts=self._wall(), source=Source.NODE
        )
        with suppress(BufferError, KafkaException):  # the broker is away: one flag less, never an answer less
            self._producer.produce(self._topic, key=conversation, value=rollout_events.encode(outcome))
