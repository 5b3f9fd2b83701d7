"""Files of chats as held-out conversations: any format that `driftline ingest` reads, gzip or plain."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from learner.heldout import HeldChat
from services.source_files import opened
from streams.events import BadEvent, Message, Turn, decode
from streams.scrub import Quarantined, scrub_conversation
from streams.sources import FORMATS, Chat, SourceRecord, detect, read

REPLIES = frozenset({"agent", "assistant"})
TOPIC_LABELS = ("domain", "intent", "topic")
"""Labels of a conversation row under which it may be counted, the first that is there."""


def read_chats(path: Path, form: str | None = None, *, scrubbed: bool = False) -> list[HeldChat]:
    """The conversations of a file that hold a reply, in their order; scrubbing leaves out what it would quarantine.

    Raises OSError, and ValueError for an unknown format, half a packed file, or a file without any such conversation.
    """
    with _read(path) as file:
        lines = file.readlines()
    form = _form(path, form, b"".join(lines[:1]))
    topics = _topics(lines) if form == "conversations" else {}
    found = []
    for conversation, said in _conversations(lines, form, path.name):
        texts = [text for _, text in said]
        if scrubbed:
            try:
                texts = scrub_conversation({"turns": [{"role": role, "text": text} for role, text in said]})
            except Quarantined:  # the pipeline would keep it apart too
                continue
        turns = tuple(
            Turn(role=role, text=text, is_target=role in REPLIES)  # type: ignore[arg-type] # read checks roles
            for (role, _), text in zip(said, texts, strict=True)
        )
        if any(turn.is_target for turn in turns):
            found.append(HeldChat(conversation, turns, topics.get(conversation, "other")))
    if not found:
        raise ValueError(f"{path.name}: no chat with a reply, read as {form}; name its format with --format")
    return found


def check_chats(path: Path, form: str | None = None) -> None:
    """Open a file and tell its format, as `read_chats` will. Raises OSError, ValueError."""
    with _read(path) as file:
        _form(path, form, file.readline())


@contextmanager
def _read(path: Path) -> Iterator[IO[bytes]]:
    try:
        with opened(path) as file:
            yield file
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _form(path: Path, form: str | None, first: bytes) -> str:
    form = form or detect(path.name, first)
    if form is None:
        raise ValueError(f"{path.name}: no known format; name it with --format")
    if form not in FORMATS:
        raise ValueError(f"--format {form!r}: wants one of {', '.join(FORMATS)}")
    return form


def _conversations(lines: list[bytes], form: str, name: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    events: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for item in read(lines, form, name):
        if isinstance(item, Chat):
            yield item.conversation_id, [(line.role, line.text) for line in item.lines]
        elif isinstance(item, SourceRecord):
            try:
                event = decode(item.key, item.value)
            except BadEvent:
                continue
            if isinstance(event, Message):
                events[event.conversation_id][event.seq] = (event.role, event.text)
    for conversation, by_seq in events.items():
        yield conversation, [by_seq[seq] for seq in sorted(by_seq)]


def _topics(lines: list[bytes]) -> dict[str, str]:
    found = {}
    for line in lines:
        try:
            row: Mapping[str, Any] = json.loads(line)
            labels = row.get("labels") or row
            label = next((labels[name] for name in TOPIC_LABELS if isinstance(labels.get(name), str)), None)
        except (ValueError, AttributeError):
            continue
        if label:
            found[str(row.get("conversation_id"))] = label
    return found
