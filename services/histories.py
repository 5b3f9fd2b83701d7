"""A user's own history of chats as JSON lines for the dry runs: JSONL as it is, other formats a conversation a line."""

from __future__ import annotations

import argparse
import gzip
import sys
import zlib
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from streams.sources import FORMATS, Chat, SourceRecord, Unreadable, detect, read
from streams.sources.formats import AS_LINES, rows

_HEAD = 65_536
"""Bytes of the first line by which pairs of questions and answers are told."""

WANTED = {
    "no_columns": "a table wants the columns conversation, role and text, or question and answer",
    "bad_row": "a row of a table wants a conversation, a known role and a text, or a question and an answer",
    "no_pairs": "a page wants questions with answers, or headings with text below",
    "no_text": "a mail or a chat wants text",
    "transcript": "what people said is no page: give it as conversations, JSONL or CSV",
}
"""What a part of a file that holds no chat lacks, by the reason that streams.sources gives."""


UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a file, packed or not, may raise."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """How a history is to be read."""
    parser.add_argument("--format", choices=FORMATS, help="default: by the file's name, else JSONL")
    parser.add_argument("--agents", default="", help="mbox: addresses or domains of your staff, separated by commas")


def why(path: Path | None, error: BaseException) -> str:
    """Which file could not be read (none: standard input), and why."""
    return f"{path or 'stdin'}: {getattr(error, 'strerror', None) or error}"


def form_of(path: Path | None, wanted: str | None) -> str:
    """The format of a file: as asked for, else by its name; text files, unknown names and standard input are JSONL.

    Questions and answers as JSON lines are a page of them. Raises OSError, EOFError or zlib.error.
    """
    if wanted is None and path is not None and not path.name.lower().removesuffix(".gz").endswith(".txt"):
        wanted = detect(path.name, b"")
    if wanted is None and path is not None and path.is_file():  # a pipe is read once
        with path.open("rb") as raw, _unpacked(raw) as file:
            wanted = "faq" if detect(".jsonl", file.readline(_HEAD)) == "faq" else None
    return wanted or "traffic"


def lines_of(path: Path | None, form: str, agents: Collection[str] = ()) -> Iterator[bytes]:
    """The rows of a file (gzip too) or of standard input; of a part that holds no chat, what is `unreadable`.

    Raises OSError, EOFError or zlib.error where it cannot be read.
    """
    source: Any = nullcontext(sys.stdin.buffer) if path is None else path.open("rb")
    with source as raw, _unpacked(raw) as file:
        if form in AS_LINES:
            yield from (line.rstrip(b"\r\n") for line in rows(file) if line.strip())
            return
        name = "page" if path is None else path.name.split(".")[0]
        for item in read(file, form, name, agents):
            if not isinstance(item, SourceRecord):
                yield _row(item)


def _unpacked(raw: Any) -> Any:
    """A file as it is, or unpacked if it is gzip."""
    return gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else nullcontext(raw)


def _row(chat: Chat | Unreadable) -> bytes:
    if isinstance(chat, Unreadable):
        return msgspec.json.encode({"part": chat.number, "unreadable": WANTED.get(chat.reason, chat.reason)})
    turns = [{"role": line.role, "text": line.text} for line in chat.lines]
    return msgspec.json.encode({"conversation_id": chat.conversation_id, "channel": chat.channel, "turns": turns})
