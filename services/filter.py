"""`driftline filter [FILE]`: what the quality filter would do to a history of chats, as a dry run.

JSONL (or one JSON array) in, from a file (gzip too) or stdin: rows `{"id", "text", "role"?}` (no role: judged as a
reply), chat events (alone or as traffic files hold them, under `value`), or conversations with `turns`, with `messages`
as chat APIs have them (of `content` in parts the text is read, pictures are left out and told) or `conversations` as
ShareGPT has them. The same rows come out on stdout in the same order, with `keep`, `reasons`, `tags` and `scores`; in
conversations each agent or assistant turn gains them, and the row's own `keep` says whether any reply is left. Pairs of
questions and answers, CSV, mbox and pages come out a conversation a line. The summary by reason, with examples, goes to
stderr. Nothing is stored or sent.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services import histories
from services.histories import UNREADABLE, form_of, lines_of
from services.settings import Settings
from services.source_files import agents_of
from services.visible import visible
from streams.events import Role, Turn
from streams.near_copies_store import MemoryCopies, Unit
from streams.quality import QualityConfig, Reason, Verdict, is_echo, judge_turns
from streams.sources.chats import role_of
from streams.sources.turns import Said, event_of, said, turns_of

EXAMPLES = 3
AT_ONCE = 256
"""Rows that are judged together: much cheaper a text than one by one."""
SHORT_WORDS = 4
"""A text alone, without its question, is judged as a repetition only from so many words on: "ok, thanks" is no copy."""


@dataclass
class Summary:
    """What was counted: texts judged, kept, and rejected by reason with a few examples of each."""

    judged: int = 0
    kept: int = 0
    unreadable: int = 0
    unreadable_lines: dict[int, str] = field(default_factory=dict)
    """The first of them, counted from 1, and what each lacks."""
    left_out: int = 0
    """Lines with something that is no text, such as a picture: judged without it."""
    left_out_lines: dict[int, str] = field(default_factory=dict)
    """The first of them, and what it was."""
    reasons: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, number: int, why: str) -> None:
        """Count a line that could not be read."""
        self.unreadable += 1
        if len(self.unreadable_lines) < EXAMPLES:
            self.unreadable_lines[number] = why

    def leave_out(self, number: int, kinds: Iterable[str]) -> None:
        """Count a line with `kinds` of things that are no text."""
        self.left_out += 1
        if len(self.left_out_lines) < EXAMPLES:
            self.left_out_lines[number] = ", ".join(sorted(set(kinds)))

    def add(self, text: str, verdict: Verdict) -> None:
        """Count one verdict."""
        self.judged += 1
        self.kept += verdict.keep
        self.tags.update(verdict.tags)
        for reason in verdict.reasons:
            self.reasons[reason.value] += 1
            shown = self.examples.setdefault(reason.value, [])
            example = visible(" ".join(text.split())[:100])
            if len(shown) < EXAMPLES and example not in shown:
                shown.append(example)


_NAMES = {list: "list: put each of its items on a line", str: "string", int: "number", float: "number"}


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
        self._verdicts: dict[tuple[str, Role], Verdict] = {}

    def rows(self, rows: Iterable[Any]) -> Iterator[dict[str, Any] | BadRow]:
        """Each row with its verdict, or why it has none; all their texts are judged in one go."""
        held = list(rows)
        texts = dict.fromkeys(said for row in held for said in _texts(row))
        self._verdicts = dict(zip(texts, judge_turns(list(texts), self.config), strict=True))
        for row in held:
            try:
                yield self.row(row)
            except BadRow as error:
                yield error

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with its verdict. Raises `BadRow` if it has none of the shapes."""
        if isinstance(row, BadRow):
            raise row
        if not isinstance(row, dict):
            raise BadRow(f"wants an object with `text` or `turns`, is a {_NAMES.get(type(row), 'value')}")
        key = turns_of(row)
        if key:
            return self._conversation(row, key)
        event = event_of(row)
        if event.get("type") in {"feedback", "conversation_closed"}:
            return {**row, **_fields(Verdict(keep=True))}
        one = said(event)
        if one is None or _silent(one):
            raise BadRow(str(row.get("unreadable") or "wants `text` or `turns`, or an event"))
        return {**row, **_fields(self._text(event, one))}

    def _text(self, row: Mapping[str, Any], one: Said) -> Verdict:
        """A row alone, or an event of a conversation that goes on."""
        text, role = one.text, _role(one.role or "agent")
        conversation = row.get("conversation_id") if "type" in row else None
        question = self._questions.get(str(conversation)) if conversation else None
        verdict = self._judge(text, role, (question,) if question else (), alone=conversation is None)
        if conversation and role == "customer":
            self._questions[str(conversation)] = Turn(role="customer", text=text)
        return verdict

    def _conversation(self, row: Mapping[str, Any], key: str) -> dict[str, Any]:
        context: list[Turn] = []
        turns, left = [], False
        found = [one for turn in row[key] if (one := said(turn)) is not None]
        if len(found) < len(row[key]):
            raise BadRow("every turn wants `text` (or `content`), a string or parts")
        for turn, one in zip(row[key], found, strict=True):
            if _silent(one):
                turns.append(turn)
                continue
            role = _role(one.role)
            verdict = self._judge(one.text, role, context, alone=False)
            turns.append({**turn, **_fields(verdict)} if role == "agent" else turn)
            left = left or (role == "agent" and verdict.keep)
            if verdict.keep:
                context.append(Turn(role=role, text=one.text))
        return {**row, key: turns, "keep": left}

    def _judge(self, text: str, role: Role, context: tuple[Turn, ...] | list[Turn], *, alone: bool) -> Verdict:
        verdict = self._verdict(text, role)
        if role == "agent":
            if is_echo(context, text):
                verdict = Verdict(keep=False, reasons=(Reason.DUPLICATE,), scores={Reason.DUPLICATE.value: 1.0})
            verdict = self._with_copies(verdict, text, context, alone=alone)
        elif alone and verdict.keep:
            verdict = self._with_copies(verdict, text, (), alone=True)
        self.summary.add(text, verdict)
        return verdict

    def _verdict(self, text: str, role: Role) -> Verdict:
        found = self._verdicts.get((text, role))
        return found if found is not None else judge_turns([(text, role)], self.config)[0]

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
    parser.add_argument("file", nargs="?", type=Path, help="JSONL, CSV, mbox, Markdown or HTML; or .gz; default stdin")
    histories.arguments(parser)
    parser.add_argument("--json", action="store_true", help="the summary on stderr as one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Judge every row. Returns 0, 1 if a line could not be read (it is passed on as it is), 2 if the file cannot."""
    judge = Judge(settings.quality)
    out = sys.stdout.buffer
    try:
        number = 0
        form = form_of(args.file, args.format)
        for lines in _chunks(lines_of(args.file, form, agents_of(args, settings.ingest.agents))):
            for line, row in zip(lines, judge.rows(_decoded(line) for line in lines), strict=True):
                number += 1
                if isinstance(row, BadRow):
                    judge.summary.skip(number, str(row))
                elif left_out := _left_out(row):
                    judge.summary.leave_out(number, left_out)
                out.write((line if isinstance(row, BadRow) else msgspec.json.encode(row)) + b"\n")
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has seen enough
    except UNREADABLE as error:
        sys.stderr.write(f"driftline filter: {histories.why(args.file, error)}\n")
        return 2
    _report(judge.summary, as_json=args.json)
    return 1 if judge.summary.unreadable else 0


def _chunks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while found := list(islice(lines, AT_ONCE)):
        yield found


def _decoded(line: bytes) -> Any:
    """The line's JSON, or a `BadRow` if it is none."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return BadRow(f"byte {error.start + 1} is not UTF-8; convert the file first")
    return BadRow("is no JSON; wants one whole object a line")


def _role(role: str) -> Role:
    """By which role a turn is judged; a name that nobody knows is a customer's."""
    known = role_of(role) or "customer"
    return "agent" if known == "assistant" else known


def _silent(one: Said) -> bool:
    """True for a turn that holds a picture or the call of a tool and no text: nothing to judge."""
    return bool(one.left_out) and not one.text


def _left_out(row: Mapping[str, Any]) -> list[str]:
    """What in a conversation is no text."""
    return [kind for turn in row.get(turns_of(row)) or () if (one := said(turn)) for kind in one.left_out]


def _texts(row: Any) -> Iterator[tuple[str, Role]]:
    """Every text of a row, with the role that it is judged by."""
    if not isinstance(row, dict):
        return
    key = turns_of(row)
    for turn in row[key] if key else [event_of(row)]:
        one = said(turn)
        if one is not None and not _silent(one):
            yield one.text, _role(one.role or ("" if key else "agent"))


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
    title = f"{summary.judged} judged, {summary.kept} kept"
    if summary.unreadable:
        title += f", {summary.unreadable} lines unreadable"
        for number, why in summary.unreadable_lines.items():
            sys.stderr.write(f"driftline filter: line {number}: {why}\n")
    if summary.left_out:
        title += f", {summary.left_out} judged without what is no text"
        for number, what in summary.left_out_lines.items():
            sys.stderr.write(f"driftline filter: line {number}: left out: {what}\n")
    if not summary.reasons and not summary.tags:
        sys.stderr.write(f"{title}\n")
        return
    table = Table(title=title)
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
