"""Lines and tables: traffic, events and conversations as JSONL, chats and Bitext pairs as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from streams.events import MAX_ID, timestamp
from streams.sources.chats import Chat, Line, SourceRecord, Unreadable, role_of

Item = Chat | SourceRecord | Unreadable

MAX_FIELD = 1 << 20
"""Longest CSV field, characters; longer ones stop csv with an error instead of filling memory."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "conversation": (
        "conversation_id", "conversation", "chat_id", "thread_id", "ticket_id", "dialogue_id", "dialog_id",
        "session_id", "case_id",
    ),
    "role": ("role", "sender", "speaker", "author", "author_type", "participant", "from", "direction"),
    "text": ("text", "message", "body", "content", "utterance", "comment"),
    "time": ("ts", "timestamp", "created_at", "datetime", "time", "date"),
    "seq": ("seq", "turn", "turn_id", "position", "index"),
    "customer": ("customer_id", "customer", "user_id", "requester_id", "contact_id"),
    "resolved": ("resolved", "solved"),
}  # fmt: skip
"""What we look for -> the column names under which exports have it, best first."""


class _TrafficRow(msgspec.Struct):
    key: str | None = None
    offset_ms: float | None = None
    value: msgspec.Raw = msgspec.Raw()
    value_raw: str | None = None


_traffic_row = msgspec.json.Decoder(_TrafficRow)


def traffic(lines: Iterable[bytes]) -> Iterator[Item]:
    """Recorded traffic: `{"offset_ms", "key", "value" | "value_raw"}` a line; values go out byte for byte."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _traffic_row.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield Unreadable(number, "no_record")
            continue
        if row.value_raw is None and not bytes(row.value):
            yield Unreadable(number, "no_record")
            continue
        value = bytes(row.value) if row.value_raw is None else row.value_raw.encode()
        yield SourceRecord(None if row.key is None else row.key.encode(), value, row.offset_ms)


def events(lines: Iterable[bytes]) -> Iterator[Item]:
    """Chat events as on chats.raw, one a line, keyed by their conversation; broken ones go out as they are."""
    for line in lines:
        if not line.strip():
            continue
        try:
            body = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = None
        found = body.get("conversation_id") if isinstance(body, dict) else None
        yield SourceRecord(found.encode() if isinstance(found, str) else None, line.rstrip(b"\r\n"))


def conversations(lines: Iterable[bytes]) -> Iterator[Item]:
    """Whole conversations: `{"conversation_id"?, "turns": [{"role", "text", "ts"?}], "resolved"?}` a line."""
    for number, row in _objects(lines):
        yield row if isinstance(row, Unreadable) else _conversation(number, row)


def _objects(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield number, Unreadable(number, "not_json")
            continue
        yield number, row if isinstance(row, dict) else Unreadable(number, "no_object")


def _conversation(number: int, row: Mapping[str, Any]) -> Chat | Unreadable:
    turns = row.get("turns") or row.get("messages")
    if not isinstance(turns, list) or not turns:
        return Unreadable(number, "no_turns")
    lines = []
    for turn in turns:
        role = role_of(str(turn.get("role", ""))) if isinstance(turn, dict) else None
        text = turn.get("text", turn.get("content")) if isinstance(turn, dict) else None
        if role is None or not isinstance(text, str):
            return Unreadable(number, "bad_turn")
        if text.strip():
            lines.append(Line(role, text, moment(turn.get("ts"))))
    if not lines:
        return Unreadable(number, "no_text")
    labels = row.get("labels")
    resolved = row.get("resolved", labels.get("resolved") if isinstance(labels, dict) else None)
    customer = row.get("customer")
    known = {k: v for k, v in customer.items() if isinstance(v, str)} if isinstance(customer, dict) else {}
    name = row.get("conversation_id") or row.get("id")
    usable = isinstance(name, str) and name.strip() and len(name) <= MAX_ID
    return Chat(
        str(name) if usable else f"file-{_digest(lines)}", tuple(lines), "chat",
        resolved if isinstance(resolved, bool) else None, known,
    )  # fmt: skip


def table(lines: Iterable[str]) -> Iterator[Item]:
    """A CSV (or semicolon or tab separated) export with a row a message; rows of one conversation may lie apart."""
    reader = _reader(lines)
    columns = _found(reader.fieldnames or ())
    if not {"conversation", "role", "text"} <= columns.keys():
        yield Unreadable(1, "no_columns")
        return
    chats: dict[str, list[tuple[float, int, Line]]] = {}
    facts: dict[str, tuple[dict[str, str], bool | None]] = {}
    for number, row in enumerate(reader, 2):
        name, text = (row.get(columns[c]) or "" for c in ("conversation", "text"))
        role = role_of(row.get(columns["role"]) or "")
        if not name.strip() or len(name) > MAX_ID or not text.strip() or role is None:
            yield Unreadable(number, "bad_row")
            continue
        at = moment(row.get(columns.get("time", "")))
        place = _number(row.get(columns.get("seq", ""))) if "seq" in columns else at
        chats.setdefault(name, []).append((place if place is not None else 0.0, number, Line(role, text, at)))
        who = row.get(columns.get("customer", "")) or ""
        solved = _truth(row.get(columns.get("resolved", "")))
        before = facts.get(name, ({}, None))
        facts[name] = ({"id": who} if who else before[0], solved if solved is not None else before[1])
    for name, found in chats.items():
        found.sort(key=lambda entry: entry[:2])
        customer, resolved = facts[name]
        yield Chat(name, tuple(line for _, _, line in found), "chat", resolved, customer)


def bitext(lines: Iterable[str]) -> Iterator[Item]:
    """Bitext's customer-support CSV: `instruction` and `response` of a row are a chat of two turns."""
    reader = _reader(lines)
    if not {"instruction", "response"} <= set(reader.fieldnames or ()):
        yield Unreadable(1, "no_columns")
        return
    for number, row in enumerate(reader, 2):
        asked, said = (row.get(name) or "" for name in ("instruction", "response"))
        if not asked.strip() or not said.strip():
            yield Unreadable(number, "bad_row")
            continue
        turns = (Line("customer", asked), Line("agent", said))
        yield Chat(f"bitext-{number}-{_digest(turns)}", turns, "bitext")


def moment(value: object) -> float | None:
    """Unix seconds of a time as exports write it: ISO-8601 (without a zone: UTC) or a number of seconds."""
    number = _number(value)
    if number is not None:
        return number if 0 <= number < 2**33 else None
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        return timestamp(value.strip())
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(value.strip()).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _reader(lines: Iterable[str]) -> csv.DictReader[str]:
    csv.field_size_limit(MAX_FIELD)
    rows = iter(lines)
    head = next(rows, "")
    separator = max(",;\t", key=head.count)
    return csv.DictReader(_with(head.removeprefix("\ufeff"), rows), delimiter=separator, restkey="", strict=False)


def _with(head: str, rows: Iterator[str]) -> Iterator[str]:
    yield head
    # csv refuses NUL, which broken exports contain.
    yield from (row.replace("\0", "") for row in rows)


def _found(names: Iterable[str]) -> dict[str, str]:
    by_name = {name.strip().lower(): name for name in names if name}
    found = {}
    for wanted, options in _COLUMNS.items():
        for option in options:
            if option in by_name:
                found[wanted] = by_name[option]
                break
    return found


def _digest(lines: Iterable[Line]) -> str:
    text = "\x1f".join(f"{line.role}\x1e{line.text}" for line in lines)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
