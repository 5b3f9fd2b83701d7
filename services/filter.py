"""`driftline filter [FILE]`: what the quality filter would do to a history of chats, as a dry run.

JSONL in, from a file (gzip too) or stdin: rows `{"id", "text", "role"?}` (no role: judged as a reply), chat events, or
conversations with `turns`. The same rows come out on stdout in the same order, with `keep`, `reasons`, `tags` and
`scores`; in conversations each agent or assistant turn gains them, and the row's own `keep` says whether any reply is
left. The summary by reason, with examples, goes to stderr. Nothing is stored or sent.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.settings import Settings
from streams.events import Turn
from streams.near_copies_store import MemoryCopies, Unit
from streams.quality import QualityConfig, Reason, Verdict, judge_reply, judge_turn

REPLIES = ("agent", "assistant")
EXAMPLES = 3
SHORT_WORDS = 4
"""A text alone, without its question, is judged as a repetition only from so many words on: "ok, thanks" is no copy."""


@dataclass
class Summary:
    """What was counted: texts judged, kept, and rejected by reason with a few examples of each."""

    judged: int = 0
    kept: int = 0
    unreadable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, text: str, verdict: Verdict) -> None:
        """Count one verdict."""
        self.judged += 1
        self.kept += verdict.keep
        self.tags.update(verdict.tags)
        for reason in verdict.reasons:
            self.reasons[reason.value] += 1
            shown = self.examples.setdefault(reason.value, [])
            if len(shown) < EXAMPLES:
                shown.append(" ".join(text.split())[:100])


class BadRow(ValueError):
    """A row that is neither a text, nor an event, nor a conversation."""


class Judge:
    """Judges rows one after another; it remembers earlier texts, so that repetitions are found."""

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self.summary = Summary()
        self._copies = MemoryCopies(config)
        self._questions: dict[str, Turn] = {}
        self._count = 0

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its verdict. Raises `BadRow` if it has none of the three shapes."""
        if isinstance(row.get("turns"), list):
            return self._conversation(row)
        if row.get("type") in {"feedback", "conversation_closed"}:
            return {**row, **_fields(Verdict(keep=True))}
        if not isinstance(row.get("text"), str):
            raise BadRow("a row wants `text` or `turns`")
        return {**row, **_fields(self._text(row))}

    def _text(self, row: Mapping[str, Any]) -> Verdict:
        """A row alone, or an event of a conversation that goes on."""
        text, role = str(row["text"]), str(row.get("role") or "agent")
        conversation = row.get("conversation_id") if "type" in row else None
        question = self._questions.get(str(conversation)) if conversation else None
        verdict = self._judge(text, role, (question,) if question else (), alone=conversation is None)
        if conversation and role == "customer":
            self._questions[str(conversation)] = Turn(role="customer", text=text)
        return verdict

    def _conversation(self, row: Mapping[str, Any]) -> dict[str, Any]:
        context: list[Turn] = []
        turns, left = [], False
        for turn in row["turns"]:
            role, text = str(turn.get("role")), str(turn.get("text"))
            verdict = self._judge(text, role, context, alone=False)
            turns.append({**turn, **_fields(verdict)} if role in REPLIES else turn)
            left = left or (role in REPLIES and verdict.keep)
            if verdict.keep:
                context.append(Turn(role="customer" if role not in REPLIES else "agent", text=text))
        return {**row, "turns": turns, "keep": left}

    def _judge(self, text: str, role: str, context: tuple[Turn, ...] | list[Turn], *, alone: bool) -> Verdict:
        if role in REPLIES:
            verdict = self._with_copies(judge_reply(context, text, self.config), text, context, alone=alone)
        else:
            verdict = judge_turn(text, "system" if role == "system" else "customer", self.config)
            if alone and verdict.keep:
                verdict = self._with_copies(verdict, text, (), alone=True)
        self.summary.add(text, verdict)
        return verdict

    def _with_copies(self, verdict: Verdict, text: str, context: Any, *, alone: bool) -> Verdict:
        """The verdict with near copies among what was read before."""
        question = next((turn.text for turn in reversed(context) if turn.role == "customer"), "")
        if not verdict.keep or (alone and len(text.split()) < SHORT_WORDS):
            return verdict
        self._count += 1
        unit = Unit(str(self._count), question, text)
        copies = self._copies.look([unit])[0]
        filed = self._copies.file(unit, copies, unit.member, "", 0.0)
        tags = (*verdict.tags, *copies.tags, *(filed.verdict(self.config)[1] if not alone else ()))
        if copies.reason is None:
            return Verdict(keep=True, tags=tags, scores=verdict.scores)
        return Verdict(
            keep=False, reasons=(copies.reason,), tags=tags, scores={**verdict.scores, copies.reason.value: 1.0}
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    """One file or stdin."""
    parser.add_argument("file", nargs="?", type=Path, help="JSONL, gzip or not; stdin if left out")
    parser.add_argument("--json", action="store_true", help="the summary on stderr as one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Judge every row. Returns 0, or 1 if a line could not be read (it is passed on as it is)."""
    judge = Judge(settings.quality)
    out = sys.stdout.buffer
    for line in _lines(args.file):
        try:
            row = msgspec.json.decode(line)
            out.write(msgspec.json.encode(judge.row(row)) + b"\n")
        except (msgspec.DecodeError, ValueError, AttributeError, TypeError):
            judge.summary.unreadable += 1
            out.write(line + b"\n")
    out.flush()
    _report(judge.summary, as_json=args.json)
    return 1 if judge.summary.unreadable else 0


def _lines(path: Path | None) -> Iterator[bytes]:
    if path is None:
        yield from _rows(sys.stdin.buffer)
        return
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    if packed:
        with gzip.open(path) as file:
            yield from _rows(file)
    else:
        with path.open("rb") as plain:
            yield from _rows(plain)


def _rows(file: Iterable[bytes]) -> Iterator[bytes]:
    for line in file:
        if line.strip():
            yield line.rstrip(b"\r\n")


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {
        "keep": verdict.keep,
        "reasons": [reason.value for reason in verdict.reasons],
        "tags": list(verdict.tags),
        "scores": {code: round(score, 4) for code, score in verdict.scores.items()},
    }


def _report(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.buffer.write(msgspec.json.encode(summary) + b"\n")
        return
    table = Table(title=f"{summary.judged} judged, {summary.kept} kept, {summary.unreadable} lines unreadable")
    for heading in ("reason", "rejected", "share", "examples"):
        table.add_column(heading, overflow="fold")
    ordered = [reason.value for reason in Reason if reason.value in summary.reasons]
    for reason in sorted(ordered, key=lambda r: -summary.reasons[r]):
        count = summary.reasons[reason]
        shown = "\n".join(escape(text) for text in summary.examples[reason])
        table.add_row(reason, str(count), f"{count / max(1, summary.judged):.1%}", shown)
    for tag, count in sorted(summary.tags.items()):
        table.add_row(f"({tag})", str(count), f"{count / max(1, summary.judged):.1%}", "kept, tagged")
    Console(stderr=True).print(table)
