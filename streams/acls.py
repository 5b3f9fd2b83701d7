"""Least rights on Kafka: what each process may do with which topic and group, derived from streams/topics.py.

A producer that is idempotent needs no right on the cluster (Kafka 2.8 and newer); READ and WRITE include DESCRIBE.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from streams.topics import CHATS_CLEAN, CHATS_RAW, TOPICS

CLEAN_GROUP = "driftline-clean"
"""The workers' consumer group."""

FEED_GROUP = "driftline-feed"
"""Named by readers of whole topics; nobody joins it or commits in it."""

REPLAY_GROUP = "replay-dead-letters"
"""Named by the command of that name, which joins no group either."""

Kind = Literal["topic", "group"]
Operation = Literal["READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"]

_FEEDS = ("learn", "node", "router", "rollout", "forget")

GROUPS: Mapping[str, Mapping[str, Operation]] = {
    "reconcile": {CLEAN_GROUP: "DESCRIBE"},
    "replay-dead-letters": {REPLAY_GROUP: "DESCRIBE"},
    **{process: {FEED_GROUP: "DESCRIBE"} for process in _FEEDS},
    "clean": {CLEAN_GROUP: "READ", FEED_GROUP: "DESCRIBE"},
}
"""Process -> group -> READ (joins and commits) or DESCRIBE (looks at its offsets)."""


@dataclass(frozen=True)
class Grant:
    """One process may do one thing with one topic or group."""

    process: str
    kind: Kind
    name: str
    """With the cluster's prefix."""
    operation: Operation


def processes() -> tuple[str, ...]:
    """Every command of driftline that reaches Kafka on its own, each a user of its own."""
    named = {name for topic in TOPICS for name in (*topic.writers, *topic.readers)}
    return tuple(sorted(named | set(GROUPS)))


def grants(prefix: str = "", group: str = CLEAN_GROUP) -> tuple[Grant, ...]:
    """All rights, by process; `group` is what the setting stream.group calls the workers' group."""
    found = {*_topics(prefix), *_groups(prefix, group)}
    return tuple(sorted(found, key=lambda grant: (grant.process, grant.kind, grant.name, grant.operation)))


def command_line(grant: Grant, user: str) -> str:
    """The arguments of Kafka's own tool kafka-acls that add this right for a user."""
    words = ["--add", "--allow-principal", f"User:{user}", "--operation", grant.operation]
    return shlex.join([*words, f"--{grant.kind}", grant.name])


def _topics(prefix: str) -> Iterator[Grant]:
    for topic in TOPICS:
        name = prefix + topic.name
        yield from (Grant(process, "topic", name, "WRITE") for process in topic.writers)
        yield from (Grant(process, "topic", name, "READ") for process in topic.readers)
        # The worker checks every topic's settings when it starts.
        yield Grant("clean", "topic", name, "DESCRIBE")
        yield Grant("clean", "topic", name, "DESCRIBE_CONFIGS")
    # How far the workers are behind is asked from the ends of what they read.
    yield from (Grant("reconcile", "topic", prefix + name, "DESCRIBE") for name in (CHATS_RAW, CHATS_CLEAN))


def _groups(prefix: str, group: str) -> Iterator[Grant]:
    for process, named in GROUPS.items():
        for name, operation in named.items():
            yield Grant(process, "group", prefix + (group if name == CLEAN_GROUP else name), operation)
