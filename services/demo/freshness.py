"""Event to served: how long a sample took from its last event to the first answer by a version that learned from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from learner.registry import BASE
from services.lineage import Learned, ancestry, lineage
from services.publishers import registry_of
from services.topic_feed import TopicFeed
from streams.events import Sample, decode_example
from streams.replay import open_tables
from streams.replay.codec import sample_digest
from streams.replay.lineage import first_steps
from streams.scrub.identity import ledger_key
from streams.topics import EXAMPLES

if TYPE_CHECKING:
    from services.demo.run import Run


def to_first_answer(run: Run) -> list[float]:
    """Seconds for each sample that was trained on, sorted; infinite where no version that holds it ever answered."""
    settings = run.settings
    key = ledger_key(settings.keys.keys())
    tables = open_tables(run.stack.redis(), settings.replay, key, settings.kafka.epoch)
    answered = first_answers(run)
    trained = first_steps(tables.train)
    waits = []
    for sample in read_samples(run):
        digest = sample_digest(sample, key)
        if digest not in trained:
            continue
        trajectory, step = trained[digest]
        times = [at for learned, at in answered if learned.holds(trajectory, step) and at >= sample.completed_at]
        waits.append(min(times) - sample.completed_at if times else math.inf)
    return sorted(waits)


def first_answers(run: Run) -> list[tuple[Learned, float]]:
    """For each version that answered anybody: what it learned from, and when it first answered."""
    settings = run.settings
    registry = registry_of(settings.registry, lambda: 0.0)
    first: dict[str, float] = {}
    for answer in run.answers:
        if answer.version and answer.version != BASE:
            first[answer.version] = min(first.get(answer.version, math.inf), answer.at)
    return [(lineage(ancestry(registry, version)), at) for version, at in first.items()]


def read_samples(run: Run) -> list[Sample]:
    """Every training sample that was put on `examples`."""
    feed = TopicFeed(run.settings.kafka.asked_once("freshness"), (EXAMPLES,), lambda: run.screen.seconds)
    found: dict[str, Sample] = {}
    while not feed.caught_up:
        for record in feed.poll(1.0):
            example = decode_example(record.value) if record.value else None
            if isinstance(example, Sample) and example.split == "train":
                found[example.sample_id] = example
    feed.close()
    return list(found.values())


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of sorted values lies; infinite without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.inf
