"""`driftline facts`: say that a fact has changed, so that the line stops teaching and judging by the old one.

The learner finds most changes by itself, once several agents have stated a new value. A change that the chats do not
show yet (a price list from Monday on) is named here with the old sentence; samples that state it, in these words or
like ones, leave rehearsal and the gate's held-out sets. The sentence itself is not stored, only hashes of its words.
"""

from __future__ import annotations

import argparse
import json
import sys

from learner.account import LineAccount
from learner.statements import decode_statements, encode_statements, statements
from services.local.redis_server import client
from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command each."""
    parser.add_argument("--line", default="", help="the line (default: the configured one)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what was named so far")
    outdated = actions.add_parser("outdated", help="a sentence with a value that holds no more")
    outdated.add_argument("sentence", help='as agents say it: "You can return it within 14 days."')
    outdated.add_argument("--question", default="", help="how customers ask for it; tells facts apart that sound alike")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """List or name. Returns 0, 1 for a sentence without a value."""
    account = LineAccount(client(settings.redis.url, settings.redis.timeout_s), args.line or settings.train.line)
    if args.action == "outdated":
        named = statements(args.question, args.sentence)
        if not named:
            sys.stderr.write("driftline facts: no value with words around it stands in that sentence\n")
            return 1
        account.name_fact(encode_statements(named))
        values = [what.value for what in named]
    else:
        values = [what.value for raw in account.named_facts() for what in decode_statements(raw)]
    sys.stdout.write(json.dumps({"outdated": values}) + "\n" if args.json else "".join(f"{v}\n" for v in values))
    return 0
