"""Which format a file has, and its parser."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

import msgspec

from streams.sources import answers, mail, pages, tables
from streams.sources.tables import Item
from streams.sources.turns import turns_of

FORMATS = ("traffic", "events", "conversations", "csv", "bitext", "mbox", "faq")
"""What `read` takes; `faq` is a page of questions or of headings: Markdown, HTML, plain text or JSON."""

AS_LINES = frozenset({"traffic", "events", "conversations"})
"""Formats of one JSON object a line."""


def detect(name: str, head: bytes) -> str | None:
    """The format of a file by its name and its first bytes; None when nothing fits."""
    suffixes = name.lower().removesuffix(".gz").rpartition(".")
    suffix = suffixes[2] if suffixes[1] else ""
    if suffix in {"md", "markdown", "html", "htm"}:
        return "faq"
    if suffix in {"mbox", "mbx", "eml"} or head.startswith(b"From "):
        return "mbox"
    first = head.removeprefix(BOM_UTF8).split(b"\n", 1)[0]
    if first.lstrip().startswith((b"{", b"[")):
        return _json_format(first) or ("faq" if suffix == "json" else None)
    columns = tables.columns(first.decode(errors="replace"))
    if suffix in {"txt", "text"} and not columns:
        return "faq"
    if suffix in {"csv", "tsv", "txt", "text"} or b"," in first:
        return "bitext" if columns >= {"instruction", "response"} else "csv"
    return None


def read(lines: Iterable[bytes], form: str, name: str = "page", agents: Collection[str] = ()) -> Iterator[Item]:
    """The chats, records and unreadable parts of a file. Raises ValueError for an unknown format."""
    lines = rows(lines) if form in AS_LINES else unmarked(lines)
    if form == "traffic":
        return tables.traffic(lines)
    if form == "events":
        return tables.events(lines)
    if form == "conversations":
        return tables.conversations(lines)
    if form in {"csv", "bitext"}:
        text = (line.decode(errors="replace") for line in lines)
        return tables.table(text) if form == "csv" else tables.bitext(text)
    if form == "mbox":
        return mail.threads(lines, agents)
    if form == "faq":
        return _page(b"".join(lines).decode(errors="replace").lstrip("\ufeff \t\r\n"), name)
    raise ValueError(f"format = {form!r}: wants one of {', '.join(FORMATS)}")


def unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file without the mark that some programs put before UTF-8."""
    return (line.removeprefix(BOM_UTF8) if at == 0 else line for at, line in enumerate(lines))


def rows(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of JSONL; of a file that is one JSON array, its items, each on a line."""
    rest = unmarked(lines)
    first = next(rest, b"")
    if not first.lstrip().startswith(b"["):
        return chain((first,) if first else (), rest)
    whole = b"".join((first, *rest))
    try:
        return (msgspec.json.format(item, indent=-1) for item in msgspec.json.decode(whole, type=list[msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return iter(whole.splitlines(keepends=True))


def _page(text: str, name: str) -> Iterator[Item]:
    """By what it begins with, and by whether it has any Markdown."""
    if text.startswith("<"):
        return pages.html(text, name)
    if text.startswith(("{", "[")) and answers.is_json(text):
        return answers.records(text, name)
    return pages.markdown(text, name) if pages.has_markup(text) else answers.plain(text, name)


def _json_format(first: bytes) -> str | None:
    try:
        row = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(row, list):
        row = next(iter(row), None)
    if not isinstance(row, dict):
        return None
    if "value" in row or "value_raw" in row:
        return "traffic"
    if turns_of(row):
        return "conversations"
    if "type" in row or "event_id" in row:
        return "events"
    return "faq" if answers.has_pair(row) else None
