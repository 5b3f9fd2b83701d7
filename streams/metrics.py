"""The stream worker's metrics: counted by its stages, named as dashboards and alert rules expect them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streams.scrub.audit import upper_bound
from streams.topics import CHATS_CLEAN, CHATS_RAW, EXAMPLES

STAGES = ("scrub", "assemble", "buffer", "review")
"""Of the worker, as its lanes are called."""

OUTCOMES = ("accepted", "rejected", "dead_lettered", "removed")

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)


class StreamMetrics:
    """Counters and gauges of one worker process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "driftline_events_total", "Chat events leaving a stage", ["stage", "outcome"], registry=registry
        )
        self._rejections = Counter(
            "driftline_rejections_total", "Chat events that teach nothing", ["stage", "reason"], registry=registry
        )
        self._duration = Histogram(
            "driftline_stage_duration_seconds", "Wall time of one event in one stage", ["stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._lag = Gauge(
            "driftline_consumer_lag_messages", "High watermark minus committed offset", ["topic", "partition"],
            registry=registry,
        )  # fmt: skip
        self._paused = Gauge(
            "driftline_replay_buffer_writes_paused", "1 while consumption waits for Redis", registry=registry
        )
        self._open = Gauge(
            "driftline_open_conversations", "Conversations that wait in the assembler", registry=registry
        )
        self._rebalances = Counter("driftline_rebalances_total", "Assignments of partitions", registry=registry)
        self._redactions = Counter("driftline_pii_redactions_total", "Masked spans", ["entity"], registry=registry)
        self._dropped = Counter(
            "driftline_scrub_dropped_fields_total", "Unknown fields of chat events, which go no further",
            registry=registry,
        )  # fmt: skip
        self._unacknowledged = Gauge(
            "driftline_unacknowledged_events", "Events read and not yet acknowledged", ["stage"], registry=registry
        )
        self._held = Gauge(
            "driftline_scrub_held_turns", "Turns that wait for the next one, which may be the rest of a value",
            registry=registry,
        )  # fmt: skip
        self._unaccounted = Gauge(
            "driftline_unaccounted_events", "Acknowledged events without a recorded outcome", ["topic"],
            registry=registry,
        )  # fmt: skip
        self._unread = Counter(
            "driftline_offsets_out_of_range_total", "Records that the broker deleted before they were read", ["topic"],
            registry=registry,
        )  # fmt: skip
        self._audits = Counter(
            "driftline_pii_audited_turns_total", "Masked turns searched again", ["result"], registry=registry
        )
        self._leaks = Counter(
            "driftline_pii_audit_finds_total", "Values that the audit found in masked turns", ["entity"],
            registry=registry,
        )  # fmt: skip
        self._bound = Gauge(
            "driftline_pii_leak_rate_bound_ratio", "Leaking turns that the audit still allows, 95 % confidence",
            registry=registry,
        )  # fmt: skip
        self._canaries = Counter(
            "driftline_pii_canaries_total", "Planted values that were masked or survived", ["result"],
            registry=registry,
        )  # fmt: skip
        self._late = Counter(
            "driftline_pii_late_finds_total", "Turns of ended conversations in which a value was found late",
            registry=registry,
        )  # fmt: skip
        self._audit_counts = [0, 0]
        self._bound.set(1)
        for result in ("clean", "leaking", "failed"):
            self._audits.labels(result)
        for result in ("masked", "survived"):
            self._canaries.labels(result)
        self._waiting: set[str] = set()
        self._outcomes = {
            (stage, outcome): self._events.labels(stage, outcome) for stage in STAGES for outcome in OUTCOMES
        }
        self._durations = {stage: self._duration.labels(stage) for stage in STAGES}
        for topic in (CHATS_RAW, CHATS_CLEAN, EXAMPLES):
            self._unaccounted.labels(topic)
            self._unread.labels(topic)

    def outcome(self, stage: str, outcome: str, reason: str = "", count: int = 1) -> None:
        """Events that left a stage; a reason where they were rejected or dead-lettered."""
        self._outcomes[stage, outcome].inc(count)
        if reason and outcome != "accepted":
            self._rejections.labels(stage, reason).inc(count)

    def took(self, stage: str, seconds: float, events: int) -> None:
        """A batch's wall time, booked as so many events of equal time (one observation a batch)."""
        self._durations[stage].observe(seconds / max(events, 1))

    def redacted(self, entity: str, count: int) -> None:
        """Masked spans of one label."""
        self._redactions.labels(entity).inc(count)

    def dropped(self, fields: int) -> None:
        """Fields of an event that no event has, and that go no further."""
        self._dropped.inc(fields)

    def audited(self, turns: int, leaking: int, failed: int, labels: Collection[str]) -> None:
        """Masked turns that were searched again, how many of them leak, and what was found."""
        self._audits.labels("clean").inc(turns - leaking)
        self._audits.labels("leaking").inc(leaking)
        self._audits.labels("failed").inc(failed)
        for label in labels:
            self._leaks.labels(label).inc()
        self._audit_counts = [self._audit_counts[0] + leaking, self._audit_counts[1] + turns]
        self._bound.set(upper_bound(*self._audit_counts))

    def found_late(self, turns: int) -> None:
        """Turns that passed the scrubber and in which the conversation pass found a value."""
        self._late.inc(turns)

    def planted(self, masked: int, survived: int) -> None:
        """Planted values that the scrubber masked, and that came through."""
        self._canaries.labels("masked").inc(masked)
        self._canaries.labels("survived").inc(survived)

    def lag(self, topic: str, partition: int, messages: int) -> None:
        """How far a partition's committed offset is behind its end."""
        self._lag.labels(topic, str(partition)).set(messages)

    def gone(self, topic: str, partition: int) -> None:
        """A partition is another worker's now."""
        with suppress(KeyError):  # it was never read here
            self._lag.remove(topic, str(partition))

    def unaccounted(self, topic: str, events: int) -> None:
        """Events of this worker's partitions that were acknowledged a while ago and of which nothing is recorded."""
        self._unaccounted.labels(topic).set(events)

    def unread(self, topic: str, records: int) -> None:
        """Records were deleted by the broker before they were read."""
        self._unread.labels(topic).inc(records)

    def paused(self, stage: str, *, waits: bool) -> None:
        """Whether a stage waits for Redis."""
        (self._waiting.add if waits else self._waiting.discard)(stage)
        self._paused.set(1 if self._waiting else 0)

    def assigned(self) -> None:
        """Partitions were assigned."""
        self._rebalances.inc()

    def held(self, stage: str, unacknowledged: int) -> None:
        """Events that a stage has not acknowledged."""
        self._unacknowledged.labels(stage).set(unacknowledged)

    def holding(self, turns: int) -> None:
        """Turns that scrub holds."""
        self._held.set(turns)

    def open(self, conversations: int) -> None:
        """Conversations in the assembler."""
        self._open.set(conversations)
