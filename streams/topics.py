"""The one table of Kafka topics: key, partitions, retention, compaction, and which process writes and reads each."""

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
    """One topic: `retention_s` in seconds (-1 for ever); `compacted` keeps the last record of each key.

    `writers` and `readers` are commands of driftline; streams/acls.py makes each one's rights of them.
    """

    name: str
    key: str
    partitions: int
    retention_s: int
    compacted: bool = False
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


_AGAIN = "replay-dead-letters"

TOPICS: tuple[Topic, ...] = (
    Topic(
        CHATS_RAW, "conversation_id", 8, 48 * HOUR_S,
        writers=("gateway", "ingest", "router", _AGAIN), readers=("clean", _AGAIN),
    ),
    Topic(CHATS_CLEAN, "conversation pseudonym", 8, 7 * DAY_S, writers=("clean", _AGAIN), readers=("clean", _AGAIN)),
    Topic(CHATS_REJECTED, "conversation pseudonym", 8, 7 * DAY_S, writers=("clean",)),
    Topic(CHATS_DEAD_LETTER, "keyed digest of the key", 8, 14 * DAY_S, writers=("clean",), readers=(_AGAIN,)),
    Topic(EXAMPLES, "conversation pseudonym", 8, 7 * DAY_S, writers=("clean", _AGAIN), readers=("clean", _AGAIN)),
    Topic(EXPOSURES, "conversation pseudonym", 4, 14 * DAY_S, writers=("router",), readers=("rollout",)),
    Topic(
        OUTCOMES, "conversation pseudonym", 4, 14 * DAY_S,
        writers=("router", "node", "clean"), readers=("rollout",),
    ),
    Topic(VERSIONS, "version", 1, FOREVER_S, compacted=True, writers=("learn",), readers=("rollout",)),
    Topic(
        ROLLOUT, "line", 1, FOREVER_S, compacted=True,
        writers=("rollout",), readers=("node", "router", "learn", "rollout"),
    ),
    Topic(NODES, "node", 1, FOREVER_S, compacted=True, writers=("node",), readers=("router", "rollout")),
    Topic(ADAPTER_EVENTS, "version", 1, 90 * DAY_S, writers=("learn", "node", "rollout")),
    Topic(
        REVIEW_DECISIONS, "conversation pseudonym", 4, 14 * DAY_S,
        writers=("review", "console", _AGAIN), readers=("clean", _AGAIN),
    ),
    Topic(ERASURES, "customer pseudonym", 4, 365 * DAY_S, writers=("forget",), readers=("clean", "learn", "rollout")),
    Topic(
        RECEIPTS, "erasure id", 4, 365 * DAY_S,
        writers=("clean", "learn", "rollout"), readers=("clean", "forget", "rollout"),
    ),
)  # fmt: skip

BY_NAME = {topic.name: topic for topic in TOPICS}
