"""CloudEvents in binary mode: the id and the time stand in headers, the body stays our JSON."""

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
