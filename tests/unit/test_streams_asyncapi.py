"""The AsyncAPI document says what the table of topics and the event types say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from streams.asyncapi import document
from streams.cloudevents import attributes, completed, unwrapped
from streams.events import KINDS, MAX_TEXT, ChatEvent, Closed, ExampleRecord, Feedback, Message, to_object
from streams.topics import CHATS_RAW, EXAMPLES, TOPICS


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_asyncapi_is_json_and_every_reference_leads_somewhere() -> None:
    """The document serialises, and each $ref points into it."""
    found = json.loads(json.dumps(document()))
    assert found["asyncapi"] == "3.0.0"
    for reference in references(found):
        node = found
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]


def test_asyncapi_channels_are_the_table_of_topics() -> None:
    """Every topic is a channel with its partitions, retention and compaction."""
    channels = document()["channels"]
    assert list(channels) == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        kafka = channels[topic.name]["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
        assert kafka["topicConfiguration"]["cleanup.policy"] == ["compact" if topic.compacted else "delete"]
        assert kafka["topicConfiguration"]["retention.ms"] == (
            topic.retention_s * 1000 if topic.retention_s > 0 else -1
        )
    assert set(channels[CHATS_RAW]["messages"]) == {"Message", "Feedback", "Closed"}


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("Message", Message(event_id="e", conversation_id="c", seq=0, ts="t", role="agent", text="x", p=0.5)),
        ("Feedback", Feedback(event_id="e", conversation_id="c", seq=0, ts="t", rating=1.0, scale=(0, 1))),
        ("Closed", Closed(event_id="e", conversation_id="c", seq=0, ts="t", turns=2, resolved=True)),
    ],
)
def test_asyncapi_schemas_know_every_field_that_is_written(name: str, event: Message | Feedback | Closed) -> None:
    """All fields of an encoded event are in its schema, all required ones are written, and the type is fixed."""
    schema = document()["components"]["schemas"][name]
    written = to_object(event)
    assert set(written) <= set(schema["properties"])
    assert set(schema["required"]) <= set(written)
    assert schema["properties"]["type"] == {"const": written["type"]}


def test_asyncapi_names_every_record_that_is_decoded() -> None:
    """Whatever a reader of chats.raw or examples may meet has a message of its own."""
    channels = document()["channels"]
    assert set(channels[CHATS_RAW]["messages"]) == {kind.__name__ for kind in get_args(ChatEvent)}
    assert set(channels[EXAMPLES]["messages"]) == {kind.__name__ for kind in get_args(ExampleRecord)}


def test_asyncapi_says_the_limits_that_are_checked() -> None:
    """Length of text and kinds of feedback are those of streams/events.py."""
    schemas = document()["components"]["schemas"]
    assert schemas["Message"]["properties"]["text"]["maxLength"] == MAX_TEXT
    assert set(schemas["Feedback"]["properties"]["kind"]["enum"]) == {*KINDS, None}


def test_cloudevents_in_structured_mode_are_unwrapped() -> None:
    """An envelope gives its data, with id and time where the data lacks them; anything else stays as it is."""
    data = {"type": "message", "seq": 0}
    envelope = {"specversion": "1.0", "type": "com.example.chat", "source": "/crm", "id": "x", "data": data}
    assert unwrapped(envelope) == {**data, "event_id": "x"}
    timed = {**envelope, "time": "2026-01-02T03:04:05Z", "data": {**data, "event_id": "own"}}
    assert unwrapped(timed) == {**data, "event_id": "own", "ts": "2026-01-02T03:04:05Z"}
    for other in (data, {**envelope, "data": "text"}, {**data, "data": {}}):
        assert unwrapped(other) == other


def test_cloudevents_fill_what_the_body_lacks() -> None:
    """Kafka's and HTTP's spelling are read in any casing; the body wins; other headers are nothing."""
    for headers in (
        {"ce_specversion": "1.0", "ce_id": "h", "ce_time": "2026-01-02T03:04:05Z"},
        {"CE-SpecVersion": "1.0", "Ce-Id": "h", "ce-time": "2026-01-02T03:04:05Z"},
    ):
        assert completed({"text": "x"}, headers) == {"text": "x", "event_id": "h", "ts": "2026-01-02T03:04:05Z"}
        assert completed({"event_id": "b"}, headers)["event_id"] == "b"
    assert attributes({"content-type": "x", "ce-other": "1"}) == {}
    assert completed({"a": 1}, {"host": "x"}) == {"a": 1}
