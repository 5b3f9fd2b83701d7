"""FAQs and documents without markup: JSON and JSONL of questions and answers, and plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streams.sources.chats import Chat, Unreadable, role_of
from streams.sources.pages import Block, Pair, asked_of, chats_of, pairs

ASKED = ("question", "instruction", "query", "prompt", "q")
ABOUT = ("title", "name", "heading")
SAID = ("answer", "response", "reply", "completion", "a", "text", "body", "content", "description")
"""Names under which exports have a question, what a text is about, and the text; best first."""

MOST_HEADING = 80
"""Characters of a line that may be a heading."""

_SPEAKER = re.compile(r"^\W*([A-Za-z][\w -]{0,20}):\s*\S", re.MULTILINE)


def is_json(text: str) -> bool:
    """Whether a text, or its first line, is JSON."""
    return _decoded(text) is not None or _decoded(text.split("\n", 1)[0]) is not None


def has_pair(row: Mapping[str, Any]) -> bool:
    """Whether an object holds a question and its answer."""
    return bool(_field(row, ASKED) and _field(row, SAID))


def records(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The pairs of a JSON document, wherever in it they stand, or of JSON lines."""
    whole = _decoded(text)
    rows = [whole] if whole is not None else [_decoded(line) for line in text.splitlines()]
    yield from chats_of([pair for row in rows for pair in _pairs_in(row)], name)


def plain(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The pairs of plain text: short lines are headings of what follows them. What people said is none of it."""
    if len([found for found in _SPEAKER.finditer(text) if role_of(found[1])]) > 1:
        yield Unreadable(1, "transcript")
        return
    blocks = _plain_blocks(text.replace("\r\n", "\n"))
    if all(block.kind == "text" for block in blocks):
        blocks = [Block("title", re.sub(r"[-_]+", " ", name)), *blocks]
    yield from chats_of(pairs(blocks), name)


def _plain_blocks(text: str) -> list[Block]:
    """A heading is a short line without an end of a sentence, or a question, that text follows."""
    found = ([line.strip() for line in part.split("\n") if line.strip()] for part in re.split(r"\n\s*\n", text))
    parts = [part for part in found if part]
    blocks: list[Block] = []
    for at, part in enumerate(parts):
        told = part
        if _is_heading(part[0]) and (part[1:] or at + 1 < len(parts)):
            title = at == 0 and not part[1:] and not part[0].endswith("?")
            blocks.append(Block("title" if title else "heading", part[0]))
            told = part[1:]
        blocks += [Block("text", "\n".join(told))] if told else []
    return blocks


def _is_heading(line: str) -> bool:
    return len(line) <= MOST_HEADING and line[-1] not in ".!,;" and not line.startswith(("-", "*", "\u2022"))


def _decoded(text: str) -> Any:
    """JSON as Python has it, None for none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs_in(root: Any) -> list[Pair]:
    """In the order of the document."""
    found: list[Pair] = []
    left = [root]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            own = asked_of(one) or _own_pairs(one)
            found += own
            left += [] if own else reversed(list(one.values()))
        elif isinstance(one, list):
            left += reversed(one)
    return found


def _own_pairs(row: Mapping[str, Any]) -> list[Pair]:
    asked, said = _field(row, ASKED), _field(row, SAID)
    head = Block("question", asked) if asked else Block("heading", _field(row, ABOUT))
    return pairs([head, *(Block("text", part) for part in said.split("\n\n"))])


def _field(row: Mapping[str, Any], names: Sequence[str]) -> str:
    known = {str(key).strip().lower(): value for key, value in row.items()}
    return next((v.strip() for name in names if isinstance(v := known.get(name), str) and v.strip()), "")
