"""The one table of Kafka topics: key, partitions, retention, compaction."""

from __future__ import annotations

from dataclasses import dataclass

HOUR_S = 3600
DAY_S = 24 * HOUR_S
FOREVER_S = -1

CHATS_RAW = "chats.raw"
CHATS_CLEAN = "chats.clean"
CHATS_REJECTED = "chats.rejected"
CHATS_DEAD_LETTER = "chats.dead_letter"
EXAMPLES = "examples"
EXPOSURES = "rollout.exposures"
OUTCOMES = "rollout.outcomes"
VERSIONS = "adapters.versions"
ROLLOUT = "adapters.rollout"
NODES = "adapters.nodes"
ADAPTER_EVENTS = "adapters.events"
REVIEW_DECISIONS = "review.decisions"
ERASURES = "privacy.erasures"
RECEIPTS = "privacy.receipts"


@dataclass(frozen=True)
class Topic:
    """One topic: `retention_s` in seconds (-1 for ever); `compacted` keeps the last record of each key."""

    name: str
    key: str
    partitions: int
    retention_s: int
    compacted: bool = False


TOPICS: tuple[Topic, ...] = (
    Topic(CHATS_RAW, "conversation_id", 8, 48 * HOUR_S),
    Topic(CHATS_CLEAN, "conversation pseudonym", 8, 7 * DAY_S),
    Topic(CHATS_REJECTED, "conversation pseudonym", 8, 7 * DAY_S),
    Topic(CHATS_DEAD_LETTER, "keyed digest of the key", 8, 14 * DAY_S),
    Topic(EXAMPLES, "conversation pseudonym", 8, 7 * DAY_S),
    Topic(EXPOSURES, "conversation pseudonym", 4, 14 * DAY_S),
    Topic(OUTCOMES, "conversation pseudonym", 4, 14 * DAY_S),
    Topic(VERSIONS, "version", 1, FOREVER_S, compacted=True),
    Topic(ROLLOUT, "line", 1, FOREVER_S, compacted=True),
    Topic(NODES, "node", 1, FOREVER_S, compacted=True),
    Topic(ADAPTER_EVENTS, "version", 1, 90 * DAY_S),
    Topic(REVIEW_DECISIONS, "conversation pseudonym", 4, 14 * DAY_S),
    Topic(ERASURES, "customer pseudonym", 4, 365 * DAY_S),
    Topic(RECEIPTS, "erasure id", 4, 365 * DAY_S),
)

BY_NAME = {topic.name: topic for topic in TOPICS}
