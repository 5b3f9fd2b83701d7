"""`driftline review`: the replies that a person should look at: list, show, approve, edit, reject, rate.

A decision is produced on review.decisions and acts like any feedback: clean scrubs an edited text and annotates the
stored sample. The item leaves the queue once the broker has the decision.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from typing import Any

import msgspec
from confluent_kafka import Producer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from learner.select import ReviewItem, ReviewQueue
from services.local.redis_server import client
from services.settings import Settings
from streams import review
from streams.topics import REVIEW_DECISIONS

TIMEOUT_S = 10.0
"""Longest wait for the broker's acknowledgment of a decision, seconds."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command each."""
    parser.add_argument("--json", action="store_true", help="items as JSON, one a line")
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="the items that matter most")
    listed.add_argument("--count", type=int, default=20)
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
    queue = ReviewQueue(client(settings.redis.url, settings.redis.timeout_s), settings.select)
    try:
        return _list(queue, args.count, as_json=args.json) if args.action == "list" else _one(queue, args, settings)
    except ValueError as error:
        sys.stderr.write(f"driftline review: {error}\n")
    return 2


def _one(queue: ReviewQueue, args: argparse.Namespace, settings: Settings) -> int:
    """Show one item or decide about it; it leaves the queue once the broker has the decision."""
    item = queue.get(args.sample_id)
    if item is None:
        sys.stderr.write(f"driftline review: no item {args.sample_id} in the queue\n")
        return 1
    if args.action == "show":
        return _show(item, as_json=args.json)
    made = decide(item, args, at=time.time_ns() / 1e9)
    if not _send(_producer(settings), settings.kafka.prefix + REVIEW_DECISIONS, made):
        sys.stderr.write("driftline review: the broker did not take the decision; the item stays in the queue\n")
        return 2
    queue.done(item.sample_id)
    sys.stdout.write(f"{made.action} {item.sample_id}\n")
    return 0


def decide(item: ReviewItem, args: argparse.Namespace, at: float) -> review.Decision:
    """The decision about an item at time `at`. Raises ValueError if an edit has no text."""
    drafts = [turn.text for turn in item.turns if turn.is_target]
    editing = args.action == "edit"
    text = (args.text if args.text is not None else sys.stdin.read()) if editing else None
    return review.Decision(
        decision_id=f"review-{uuid.uuid4()}", sample_id=item.sample_id, conversation=item.conversation,
        # an edit is of the last reply; other decisions are of all replies of the sample
        targets=item.targets[-1:] if editing else item.targets, action=args.action, at=at,
        rating=float(args.stars) if args.action == "rate" else None, text=text,
        draft=drafts[-1] if editing and drafts else None, reviewer=args.reviewer, lane=item.lane,
        home=item.home,
    )  # fmt: skip


def _producer(settings: Settings) -> Producer:
    more: dict[str, str | bool] = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
    return Producer(settings.kafka.client("review", **more))


def _send(producer: Producer, topic: str, decision: review.Decision) -> bool:
    delivered: list[bool] = []

    def report(error: Any, _: Any) -> None:
        delivered.append(error is None)

    producer.produce(topic, key=decision.conversation, value=review.encode(decision), on_delivery=report)
    producer.flush(TIMEOUT_S)
    return delivered == [True]


def _list(queue: ReviewQueue, count: int, *, as_json: bool) -> int:
    items = queue.list(count)
    if as_json:
        for item in items:
            sys.stdout.write(json.dumps(_plain(item)) + "\n")
        return 0
    table = Table(title=f"{len(items)} to review")
    for heading in ("sample", "why", "score", "topic", "question", "reply"):
        table.add_column(heading, overflow="fold")
    for item in items:
        question = next((t.text for t in reversed(item.turns) if t.role == "customer"), "")
        reply = next((t.text for t in reversed(item.turns) if t.is_target), "")
        table.add_row(item.sample_id, item.reason, f"{item.score:.2f}", item.topic, escape(question), escape(reply))
    Console().print(table)
    return 0


def _show(item: ReviewItem, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(_plain(item)) + "\n")
        return 0
    sys.stdout.write(f"{item.sample_id}  {item.reason} {item.score:.2f}  topic {item.topic}\n")
    for turn in item.turns:
        sys.stdout.write(f"{'>' if turn.is_target else ' '} {turn.role}: {turn.text}\n")
    return 0


def _plain(item: ReviewItem) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(item)
    return plain
