"""Chat events as senders write them on chats.raw: their types, their checks, their canonical JSON.

`BadEvent` is the one error: its `reason` is a `DeadLetter` code, its message never holds chat text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec

SCHEMA = 1
"""Version of the canonical chat event; an event that names another one is a dead letter."""

MAX_TEXT = 16_384
"""Longest text of one turn, in characters; architecture.md's contract with senders."""

MAX_ID = 512
"""Longest id that a sender may use, in characters; ids become Redis keys and Kafka headers."""

ROLES = frozenset({"customer", "agent", "assistant", "system"})
KINDS = frozenset({"escalated", "reopened"})

Role = Literal["customer", "agent", "assistant", "system"]


class DeadLetter(StrEnum):
    """Why a record cannot be read as a chat event (scrub adds its own quarantine codes)."""

    NOT_JSON = "not_json"
    TRUNCATED_JSON = "truncated_json"
    ENCODING = "encoding"
    WRONG_TYPE = "wrong_type"
    BAD_VALUE = "bad_value"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_ROLE = "unknown_role"
    MISSING_FIELD = "missing_field"
    NULL_TEXT = "null_text"
    EMPTY_TEXT = "empty_text"
    HUGE_TEXT = "huge_text"
    BAD_KEY = "bad_key"


class BadEvent(ValueError):
    """A record that is no chat event: `reason`, the `field` at fault, and its id where one is readable."""

    def __init__(self, reason: DeadLetter, field: str = "", event_id: str | None = None) -> None:
        super().__init__(f"{reason}: {field}" if field else str(reason))
        self.reason = reason
        self.field = field
        self.event_id = event_id


class _Event(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    event_id: str
    conversation_id: str
    seq: int
    ts: str
    line: str | None = None

    def __repr__(self) -> str:
        """Ids only: a repr in a log or an assert message must not leak chat text."""
        return f"{type(self).__name__}(event_id={self.event_id!r}, seq={self.seq})"

    __str__ = __repr__


class Message(_Event, frozen=True, kw_only=True):
    """One turn of a conversation, as its sender wrote it."""

    role: Role
    text: str
    channel: str | None = None
    lang: str | None = None
    customer: Mapping[str, Any] | None = None
    agent_id: str | None = None
    adapter: str | None = None
    answer_id: str | None = None
    arm: str | None = None
    p: float | None = None


class Feedback(_Event, frozen=True, kw_only=True):
    """What somebody said of a reply: a rating, an agent's edit, or that it was escalated or reopened."""

    rating: float | None = None
    scale: tuple[float, float] | None = None
    corrected_text: str | None = None
    kind: str | None = None
    answer_id: str | None = None
    target_seq: int | None = None
    customer: Mapping[str, Any] | None = None


class Closed(_Event, frozen=True, kw_only=True):
    """The end of a conversation: how many turns it had and whether the problem was solved."""

    turns: int
    resolved: bool | None = None
    customer: Mapping[str, Any] | None = None


ChatEvent = Message | Feedback | Closed

FIELDS = frozenset({"type", "schema"}.union(*(kind.__struct_fields__ for kind in (Message, Feedback, Closed))))
"""Names of a chat event's fields; whatever else a sender writes is dropped when it is read."""

_STRINGS = ("channel", "lang", "agent_id", "adapter", "answer_id", "arm", "line")


def decode(key: bytes | None, value: bytes | None) -> ChatEvent:
    """Read one record of chats.raw. Raises `BadEvent` with the reason of its dead letter."""
    return from_object(parse(value), key)


def readable_id(value: bytes | None) -> str | None:
    """The event id of a record if one can be read, however broken the rest of it is."""
    try:
        body = parse(value)
    except BadEvent:
        return None
    found = body.get("event_id")
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID else None


def from_object(body: Mapping[str, Any], key: bytes | None) -> ChatEvent:
    """Check a decoded JSON object as a chat event. Raises `BadEvent`."""
    found = body.get("event_id")
    event_id = found if isinstance(found, str) and 0 < len(found) <= MAX_ID else None
    try:
        event = _checked(body)
    except BadEvent as bad:
        raise BadEvent(bad.reason, bad.field, event_id) from None
    if key is None or key != event.conversation_id.encode():
        raise BadEvent(DeadLetter.BAD_KEY, "conversation_id", event_id)
    return event


def to_object(event: ChatEvent) -> dict[str, Any]:
    """The canonical JSON object of a chat event, without empty fields."""
    names = {Message: "message", Feedback: "feedback", Closed: "conversation_closed"}
    fields = {k: v for k, v in msgspec.structs.asdict(event).items() if v is not None}
    return {"type": names[type(event)], **fields}


def encode(event: ChatEvent) -> bytes:
    """The canonical JSON bytes of a chat event."""
    return msgspec.json.encode(to_object(event))


def timestamp(ts: str) -> float:
    """Seconds since the epoch of an ISO-8601 time. Raises ValueError if it has no time zone."""
    parsed = datetime.fromisoformat(ts)
    if parsed.tzinfo is None:
        raise ValueError("no time zone")
    return parsed.timestamp()


def isoformat(seconds: float) -> str:
    """ISO-8601 UTC with milliseconds, as chat events carry it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(value: bytes | None) -> dict[str, Any]:
    """The JSON object of a record. Raises `BadEvent`."""
    if not value or not value.strip():
        raise BadEvent(DeadLetter.NOT_JSON)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise BadEvent(DeadLetter.ENCODING) from None
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        cut = "truncated" in str(error) and text.lstrip()[0] in '{["'
        raise BadEvent(DeadLetter.TRUNCATED_JSON if cut else DeadLetter.NOT_JSON) from None
    if not isinstance(body, dict):
        raise BadEvent(DeadLetter.WRONG_TYPE)
    return body


def _checked(body: Mapping[str, Any]) -> ChatEvent:
    if body.get("schema", SCHEMA) != SCHEMA:
        raise BadEvent(DeadLetter.UNKNOWN_SCHEMA, "schema")
    kind = _required(body, "type", str)
    if kind not in {"message", "feedback", "conversation_closed"}:
        raise BadEvent(DeadLetter.UNKNOWN_TYPE, "type")
    common: dict[str, Any] = {
        "event_id": _identifier(body, "event_id"),
        "conversation_id": _identifier(body, "conversation_id"),
        "seq": _count(body, "seq"),
        "ts": _time(body),
        "line": _optional(body, "line", str),
        "customer": _optional(body, "customer", dict),
    }
    for name in _STRINGS:
        _optional(body, name, str)
    if "text" in body:
        _text(body, "text")
    if kind == "message":
        return _message(body, common)
    return _feedback(body, common) if kind == "feedback" else _closed(body, common)


def _message(body: Mapping[str, Any], common: dict[str, Any]) -> Message:
    role = _required(body, "role", str)
    if role not in ROLES:
        raise BadEvent(DeadLetter.UNKNOWN_ROLE, "role")
    rest: dict[str, Any] = {name: body.get(name) for name in _STRINGS if name != "line"}
    return Message(role=role, text=_text(body, "text"), p=_number(body, "p"), **common, **rest)


def _feedback(body: Mapping[str, Any], common: dict[str, Any]) -> Feedback:
    kind = _optional(body, "kind", str)
    if kind is not None and kind not in KINDS:
        raise BadEvent(DeadLetter.BAD_VALUE, "kind")
    rating = _number(body, "rating")
    corrected = _text(body, "corrected_text") if body.get("corrected_text") is not None else None
    if rating is None and corrected is None and kind is None:
        raise BadEvent(DeadLetter.MISSING_FIELD, "rating")
    target = _count(body, "target_seq") if body.get("target_seq") is not None else None
    return Feedback(
        rating=rating, scale=_scale(body), corrected_text=corrected, kind=kind, target_seq=target,
        answer_id=body.get("answer_id"), **common,
    )  # fmt: skip


def _closed(body: Mapping[str, Any], common: dict[str, Any]) -> Closed:
    return Closed(turns=_count(body, "turns"), resolved=_optional(body, "resolved", bool), **common)


def _required(body: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in body:
        raise BadEvent(DeadLetter.MISSING_FIELD, name)
    value = body[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadEvent(DeadLetter.WRONG_TYPE, name)
    return value


def _optional(body: Mapping[str, Any], name: str, kind: type) -> Any:
    return None if body.get(name) is None else _required(body, name, kind)


def _identifier(body: Mapping[str, Any], name: str) -> str:
    value: str = _required(body, name, str)
    if not value.strip() or len(value) > MAX_ID:
        raise BadEvent(DeadLetter.BAD_VALUE, name)
    return value


def _count(body: Mapping[str, Any], name: str) -> int:
    value: int = _required(body, name, int)
    if not 0 <= value < 2**31:
        raise BadEvent(DeadLetter.BAD_VALUE, name)
    return value


def _number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEvent(DeadLetter.WRONG_TYPE, name)
    if not math.isfinite(value):
        raise BadEvent(DeadLetter.BAD_VALUE, name)
    return float(value)


def _text(body: Mapping[str, Any], name: str) -> str:
    if name in body and body[name] is None:
        raise BadEvent(DeadLetter.NULL_TEXT, name)
    value: str = _required(body, name, str)
    if len(value) > MAX_TEXT:
        raise BadEvent(DeadLetter.HUGE_TEXT, name)
    if not value.strip():
        raise BadEvent(DeadLetter.EMPTY_TEXT, name)
    return value


def _time(body: Mapping[str, Any]) -> str:
    value: str = _required(body, "ts", str)
    try:
        timestamp(value)
    except (ValueError, OverflowError):
        raise BadEvent(DeadLetter.BAD_VALUE, "ts") from None
    return value


def _scale(body: Mapping[str, Any]) -> tuple[float, float] | None:
    """`[min, max]`, or free text (then 0 is bad and 1 good, so the scale is 0 to 1)."""
    value = body.get("scale")
    if value is None or isinstance(value, str):
        return None
    pair = isinstance(value, list) and len(value) == 2  # a pair
    if not pair or any(isinstance(x, bool) or not isinstance(x, int | float) for x in value):
        raise BadEvent(DeadLetter.WRONG_TYPE, "scale")
    if not value[0] < value[1]:
        raise BadEvent(DeadLetter.BAD_VALUE, "scale")
    return float(value[0]), float(value[1])
