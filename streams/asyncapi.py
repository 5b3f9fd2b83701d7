"""The AsyncAPI 3.0 document of the topics, generated from the table of topics and the types of their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streams.events import (
    KINDS,
    MAX_ID,
    MAX_TEXT,
    SCHEMA,
    Annotation,
    CleanEvent,
    Closed,
    Feedback,
    Message,
    Rejection,
    Relane,
    Sample,
)
from streams.review import Decision
from streams.rollout_events import Exposure, Outcome
from streams.topics import (
    CHATS_CLEAN,
    CHATS_RAW,
    CHATS_REJECTED,
    EXAMPLES,
    EXPOSURES,
    OUTCOMES,
    REVIEW_DECISIONS,
    TOPICS,
    Topic,
)

RECORDS: Mapping[str, Sequence[type]] = {
    CHATS_RAW: (Message, Feedback, Closed),
    CHATS_CLEAN: (CleanEvent,),
    CHATS_REJECTED: (Rejection,),
    EXAMPLES: (Sample, Annotation, Relane),
    EXPOSURES: (Exposure,),
    OUTCOMES: (Outcome,),
    REVIEW_DECISIONS: (Decision,),
}
"""Topic -> types of its records, where this folder defines them."""

_REF = "#/components/schemas/{name}"
_TYPES = {"Message": "message", "Feedback": "feedback", "Closed": "conversation_closed"}
_KAFKA = "0.5.0"
"""Version of AsyncAPI's Kafka bindings."""


def document(more: Mapping[str, Sequence[type]] | None = None, version: str = "1") -> dict[str, Any]:
    """The document as a JSON object. `more` adds types of topics whose records are defined by services."""
    records = {**RECORDS, **(more or {})}
    names = [topic.name for topic in TOPICS]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "driftline",
            "version": version,
            "description": "Topics of driftline. Generated from streams/topics.py and streams/events.py, do not edit.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic, records.get(topic.name, ())) for topic in TOPICS},
        "operations": {
            "sendChatEvents": {
                "action": "receive",
                "summary": "What senders put on chats.raw; POST /v1/events does it over HTTP.",
                "channel": {"$ref": f"#/channels/{_escaped(CHATS_RAW)}"},
            }
        },
        "components": {
            "messages": {cls.__name__: _message(cls) for name in names for cls in records.get(name, ())},
            "messageTraits": {"cloudEvents": _cloud_events()},
            "schemas": _schemas([cls for name in names for cls in records.get(name, ())]),
        },
    }


def _channel(topic: Topic, types: Sequence[type]) -> dict[str, Any]:
    retention_ms = topic.retention_s * 1000 if topic.retention_s >= 0 else -1
    return {
        "address": topic.name,
        "description": f"Key: {topic.key}.",
        "messages": {cls.__name__: {"$ref": f"#/components/messages/{cls.__name__}"} for cls in types},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                    "retention.ms": retention_ms,
                },
                "bindingVersion": _KAFKA,
            }
        },
    }


def _message(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": cls.__name__,
        "summary": (cls.__doc__ or "").strip().split("\n")[0],
        "payload": {"$ref": _REF.format(name=cls.__name__)},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": _KAFKA}},
    }
    if cls.__name__ in _TYPES:
        found["traits"] = [{"$ref": "#/components/messageTraits/cloudEvents"}]
    return found


def _cloud_events() -> dict[str, Any]:
    """Binary-mode attributes that may stand in headers instead of the body."""
    properties = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "event_id, where the body has none"},
        "ce_time": {"type": "string", "format": "date-time", "description": "ts, where the body has none"},
        "tenant": {"type": "string", "description": "Set by the gateway from the sender's key, never by senders."},
        "traceparent": {"type": "string", "description": "W3C trace context, carried through."},
    }
    return {"headers": {"type": "object", "properties": properties}}


def _schemas(types: Sequence[type]) -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    for name, kind in _TYPES.items():
        schema = schemas[name]
        fields = schema["properties"]
        # What the types cannot say: the discriminator, and the limits that streams/events.py checks.
        fields["type"] = {"const": kind}
        fields["schema"] = {"const": SCHEMA}
        schema["required"] = ["type", *schema["required"]]
        for field in ("event_id", "conversation_id"):
            fields[field].update(minLength=1, maxLength=MAX_ID)
        fields["ts"]["format"] = "date-time"
        fields["seq"].update(minimum=0, maximum=2**31 - 1)
    schemas["Message"]["properties"]["text"].update(minLength=1, maxLength=MAX_TEXT)
    schemas["Feedback"]["properties"]["kind"] = {"enum": [*sorted(KINDS), None]}
    schemas["Feedback"]["anyOf"] = [{"required": [field]} for field in ("rating", "corrected_text", "kind")]
    return schemas


def _escaped(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
