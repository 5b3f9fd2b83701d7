"""`driftline review`: the replies that a person should look at: list, show, approve, edit, reject, rate.

A decision is produced on review.decisions and acts like any feedback: clean scrubs an edited text and annotates the
stored sample. The item leaves the queue once the broker has the decision.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from learner.select import ReviewItem, ReviewQueue
from services.options import positive
from services.review_desk import Undelivered, desk, queue_of
from services.settings import Settings
from services.visible import visible


def arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command each."""
    parser.add_argument("--json", action="store_true", help="items as JSON, one a line")
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="the items that matter most")
    listed.add_argument("--count", type=positive, default=20)
    for name, text in (
        ("show", "one item in full"),
        ("approve", "a good reply; out of quarantine if it waits there"),
        ("reject", "a reply to unlearn; deleted if it waits in quarantine"),
    ):
        actions.add_parser(name, help=text).add_argument("sample_id")
    rate = actions.add_parser("rate", help="1 (bad) to 5 (good)")
    rate.add_argument("sample_id")
    rate.add_argument("stars", type=int, choices=range(1, 6))
    edit = actions.add_parser("edit", help="the reply as it should have been; read from stdin if left out")
    edit.add_argument("sample_id")
    edit.add_argument("text", nargs="?")
    for action in actions.choices.values():
        action.add_argument("--reviewer", default="", help="who decides; kept with the decision")
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as before the action")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Show or decide. Returns 1 if there is no such item, 2 if Kafka does not take the decision."""
    queue = queue_of(settings)
    if args.action == "list":
        return _list(queue, args.count, as_json=args.json)
    item = queue.get(args.sample_id)
    if item is None:
        sys.stderr.write(f"driftline review: no item {args.sample_id} in the queue\n")
        return 1
    return _show(item, as_json=args.json) if args.action == "show" else _decide(item, args, settings)


def _decide(item: ReviewItem, args: argparse.Namespace, settings: Settings) -> int:
    clock = time.time  # noqa: TID251 - the composition root hands the clock on
    text = _text(args) if args.action == "edit" else None
    try:
        made = desk(settings, "review", clock).decide(
            item, args.action, args.reviewer, stars=vars(args).get("stars"), text=text
        )
    except (ValueError, Undelivered) as error:
        sys.stderr.write(f"driftline review: {error}\n")
        return 2
    sys.stdout.write(f"{made.action} {item.sample_id}\n")
    return 0


def _text(args: argparse.Namespace) -> str:
    given: str | None = args.text
    if given is None and sys.stdin.isatty():
        sys.stderr.write("the reply as it should have been; Ctrl-D ends it, Ctrl-C leaves all as it is\n")
    return given if given is not None else sys.stdin.read().strip()


def _list(queue: ReviewQueue, count: int, *, as_json: bool) -> int:
    items = queue.list(count)
    if as_json:
        for item in items:
            sys.stdout.write(json.dumps(_plain(item)) + "\n")
        return 0
    table = Table(title=f"{len(items)} of {queue.waiting()} to review")
    for heading in ("sample", "why", "score", "topic", "question", "reply"):
        table.add_column(heading, overflow="fold")
    for item in items:
        said = (escape(visible(text)) for text in (item.topic, item.question, item.reply))
        table.add_row(item.sample_id, item.reason, f"{item.score:.2f}", *said)
    Console().print(table)
    return 0


def _show(item: ReviewItem, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(_plain(item)) + "\n")
        return 0
    sys.stdout.write(f"{item.sample_id}  {item.reason} {item.score:.2f}  topic {item.topic}\n")
    for turn in item.turns:
        # a line of a text is set in, so that none looks like a turn
        told = visible(turn.text).replace("\n", "\n      ")
        sys.stdout.write(f"{'>' if turn.is_target else ' '} {turn.role}: {told}\n")
    return 0


def _plain(item: ReviewItem) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(item)
    return plain
