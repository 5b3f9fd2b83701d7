"""Which format a file has, and its parser."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from streams.sources import mail, pages, tables
from streams.sources.tables import Item

FORMATS = ("traffic", "events", "conversations", "csv", "bitext", "mbox", "faq")
"""What `read` takes; `faq` is a Markdown or HTML page."""


def detect(name: str, head: bytes) -> str | None:
    """The format of a file by its name and its first bytes; None when nothing fits."""
    suffixes = name.lower().removesuffix(".gz").rpartition(".")
    suffix = suffixes[2] if suffixes[1] else ""
    if suffix in {"md", "markdown", "html", "htm"}:
        return "faq"
    if suffix in {"mbox", "mbx"} or head.startswith(b"From "):
        return "mbox"
    first = head.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    if first.lstrip().startswith(b"{"):
        return _json_format(first)
    if suffix in {"csv", "tsv", "txt"} or b"," in first:
        names = {column.strip().strip('"').lower() for column in first.decode(errors="replace").split(",")}
        return "bitext" if {"instruction", "response"} <= names else "csv"
    return None


def read(lines: Iterable[bytes], form: str, name: str = "page", agents: Collection[str] = ()) -> Iterator[Item]:
    """The chats, records and unreadable parts of a file. Raises ValueError for an unknown format."""
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
        page = b"".join(lines).decode(errors="replace")
        is_html = page.lstrip("\ufeff \t\r\n").startswith("<")
        return pages.html(page, name) if is_html else pages.markdown(page, name)
    raise ValueError(f"format = {form!r}: wants one of {', '.join(FORMATS)}")


def _json_format(first: bytes) -> str | None:
    try:
        row = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if "value" in row or "value_raw" in row:
        return "traffic"
    if "turns" in row or "messages" in row:
        return "conversations"
    return "events" if "type" in row or "event_id" in row else None
