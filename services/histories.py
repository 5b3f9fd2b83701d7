"""A user's own history of chats as JSON lines for the dry runs: JSONL as it is, other formats a conversation a line."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from streams.sources import Chat, detect, read

AS_LINES = ("traffic", "events", "conversations")
"""Formats whose lines are rows already."""


def form_of(path: Path | None, wanted: str | None) -> str:
    """The format of a file: as asked for, else by its name; text files, unknown names and standard input are JSONL."""
    if wanted is None and path is not None and not path.name.lower().removesuffix(".gz").endswith(".txt"):
        wanted = detect(path.name, b"")
    return wanted or AS_LINES[0]


def lines_of(path: Path | None, form: str, agents: Collection[str] = ()) -> Iterator[bytes]:
    """The rows of a file (gzip too) or of standard input; a part that holds no chat is the reason in words.

    Raises OSError, EOFError or zlib.error where it cannot be read.
    """
    source: Any = nullcontext(sys.stdin.buffer) if path is None else path.open("rb")
    with source as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        with gzip.GzipFile(fileobj=raw) if packed else nullcontext(raw) as file:
            if form in AS_LINES:
                yield from (line.rstrip(b"\r\n") for line in file if line.strip())
                return
            name = "page" if path is None else path.name.split(".")[0]
            for item in read(file, form, name, agents):
                yield _row(item) if isinstance(item, Chat) else str(item).encode()


def _row(chat: Chat) -> bytes:
    turns = [{"role": line.role, "text": line.text} for line in chat.lines]
    return msgspec.json.encode({"conversation_id": chat.conversation_id, "channel": chat.channel, "turns": turns})
