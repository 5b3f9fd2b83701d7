"""Lines and tables: traffic, events and conversations as JSONL, chats and Bitext pairs as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain, count
from typing import Any

import msgspec

from streams.events import MAX_ID, timestamp
from streams.sources.chats import Chat, Line, SourceRecord, Unreadable, role_of
from streams.sources.turns import said, turns_of

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
    "question": ("instruction", "question", "query", "prompt"),
    "answer": ("response", "answer", "reply", "completion"),
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
    """Whole conversations: `{"conversation_id"?, "turns": [{"role", "text", "ts"?}], "resolved"?}` a line.

    `messages` with `content`, a string or parts, is read too; what in a chat is no text is told beside the chat.
    """
    for number, row in _objects(lines):
        if isinstance(row, Unreadable):
            yield row
            continue
        yield _conversation(number, row)
        if any(found.left_out for turn in row.get(turns_of(row)) or () if (found := said(turn))):
            yield Unreadable(number, "not_text")


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
    turns = row.get(turns_of(row))
    if not turns:
        return Unreadable(number, "no_turns")
    lines = []
    for turn in turns:
        found = said(turn)
        role = role_of(found.role) if found else None
        if found is None or (role is None and found.text):
            return Unreadable(number, "bad_turn")
        if role is not None and found.text.strip():
            lines.append(Line(role, found.text, moment(turn.get("ts"))))
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
    """A CSV (or semicolon or tab separated) export with a row a message; rows of one conversation may lie apart.

    A table without conversations but with a column of questions and one of answers is read as `bitext`.
    """
    rows = _Rows(lines)
    if not {"conversation", "role", "text"} <= rows.columns.keys():
        yield from _pairs(rows, "csv")
        return
    chats: dict[str, list[tuple[float, int, Line]]] = {}
    customers: dict[str, str] = {}
    outcomes: dict[str, bool] = {}
    for number, row in rows:
        name, role = row.get("conversation", ""), role_of(row.get("role", ""))
        if not name.strip() or len(name) > MAX_ID or not row.get("text", "").strip() or role is None:
            yield Unreadable(number, "bad_row")
            continue
        at = moment(row.get("time"))
        place = _number(row.get("seq")) if "seq" in rows.columns else at
        chats.setdefault(name, []).append((place or 0.0, number, Line(role, row["text"], at)))
        if row.get("customer"):
            customers[name] = row["customer"]
        solved = _truth(row.get("resolved"))
        if solved is not None:
            outcomes[name] = solved
    for name, found in chats.items():
        found.sort(key=lambda entry: entry[:2])
        known = {"id": customers[name]} if name in customers else {}
        yield Chat(name, tuple(line for _, _, line in found), "chat", outcomes.get(name), known)


def bitext(lines: Iterable[str]) -> Iterator[Item]:
    """Bitext's customer-support CSV: `instruction` and `response` of a row are a chat of two turns."""
    yield from _pairs(_Rows(lines), "bitext")


def _pairs(rows: _Rows, source: str) -> Iterator[Item]:
    if not {"question", "answer"} <= rows.columns.keys():
        yield Unreadable(1, "no_columns")
        return
    for number, row in rows:
        asked, said = row.get("question", ""), row.get("answer", "")
        if not asked.strip() or not said.strip():
            yield Unreadable(number, "bad_row")
            continue
        turns = (Line("customer", asked), Line("agent", said))
        yield Chat(f"{source}-{number}-{_digest(turns)}", turns, source)


def columns(head: str) -> set[str]:
    """The names of a table's columns by its first line; none if exports have no two of them."""
    names = head.removeprefix("\ufeff").strip().split(max(",;\t", key=head.count))
    plain = [name.strip().strip('"').lower() for name in names]
    return set(plain) if len(_found(plain)) > 1 else set()


class _Rows:
    """The rows of a table under our own names of its columns, numbered as in a spreadsheet; bad ones are empty."""

    def __init__(self, lines: Iterable[str]) -> None:
        csv.field_size_limit(MAX_FIELD)
        rest = iter(lines)
        head = next(rest, "").removeprefix("\ufeff")
        # csv refuses NUL, which broken exports contain.
        clean = (line.replace("\0", "") for line in rest)
        self._reader = csv.reader(chain([head.replace("\0", "")], clean), delimiter=max(",;\t", key=head.count))
        self.columns = _found(self._next() or [])

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        for number in count(2):
            row = self._next()
            if row is None:
                return
            yield number, {name: row[at] for name, at in self.columns.items() if at < len(row)}

    def _next(self) -> list[str] | None:
        """The next row that is not blank; one that csv cannot read is empty, None is the end."""
        try:
            return next((row for row in self._reader if row), None)
        except csv.Error:
            return []


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


def _found(names: Sequence[str]) -> dict[str, int]:
    """Our name of a column -> its place, where an export has it under one of its usual names."""
    places = {name.strip().lower(): at for at, name in enumerate(names)}
    found = {}
    for wanted, options in _COLUMNS.items():
        place = next((places[option] for option in options if option in places), None)
        if place is not None:
            found[wanted] = place
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
