"""What an answer must not hold: personal data that the model made up or remembered, and abuse. Feeds `safety`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaException, Producer

from streams import rollout_events
from streams.quality import QualityConfig, Reason, judge_turn
from streams.rollout_events import Metric, Outcome, Source
from streams.scrub import find_structured
from streams.topics import OUTCOMES


class Safety:
    """Looks at whole answers, before placeholders are filled; a flag is an outcome of the conversation."""

    def __init__(
        self,
        config: QualityConfig,
        producer: Producer,
        prefix: str,
        *,
        wall: Callable[[], float],
        count: Callable[[], None],
    ) -> None:
        self._config = config
        self._producer = producer
        self._topic = prefix + OUTCOMES
        self._wall = wall
        self._count = count

    def look(self, conversation: str, text: str) -> None:
        """Flag an answer that the filter calls toxic, or with an address or number of a person in it."""
        toxic = Reason.TOXIC in judge_turn(text, "assistant", self._config).reasons
        if not toxic and not find_structured(text):
            return
        self._count()
        if not conversation:
            return
        outcome = Outcome(
            conversation_id=conversation, metric=Metric.SAFETY, bad=True, event_ts=self._wall(), source=Source.NODE
        )
        with suppress(BufferError, KafkaException):  # the broker is away: one flag less, never an answer less
            self._producer.produce(self._topic, key=conversation, value=rollout_events.encode(outcome))
