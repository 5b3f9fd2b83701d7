"""CloudEvents: in binary mode id and time stand in headers and the body is our JSON; structured, it is their `data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """CloudEvents attributes of Kafka (`ce_id`) or HTTP (`ce-id`) headers, in any casing; empty when there are none."""
    found = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(("ce_", "ce-")) and value:
            found[lower[3:]] = value
    return found if "specversion" in found or "id" in found else {}


def completed(body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """The event with `event_id` and `ts` from its headers where the body has none; the body wins where both say it."""
    found = attributes(headers)
    given = {"event_id": found.get("id"), "ts": found.get("time")}
    return {**{name: value for name, value in given.items() if value is not None}, **body}


def unwrapped(body: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a structured-mode envelope, with the envelope's id and time; any other body as it is."""
    data = body.get("data")
    if "specversion" not in body or not isinstance(data, dict):
        return dict(body)
    return completed(data, {f"ce-{name}": str(body[name]) for name in ("id", "time") if name in body})
