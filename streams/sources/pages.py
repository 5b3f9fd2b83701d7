"""FAQ and product pages, Markdown or HTML, as pairs of question and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any, Literal

from streams.sources.chats import Chat, Line, Unreadable

MIN_ANSWER = 8
"""Characters that a section needs to count as an answer; shorter ones are labels and buttons."""

Kind = Literal["title", "heading", "question", "text"]


@dataclass(frozen=True, repr=False)
class Block:
    """A piece of a page."""

    kind: Kind
    text: str


def markdown(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The question and answer pairs of a Markdown page."""
    yield from _chats(pairs(_markdown_blocks(text)), name)


def html(text: str, name: str = "page") -> Iterator[Chat | Unreadable]:
    """The pairs of an HTML page: FAQPage metadata where it has some, else headings, `dl` and `details`."""
    page = _parsed(text)
    yield from _chats(page.metadata or pairs(page.blocks), name)


def html_text(text: str) -> str:
    """The visible text of HTML, a line a block; quoted mail is left out."""
    return "\n".join(block.text for block in _parsed(text, quotes=False).blocks)


def pairs(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """(question, answer): a heading and the text below it; headings that ask nothing become a question about them."""
    title, head, answer = "", "", list[str]()
    found: list[tuple[str, str]] = []

    def close() -> None:
        said = "\n".join(answer).strip()
        if head and len(said) >= MIN_ANSWER:
            found.append((head, said))

    for block in blocks:
        if block.kind == "text":
            answer.append(block.text)
            continue
        close()
        answer.clear()
        if block.kind == "title" and not block.text.endswith("?"):
            title = block.text
        head = _question(block, title)
    close()
    return found


def _question(block: Block, title: str) -> str:
    if block.kind == "question" or block.text.endswith("?"):
        return block.text
    about = block.text if not title or title == block.text else f"{title}: {block.text}"
    return f"What can you tell me about {about}?"


def _chats(found: Sequence[tuple[str, str]], name: str) -> Iterator[Chat | Unreadable]:
    if not found:
        yield Unreadable(1, "no_pairs")
    for question, answer in found:
        digest = sha256(f"{question}\x1f{answer}".encode(errors="surrogatepass")).hexdigest()[:16]
        yield Chat(f"{name[:80]}-{digest}", (Line("customer", question), Line("agent", answer)), "faq")


_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_ASKED = re.compile(r"^\**\s*(?:Q|Question|Frage)\s*\d*\s*[:.)]\**\s*(.+?)\**\s*$", re.IGNORECASE)
_SAID = re.compile(r"^\**\s*(?:A|Answer|Antwort)\s*\d*\s*[:.)]\**\s*(.+)$", re.IGNORECASE)
_BOLD = re.compile(r"^\*\*([^*]+\?)\*\*\s*$")


def _markdown_blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    fenced = False
    # Front matter is for the site generator.
    for line in re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), flags=re.DOTALL).split("\n"):
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


def _inline(text: str) -> str:
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", "", text)
    return re.sub(r"(\*\*|__|`|(?<!\w)[*_](?=\w)|(?<=[\w.!?])[*_](?!\w))", "", text).strip()


_BLOCKS = frozenset(["p", "div", "li", "tr", "dd", "br", "section", "article", "blockquote", "table", "ul", "pre"])
_SKIPPED = frozenset(
    ["script", "style", "nav", "footer", "header", "form", "button", "noscript", "svg", "template", "head"]
)
_HEADS: dict[str, Kind] = {
    "h1": "title", "h2": "heading", "h3": "heading", "h4": "heading", "h5": "heading", "h6": "heading",
    "dt": "question", "summary": "question",
}  # fmt: skip


class _Page(HTMLParser):
    """Collects blocks of visible text and FAQPage metadata."""

    def __init__(self, *, quotes: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.metadata: list[tuple[str, str]] = []
        self._skipped = _SKIPPED if quotes else _SKIPPED | {"blockquote"}
        self._kind: Kind = "text"
        self._buffer: list[str] = []
        self._hidden: list[str] = []
        self._script: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and dict(attrs).get("type") == "application/ld+json":
            self._script = []
        elif tag in self._skipped:
            self._flush()
            self._hidden.append(tag)
        elif not self._hidden and (tag in _HEADS or tag in _BLOCKS):
            self._flush()
            self._kind = _HEADS.get(tag, "text")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            self.metadata += _faq_page("".join(self._script))
            self._script = None
        elif tag in self._skipped and tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
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
        text = re.sub(r"\s+", " ", "".join(self._buffer)).strip()
        if text:
            self.blocks.append(Block(self._kind, text))
        self._buffer.clear()
        self._kind = "text"


def _parsed(text: str, *, quotes: bool = True) -> _Page:
    page = _Page(quotes=quotes)
    page.feed(text)
    page.close()
    return page


def _faq_page(text: str) -> list[tuple[str, str]]:
    """The pairs of schema.org FAQPage metadata; none when it is something else or broken."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    roots: list[Any] = found if isinstance(found, list) else [found]
    out = []
    for root in roots:
        entries = root.get("mainEntity") if isinstance(root, dict) and root.get("@type") == "FAQPage" else None
        for entry in entries if isinstance(entries, list) else []:
            answer = entry.get("acceptedAnswer") if isinstance(entry, dict) else None
            said = answer.get("text") if isinstance(answer, dict) else None
            asked = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(asked, str) and isinstance(said, str) and asked.strip() and said.strip():
                out.append((asked.strip(), html_text(said) or said.strip()))
    return out
