"""Topics at start: made where they are missing, checked where they exist, from the one table in streams/topics.py.

The rights of streams/acls.py are put on the cluster here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package names them without __all__
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from streams.acls import Grant
from streams.config import StreamConfig
from streams.topics import TOPICS, Topic

_WAIT_S = 30.0


class TopicsDiffer(RuntimeError):
    """Topics exist with settings that would lose or scatter records; the message names each and the remedy."""


def touch_topics(config: StreamConfig) -> None:
    """Make the topics of the embedded broker appear: there they come into being when somebody asks for them."""
    producer = Producer({**config.client("admin"), "allow.auto.create.topics": True})
    for topic in TOPICS:
        producer.list_topics(config.topic(topic.name), timeout=_WAIT_S)


def ensure_topics(config: StreamConfig, *, replication: int = -1, topics: Sequence[Topic] = TOPICS) -> list[str]:
    """Create missing topics and check those that exist; returns warnings. Raises `TopicsDiffer`.

    `replication` -1 takes the broker's default. More partitions than the table's are fine: a cluster may have grown.
    """
    admin = AdminClient(config.client("admin"))
    known = admin.list_topics(timeout=_WAIT_S).topics
    missing = [topic for topic in topics if config.topic(topic.name) not in known]
    if missing:
        made = admin.create_topics([_new(config, topic, replication) for topic in missing], operation_timeout=_WAIT_S)
        for name, future in made.items():
            try:
                future.result(_WAIT_S)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise TopicsDiffer(f"{name} cannot be created: {error.args[0].name()}") from None
    present = [topic for topic in topics if topic not in missing]
    return _check(admin, config, present, known)


def allow(config: StreamConfig, rights: Sequence[Grant], user: str) -> None:
    """Give each process its rights; `user` is its name with `{process}` in it. Raises `KafkaException`."""
    bindings = [_binding(grant, user.format(process=grant.process)) for grant in rights]
    admin = AdminClient(config.client("admin"))
    for future in admin.create_acls(bindings, request_timeout=_WAIT_S).values():
        future.result(_WAIT_S)


def broker_epoch(config: StreamConfig, topics: Sequence[str]) -> str:
    """What names this broker's life on a real cluster: its id and those of the topics that are read."""
    admin = AdminClient(config.client("admin"))
    cluster = admin.describe_cluster(request_timeout=_WAIT_S).result(_WAIT_S).cluster_id
    described = admin.describe_topics(TopicCollection([config.topic(name) for name in topics]))
    ids = sorted(str(future.result(_WAIT_S).topic_id) for future in described.values())
    return f"{cluster}-{'-'.join(topic_id[:6] for topic_id in ids)}"


def _binding(grant: Grant, user: str) -> AclBinding:
    return AclBinding(
        ResourceType[grant.kind.upper()], grant.name, ResourcePatternType.LITERAL, f"User:{user}", "*",
        AclOperation[grant.operation], AclPermissionType.ALLOW,
    )  # fmt: skip


def _new(config: StreamConfig, topic: Topic, replication: int) -> NewTopic:
    settings = {"cleanup.policy": "compact"} if topic.compacted else {"retention.ms": str(_retention_ms(topic))}
    return NewTopic(
        config.topic(topic.name), num_partitions=topic.partitions, replication_factor=replication, config=settings
    )


def _retention_ms(topic: Topic) -> int:
    return -1 if topic.retention_s < 0 else topic.retention_s * 1000


def _check(admin: AdminClient, config: StreamConfig, topics: Sequence[Topic], known: Any) -> list[str]:
    wrong, warnings = [], []
    resources = {ConfigResource(ResourceType.TOPIC, config.topic(topic.name)): topic for topic in topics}
    for resource, future in (admin.describe_configs(list(resources)) if resources else {}).items():
        topic, found = resources[resource], future.result(_WAIT_S)
        partitions = len(known[config.topic(topic.name)].partitions)
        if partitions < topic.partitions:
            warnings.append(f"{resource.name} has {partitions} partitions; the table wants {topic.partitions}")
        policy = found["cleanup.policy"].value
        if topic.compacted != ("compact" in policy):
            wanted = "compact" if topic.compacted else "delete"
            wrong.append(f"{resource.name}: cleanup.policy = {policy}, wants {wanted}")
        held = int(found["retention.ms"].value)
        if not topic.compacted and 0 <= held < _retention_ms(topic):
            warnings.append(f"{resource.name} keeps {held} ms; the table wants {_retention_ms(topic)}")
    if wrong:
        raise TopicsDiffer("; ".join(wrong) + "; set them with kafka-configs, or use another prefix")
    return warnings
