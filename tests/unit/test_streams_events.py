"""Chat events: what is read, what is refused, and that nothing else ever comes out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import events

GOOD: dict[str, Any] = {
    "event_id": "e-1", "type": "message", "conversation_id": "c-1", "seq": 0, "role": "customer",
    "text": "where is my parcel", "ts": "2026-01-02T03:04:05Z",
}  # fmt: skip
RATING: dict[str, Any] = {
    "event_id": "e-2", "type": "feedback", "conversation_id": "c-1", "seq": 1, "ts": GOOD["ts"], "rating": 1,
}  # fmt: skip
CLOSED: dict[str, Any] = {
    "event_id": "e-3", "type": "conversation_closed", "conversation_id": "c-1", "seq": 2, "ts": GOOD["ts"], "turns": 2,
}  # fmt: skip


def reason(body: Any, key: bytes | None = b"c-1") -> str:
    """The dead-letter code that a record gets."""
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(events.BadEvent) as caught:
        events.decode(key, value)
    return str(caught.value.reason)


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize("body", [GOOD, RATING, CLOSED], ids=["message", "feedback", "closed"])
def test_events_canonical_json_reads_back_as_it_was(body: dict[str, Any]) -> None:
    """Encoding a decoded event and decoding it again gives the same event."""
    event = events.decode(b"c-1", json.dumps(body).encode())
    assert events.decode(b"c-1", events.encode(event)) == event


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"text": None}, "null_text"),
        ({"text": "  \n"}, "empty_text"),
        ({"text": "x" * 16_385}, "huge_text"),
        ({"text": ["a"]}, "wrong_type"),
        ({"text": {"x": 1}}, "wrong_type"),
        ({"role": "SYSTEM"}, "unknown_role"),
        ({"role": 3}, "wrong_type"),
        ({"type": "presence"}, "unknown_type"),
        ({"schema": 7}, "unknown_schema"),
        ({"seq": True}, "wrong_type"),
        ({"seq": -1}, "bad_value"),
        ({"ts": "yesterday"}, "bad_value"),
        ({"ts": "2026-01-02T03:04:05"}, "bad_value"),
        ({"event_id": " "}, "bad_value"),
        ({"p": "0.5"}, "wrong_type"),
        ({"customer": "Ann"}, "wrong_type"),
    ],
)
def test_events_each_broken_field_has_its_reason(change: dict[str, Any], code: str) -> None:
    """A known field of the wrong kind or value names its own dead-letter code."""
    assert reason({**GOOD, **change}) == code


@pytest.mark.parametrize("name", ["event_id", "type", "conversation_id", "seq", "role", "text", "ts"])
def test_events_a_missing_field_is_a_dead_letter(name: str) -> None:
    """No field of a message can be left out."""
    assert reason(without(GOOD, name)) == "missing_field"


def test_events_known_fields_are_checked_on_every_type() -> None:
    """A close event with a null text is as broken as a message with one."""
    assert reason({**CLOSED, "text": None}) == "null_text"
    assert reason({**CLOSED, "resolved": "yes"}) == "wrong_type"
    assert reason(without(RATING, "rating")) == "missing_field"
    assert reason({**RATING, "scale": [5, 1]}) == "bad_value"


def test_events_bytes_that_are_no_object_are_named() -> None:
    """Cut JSON, no JSON, bad UTF-8, other JSON and nothing at all are told apart."""
    assert reason(json.dumps(GOOD).encode()[:40]) == "truncated_json"
    assert reason(b"<xml/>") == "not_json"
    assert reason(b"") == "not_json"
    assert reason(b"\xff\xfe{}") == "encoding"
    assert reason(b"[1]") == "wrong_type"
    assert reason(b"[" * 100_000) in {"not_json", "truncated_json"}


def test_events_the_key_must_be_the_conversation() -> None:
    """A record without key, or with another conversation's, is a dead letter."""
    assert reason(GOOD, key=None) == "bad_key"
    assert reason(GOOD, key=b"c-2") == "bad_key"


def test_events_a_broken_event_keeps_its_readable_id() -> None:
    """Reconciliation finds a dead letter by its event id wherever the JSON can be read."""
    assert events.readable_id(json.dumps({**GOOD, "text": None}).encode()) == "e-1"
    assert events.readable_id(b'{"event_id": "e-1"') is None


def test_events_repr_holds_no_text() -> None:
    """A log line or an assertion that prints an event leaks nothing."""
    event = events.decode(b"c-1", json.dumps({**GOOD, "text": "card 4111 1111"}).encode())
    assert "4111" not in repr(event)
    assert "4111" not in str(event)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_events_any_json_is_an_event_or_a_reason(value: Any) -> None:
    """Whatever JSON arrives, the result is an event or a BadEvent, never another exception."""
    for body in (value, {**GOOD, "text": value}, {**GOOD, "customer": value, "seq": value}):
        with contextlib.suppress(events.BadEvent):
            assert events.decode(b"c-1", json.dumps(body).encode()).event_id == "e-1"


@given(st.binary(max_size=200))
def test_events_any_bytes_are_an_event_or_a_reason(value: bytes) -> None:
    """Whatever bytes arrive, the result is an event or a BadEvent."""
    with pytest.raises(events.BadEvent):
        events.decode(b"c-1", value)
