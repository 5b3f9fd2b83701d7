"""FAQ and product pages, Markdown or HTML, as pairs of question and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html.parser import HTMLParser
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from streams.sources.chats import Chat, Line, Unreadable

MIN_ANSWER = 8
"""Characters that a section needs to count as an answer; shorter ones are labels and buttons."""
LONG_ANSWER = 1_200
"""Characters of a section from which it is told in several answers, cut between its blocks."""

Kind = Literal["title", "heading", "question", "text", "button"]


@dataclass(frozen=True, repr=False)
class Block:
    """A piece of a page."""

    kind: Kind
    text: str


class Pair(NamedTuple):
    """A question and its answer; `asked` is False where the page has a heading and we made the question."""

    question: str
    answer: str
    asked: bool = True


def markdown(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The question and answer pairs of a Markdown page."""
    yield from chats_of(pairs(_markdown_blocks(text)), name)


def has_markup(text: str) -> bool:
    """Whether Markdown finds a heading, a question or a title in a text."""
    return any(block.kind != "text" for block in _markdown_blocks(text))


def html(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The pairs of an HTML page: FAQPage metadata where it has some, else headings, `dl` and `details`."""
    page = _parsed(text)
    yield from chats_of(page.metadata or pairs(page.blocks), name)


def html_text(text: str) -> str:
    """The visible text of HTML, a line a block; quoted mail is left out."""
    return "\n".join(block.text for block in _parsed(text, quotes=False).blocks)


def pairs(blocks: Sequence[Block]) -> list[Pair]:
    """A heading and the text below it; a heading that asks nothing becomes a question about it."""
    title, head, asked, answer = "", "", True, list[str]()
    found: list[Pair] = []
    for block in [*blocks, Block("heading", "")]:
        if block.kind == "text":
            answer.append(block.text)
            continue
        if head:
            found += _section(head, answer, asked=asked, title=title)
        answer.clear()
        if block.kind == "title" and not block.text.endswith("?"):
            title = block.text
        head, asked = block.text, block.kind == "question" or block.text.endswith("?")
    return found


def _section(head: str, answer: Sequence[str], *, asked: bool, title: str) -> list[Pair]:
    """The pairs of a section: one, or several where we ask ourselves and its text is long."""
    if asked:
        said = "\n".join(answer).strip()
        return [Pair(head, said)] if len(said) >= MIN_ANSWER else []
    about = head if not title or title == head else f"{title}: {head}"
    parts, size = [list[str]()], 0
    for text in answer:
        if size and size + len(text) > LONG_ANSWER:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text)
    told = [said for part in parts if len(said := "\n".join(part).strip()) >= MIN_ANSWER]
    what = ("What can you tell me about", "What else should I know about")
    return [Pair(f"{what[at > 0]} {about}?", said, asked=False) for at, said in enumerate(told)]


def chats_of(found: Sequence[Pair], name: str) -> Iterator[Chat | Unreadable]:
    """Each pair as a chat of two turns, from a FAQ or, where nobody asked, from a document."""
    if not found:
        yield Unreadable(1, "no_pairs")
    for question, answer, asked in found:
        digest = sha256(f"{question}\x1f{answer}".encode(errors="surrogatepass")).hexdigest()[:16]
        lines = (Line("customer", question), Line("agent", answer))
        yield Chat(f"{name[:80]}-{digest}", lines, "faq" if asked else "document")


_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_ASKED = re.compile(r"^\**\s*(?:Q|Question|Frage)\s*\d*\s*[:.)]\**\s*(.+?)\**\s*$", re.IGNORECASE)
_SAID = re.compile(r"^\**\s*(?:A|Answer|Antwort)\s*\d*\s*[:.)]\**\s*(.+)$", re.IGNORECASE)
_BOLD = re.compile(r"^\*\*([^*]+\?)\*\*\s*$")
_UNDERLINED = re.compile(r"^([^\s|>#-].*)\n(?:(=)=*|-{3,})[ \t]*$", re.MULTILINE)
_ROW = re.compile(r"^\s*\|(.*\S)\s*$")
_RULE = re.compile(r"[\s|:-]*")


def _markdown_blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    fenced = False
    # Front matter is for the site generator.
    bare = re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), flags=re.DOTALL)
    bare = _UNDERLINED.sub(lambda m: f"{'#' if m[2] == '=' else '##'} {m[1]}", bare)
    for line in _without_tables(bare.split("\n")):
        if re.match(r"^\s*(```|~~~)", line):
            fenced = not fenced
        elif fenced:
            blocks.append(Block("text", line))
        elif match := _HEADING.match(line):
            blocks.append(Block("title" if match[1] == "#" else "heading", _inline(match[2])))
        elif match := _ASKED.match(line) or _BOLD.match(line):
            blocks.append(Block("question", _inline(match[1])))
        elif line.strip():
            match = _SAID.match(line)
            blocks.append(Block("text", _inline(match[1] if match else line)))
    return [block for block in blocks if block.text.strip()]


def _without_tables(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a page, each row of a table told in words by the heads of its columns."""
    heads: list[str] = []
    rows = [_ROW.match(line) for line in lines]
    rules = [row is not None and _RULE.fullmatch(row[1]) is not None for row in rows]
    for line, row, rule, heading in zip(lines, rows, rules, [*rules[1:], False], strict=True):
        if row is None:
            heads = []
            yield line
        elif not rule:
            cells = [cell.strip() for cell in row[1].strip("|").split("|")]
            if heading:
                heads = cells
            else:
                yield _told(cells, heads)


def _told(cells: Sequence[str], heads: Sequence[str]) -> str:
    if len(cells) == 2:  # a name and its value
        return ": ".join(filter(None, cells))
    named = zip_longest(heads[: len(cells)], cells, fillvalue="")
    return ", ".join(f"{head}: {cell}" if head else cell for head, cell in named if cell)


def _inline(text: str) -> str:
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", "", text)
    return re.sub(r"(\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=[\w.!?])[*_](?!\w))", "", text).strip()


_BLOCKS = frozenset(["p", "div", "li", "tr", "dd", "br", "section", "article", "blockquote", "table", "ul", "pre"])
_SKIPPED = frozenset(["script", "style", "nav", "footer", "header", "form", "noscript", "svg", "template", "head"])
_STRONG = frozenset(["b", "strong"])
_CELLS = frozenset(["td", "th"])
_HEADS: dict[str, Kind] = {
    "h1": "title", "h2": "heading", "h3": "heading", "h4": "heading", "h5": "heading", "h6": "heading",
    "dt": "question", "summary": "question", "button": "button",
}  # fmt: skip


class _Page(HTMLParser):
    """Collects blocks of visible text and FAQPage metadata."""

    def __init__(self, *, quotes: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.metadata: list[Pair] = []
        self._skipped = _SKIPPED if quotes else _SKIPPED | {"blockquote"}
        self._kind: Kind = "text"
        self._buffer: list[str] = []
        self._hidden: list[str] = []
        self._bold = ""
        self._cells = 0
        self._script: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and dict(attrs).get("type") == "application/ld+json":
            self._script = []
        elif tag in self._skipped:
            self._flush()
            self._hidden.append(tag)
        elif self._hidden:
            return
        elif tag in _HEADS or tag in _BLOCKS:
            self._flush()
            self._kind = _HEADS.get(tag, "text")
        elif tag in _CELLS:
            self._buffer.append(("", ": ", ", ")[min(self._cells, 2)])
            self._cells += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            self.metadata += _faq_page("".join(self._script))
            self._script = None
        elif tag in self._skipped and tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        elif tag in _STRONG:
            self._bold = _one_line(self._buffer)
        elif tag in _HEADS or tag in _BLOCKS:
            self._flush()

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self._script.append(data)
        elif not self._hidden:
            self._buffer.append(data)

    def close(self) -> None:
        super().close()
        self._flush()

    def _flush(self) -> None:
        text = _one_line(self._buffer)
        if self._kind in {"text", "button"} and text.endswith("?") and (self._kind == "button" or text == self._bold):
            self.blocks.append(Block("question", text))
        elif text and self._kind != "button":
            self.blocks.append(Block(self._kind, text))
        self._buffer.clear()
        self._kind, self._bold, self._cells = "text", "", 0


def _one_line(pieces: Sequence[str]) -> str:
    return re.sub(r"\s+", " ", "".join(pieces)).strip()


def _parsed(text: str, *, quotes: bool = True) -> _Page:
    page = _Page(quotes=quotes)
    page.feed(text)
    page.close()
    return page


def _faq_page(text: str) -> list[Pair]:
    """The pairs of schema.org FAQPage metadata; none when it is something else or broken."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    roots: list[Any] = found if isinstance(found, list) else [found]
    return [pair for root in roots if isinstance(root, dict) for pair in asked_of(root)]


def asked_of(root: Mapping[str, Any]) -> list[Pair]:
    """The questions and accepted answers of a schema.org FAQPage."""
    entries = root.get("mainEntity") if root.get("@type") == "FAQPage" else None
    out = []
    for entry in entries if isinstance(entries, list) else []:
        answer = entry.get("acceptedAnswer") if isinstance(entry, dict) else None
        said = answer.get("text") if isinstance(answer, dict) else None
        asked = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(asked, str) and isinstance(said, str) and asked.strip() and said.strip():
            out.append(Pair(asked.strip(), html_text(said) or said.strip()))
    return out
