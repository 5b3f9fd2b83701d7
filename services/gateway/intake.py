"""An event from the outside, checked, as the record that goes to chats.raw."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from services.gateway.limits import Refusal
from services.gateway.sink import Outgoing
from streams.cloudevents import completed, unwrapped
from streams.events import BadEvent, from_object
from streams.raw_events import parse

NAMESPACE = uuid.UUID("0b1c7d52-8a6e-5c55-9a57-3d2f9a0e6d44")
"""Of ids made from an Idempotency-Key."""

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

MAX_RECORD = 900_000
"""Largest record, bytes: brokers take 1 MiB with key and headers by default."""

DROPPED = frozenset({"tenant", "arm", "p"})
"""Fields that a sender may not set: the tenant comes from its key, arm and odds of an answer from our router alone."""


def events_of(body: Any, most: int) -> list[Any]:
    """The events of a request: one object, a list, or `{"events": [...]}`. Raises `Refusal`."""
    found = body.get("events", [body]) if isinstance(body, dict) else body
    if not isinstance(found, list):
        raise Refusal(400, "wrong_type", "events")
    if not found:
        raise Refusal(400, "missing_field", "events")
    if len(found) > most:
        raise Refusal(413, "too_many", "events")
    return found


def record(
    body: Any, tenant: str, headers: Mapping[str, str], idempotency_key: str | None = None, place: int = 0
) -> tuple[str, Outgoing]:
    """Event id and record of one event. Raises `Refusal`, or `BadEvent` with the reason of its dead letter.

    Unknown fields stay; CloudEvents headers, or an Idempotency-Key, may give the id that the body lacks. A line of a
    traffic file (`key` with `value` or `value_raw`) is taken apart; only there can the key contradict the event.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "wrong_type", "event")
    recorded = "type" not in body and ("value" in body or "value_raw" in body)
    inner = _recorded(body) if recorded else unwrapped(body)
    whole = {name: value for name, value in completed(inner, headers).items() if name not in DROPPED}
    if "event_id" not in whole and idempotency_key:
        whole["event_id"] = str(uuid.uuid5(NAMESPACE, f"{tenant}\n{idempotency_key}\n{place}"))
    given = body.get("key") if recorded else whole.get("conversation_id")
    event = from_object(whole, given.encode(errors="surrogatepass") if isinstance(given, str) else None)
    value = msgspec.json.encode(whole)
    if len(value) > MAX_RECORD:
        raise Refusal(413, "too_large", "event")
    trace = headers.get("traceparent", "")
    trace = trace if _TRACE.fullmatch(trace) else ""
    return event.event_id, Outgoing(event.conversation_id.encode(), value, tenant, trace)


def _recorded(line: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a line of a traffic file. Raises `BadEvent`."""
    value, raw = line.get("value"), line.get("value_raw")
    if isinstance(value, dict):
        return value
    return parse(raw.encode(errors="surrogatepass") if isinstance(raw, str) else msgspec.json.encode(value))


def refused(error: BadEvent | Refusal, event_id: str | None) -> dict[str, Any]:
    """What the sender is told of an event that was not taken; no text of it."""
    reason = error.code if isinstance(error, Refusal) else str(error.reason)
    told = {"event_id": event_id, "status": "malformed", "reason": reason, "field": error.field or None}
    return {name: value for name, value in told.items() if value is not None}
