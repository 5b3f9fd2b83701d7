"""Webhook bodies of chat platforms as chat events without a number: the gateway counts turns as they arrive.

Shapes as published: Zendesk event subscriptions (`zen:event-type:ticket.*`), Intercom notifications
(`conversation.*`), Slack's Events API (`message`), Standard Webhooks (our own event as `data`).
What is no chat turn, edit, end or rating gives nothing; `Malformed` is raised where a known type lacks its fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from streams.events import isoformat, timestamp
from streams.sources.pages import html_text
from streams.sources.signatures import EventIds

Draft = dict[str, Any]
"""A chat event as on chats.raw, without `seq` (and of a close without `turns`) where the platform has none."""


class Malformed(ValueError):
    """A body that is not what its source publishes; the message names the field, never its value."""


def drafts(source: str, body: Mapping[str, Any], ids: EventIds, staff: Collection[str] = ()) -> Sequence[Draft]:
    """The chat events of one verified webhook. `staff` are Slack user ids of agents. Raises `Malformed`."""
    return _SOURCES[source](body, ids, staff)


def challenge(source: str, body: Mapping[str, Any]) -> str | None:
    """Slack's question whether this is our URL; the answer echoes it. None for any other body."""
    if source != "slack" or body.get("type") != "url_verification":
        return None
    return _text(body, "challenge")


def _zendesk(body: Mapping[str, Any], ids: EventIds, _staff: Collection[str]) -> Sequence[Draft]:
    kind = str(body.get("type", ""))
    if not kind.startswith("zen:event-type:ticket."):
        return []
    detail, event = _part(body, "detail"), _part(body, "event")
    common = {
        "event_id": str(body.get("id") or ids.request_id),
        "conversation_id": f"zendesk-{_id(detail, 'id')}",
        "ts": _iso(body.get("time")),
    }
    name = kind.removeprefix("zen:event-type:ticket.")
    if name == "comment_added":
        comment = _part(event, "comment")
        if comment.get("is_public") is False:
            return []
        author = _part(comment, "author")
        role = "agent" if author.get("is_staff") else "customer"
        return [{**common, **_message(role, _text(comment, "body"), "zendesk", author)}]
    if name == "status_changed":
        return _zendesk_status(common, str(event.get("previous")).upper(), str(event.get("current")).upper())
    if name in {"csat_received", "satisfaction_score_changed"}:
        score = str(event.get("current", event.get("score", ""))).upper()
        good = score.startswith("GOOD")
        return (
            [{**common, "type": "feedback", "rating": int(good), "scale": [0, 1]}]
            if score[:3] in {"GOO", "BAD"}
            else []
        )
    return []


def _zendesk_status(common: Draft, before: str, now: str) -> Sequence[Draft]:
    ended = {"SOLVED", "CLOSED"}
    if now in ended and before not in ended:
        return [{**common, "type": "conversation_closed", "resolved": now == "SOLVED" or None}]
    if before in ended and now not in ended:
        return [{**common, "type": "feedback", "kind": "reopened"}]
    return []


def _intercom(body: Mapping[str, Any], ids: EventIds, _staff: Collection[str]) -> Sequence[Draft]:
    topic = str(body.get("topic", ""))
    if not topic.startswith("conversation."):
        return []
    item = _part(_part(body, "data"), "item")
    notification = str(body.get("id") or ids.request_id)
    common = {
        "event_id": notification,
        "conversation_id": f"intercom-{_id(item, 'id')}",
        "ts": _iso(body.get("created_at")),
    }
    if topic == "conversation.rating.added":
        rating = _part(item, "conversation_rating").get("rating")
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            raise Malformed("rating")
        return [{**common, "type": "feedback", "rating": rating, "scale": [1, 5]}]
    found = [{**common, **part} for part in _intercom_parts(topic, item)]
    for number, draft in enumerate(found[1:], 1):
        draft["event_id"] = f"{notification}.{number}"
    return found


def _intercom_parts(topic: str, item: Mapping[str, Any]) -> list[Draft]:
    parts = item.get("conversation_parts")
    listed = parts.get("conversation_parts") if isinstance(parts, Mapping) else None
    said = [part for part in (listed if isinstance(listed, list) else []) if isinstance(part, Mapping)]
    if topic.endswith(".created"):
        said = [_part(item, "source"), *said]
    elif not topic.endswith((".replied", ".closed")):
        return []
    out: list[Draft] = []
    for part in said:
        text = html_text(str(part.get("body") or ""))
        author = part.get("author")
        if text.strip() and isinstance(author, Mapping) and part.get("part_type") != "note":
            kind = str(author.get("type"))
            role = {"admin": "agent", "bot": "assistant"}.get(kind, "customer")
            out.append(_message(role, text, "intercom", author))
    if topic.endswith(".closed"):
        out.append({"type": "conversation_closed"})
    return out


def _slack(body: Mapping[str, Any], ids: EventIds, staff: Collection[str]) -> Sequence[Draft]:
    event = body.get("event")
    if body.get("type") != "event_callback" or not isinstance(event, Mapping) or event.get("type") != "message":
        return []
    # Joins, edits and deletions are messages with a subtype; a file with words has one too.
    if event.get("subtype") not in {None, "thread_broadcast", "file_share"} or not event.get("user"):
        return []
    thread = event.get("thread_ts") or _text(event, "ts")
    user = _text(event, "user")
    role = "agent" if user in staff else "customer"
    text = re.sub(r"<(?:https?|mailto):[^|>]*\|([^>]*)>", r"\1", _text(event, "text"))
    return [
        {
            "event_id": str(body.get("event_id") or ids.request_id),
            "conversation_id": f"slack-{body.get('team_id', '')}-{_text(event, 'channel')}-{thread}",
            "ts": _iso(event.get("ts")),
            **_message(role, text, "slack", {"id": user}),
        }
    ]


def _standard(body: Mapping[str, Any], ids: EventIds, _staff: Collection[str]) -> Sequence[Draft]:
    data = body.get("data")
    event = data if isinstance(data, Mapping) else body
    when = body.get("timestamp") if isinstance(data, Mapping) else None
    return [{"event_id": ids.request_id, **({"ts": when} if when else {}), **event}]


_SOURCES: Mapping[str, Callable[[Mapping[str, Any], EventIds, Collection[str]], Sequence[Draft]]] = {
    "zendesk": _zendesk, "intercom": _intercom, "slack": _slack, "standard": _standard,
}  # fmt: skip


def _message(role: str, text: str, channel: str, author: Mapping[str, Any]) -> Draft:
    draft: Draft = {"type": "message", "role": role, "text": text, "channel": channel}
    known = {name: str(author[name]) for name in ("id", "name", "email", "phone") if author.get(name)}
    if role == "customer":
        return {**draft, "customer": known} if known else draft
    return {**draft, "agent_id": known["id"]} if role == "agent" and "id" in known else draft


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(name)
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Malformed(name)
    return value


def _id(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise Malformed(name)
    return str(value)


def _iso(value: object) -> str:
    """ISO-8601 of a platform's time: ISO already, or Unix seconds as number or text. Raises `Malformed`."""
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d+(\.\d+)?", value):
            timestamp(value)
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise Malformed("time")
        return isoformat(float(value))
    except (ValueError, OverflowError, OSError):
        raise Malformed("time") from None
