"""`driftline forget CUSTOMER`: erase a customer's data everywhere, and prove it with a receipt on stdout.

What Redis holds is erased here and now: tombstones in all tables, deletes, check, rewrite of the append-only file.
The other processes hear of it on privacy.erasures and answer on privacy.receipts. Repeating it is harmless.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import uuid
from dataclasses import asdict
from typing import Any

import redis

from services.forget_state import erase_state
from services.local.redis_server import client
from services.settings import Settings
from streams.erasures import Erasure, decode_receipt, encode
from streams.ledger import Ledger
from streams.replay.erasure import erased_so_far, rewrite_aof
from streams.replay.lineage import seen_by
from streams.replay.shapes import ErasureReceipt
from streams.replay.tables import Tables, open_tables, text
from streams.scrub.identity import conversation_pseudonym, ledger_key, readable_pseudonyms
from streams.topics import ERASURES, RECEIPTS

POLL_S = 0.5
"""Longest wait for a batch of receipts, seconds."""

REWRITE_TRIES = 2_400
"""Looks at a running rewrite of the append-only file, 50 ms apart: two minutes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whom to forget, and how long to wait for the other processes."""
    parser.add_argument("customer", help="the customer's id as your systems know it")
    parser.add_argument("--tenant", default="", help="the tenant that the id belongs to")
    parser.add_argument("--conversation", action="store_true", help="the id is a conversation's that has no customer")
    parser.add_argument("--json", action="store_true", help="accepted; the receipt is always JSON")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for the processes named by --await")
    parser.add_argument("--await", dest="awaited", default="", help="comma-separated processes whose receipt is needed")
    parser.add_argument("--data-only", action="store_true", help="erase the stored data, tell no process")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Forget. Returns 0 with a complete receipt, 1 for an unknown customer or an incomplete erasure, 2 unreachable."""
    if not args.customer.strip():
        return _refused("customer is empty: it must be an id as your systems know it")
    key = ledger_key(settings.keys.keys())
    connection = client(settings.redis.url, settings.redis.timeout_s)
    try:
        tables = open_tables(connection, settings.replay, key)
        customers, conversations = whom(connection, settings, args)
        request, erased = erase(tables, customers, conversations)
        Ledger(connection, key, settings.stream.ledger_ttl_s).erase_samples(request.digests)
        state = erase_state(connection, key, settings.replay.train.ledger_ttl_s, customers, conversations)
        answers = {} if args.data_only else announce(settings, request, args.awaited, args.wait)
        receipt = prove(tables, request, erased, answers, threading.Event())
        receipt["state"] = state
        receipt["known"] = receipt["known"] or any(state.values())
    except redis.RedisError as error:
        return _refused(f"nothing is certain, repeat it: {error}")
    sys.stdout.write(json.dumps(receipt, indent=2) + "\n")
    if not receipt["known"]:
        sys.stderr.write("driftline forget: nothing is stored of this customer; the tombstone is set\n")
    return 0 if receipt["known"] and receipt["complete"] else 1


def _refused(why: str) -> int:
    sys.stderr.write(f"driftline forget: {why}\n")
    return 2


def whom(connection: redis.Redis, settings: Settings, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The pseudonyms under every readable key, and the conversations that one of them has a part in."""
    keys = settings.keys.keys()
    if args.conversation:
        return [], [conversation_pseudonym(keys, args.customer, args.tenant)]
    customers = readable_pseudonyms(keys, "customer", args.customer, args.tenant)
    linked: set[str] = set()
    for customer in customers:
        linked |= {text(raw) for raw in connection.smembers(f"asm:cust:{customer}")}
    return customers, sorted(linked)


def erase(tables: Tables, customers: list[str], conversations: list[str]) -> tuple[Erasure, ErasureReceipt]:
    """Tombstones and deletes in every table: what to tell the other processes, and what was erased."""
    erased = tables.erase([*customers, *conversations])
    request = Erasure(
        erasure_id=str(uuid.uuid4()),
        customers=tuple(customers),
        conversations=tuple(conversations),
        digests=tuple(digest.hex() for table in erased.tables for digest in table.erased),
        first_step=min((table.first_step for table in erased.tables if table.trainings), default=0),
        first_steps={table.table: table.first_step for table in erased.tables if table.trainings},
        requested_at=erased.at,
    )
    return request, erased


def announce(settings: Settings, request: Erasure, awaited: str, wait_s: float) -> dict[str, bool]:
    """Tell every process, and wait for the answers of those that were named: process -> complete."""
    from services.topic_feed import TopicFeed, make_producer  # noqa: PLC0415 - loads librdkafka

    answers = dict.fromkeys((name for name in awaited.split(",") if name), False)
    producer = make_producer(settings.kafka.asked_once("forget"))
    key = (*request.customers, *request.conversations)[0]
    producer.produce(settings.kafka.prefix + ERASURES, key=key, value=encode(request))
    if producer.flush(max(wait_s, 1.0)):
        return {"broker": False, **answers}
    feed = TopicFeed(settings.kafka.asked_once("forget"), [RECEIPTS], time.monotonic, prefix=settings.kafka.prefix)
    deadline = time.monotonic() + wait_s
    while not all(answers.values()) and time.monotonic() < deadline:
        for record in feed.poll(POLL_S):
            answer = decode_receipt(record.value) if record.value else None
            if answer is not None and answer.erasure_id == request.erasure_id and answer.process in answers:
                answers[answer.process] = answer.complete
    feed.close()
    return {"broker": True, **answers}


def prove(
    tables: Tables, request: Erasure, erased: ErasureReceipt, answers: dict[str, bool], stop: threading.Event
) -> dict[str, Any]:
    """Rewrite the append-only file, after all deletes, and write the receipt."""
    clean = rewrite_aof(tables.client, erased, stop, REWRITE_TRIES)
    digests = [digest for table in clean.tables for digest in table.erased]
    seen = [seen_by(table, *digests) for table in tables.trained]
    names = [*request.customers, *request.conversations]
    so_far = erased_so_far(tables.all, [tables.train.customer_digest(name) for name in names])
    return {
        "erasure_id": request.erasure_id,
        "known": so_far > 0 or any(table.trainings for table in clean.tables),
        "complete": clean.complete and all(answers.values()),
        "items": clean.items,
        "erased_before": so_far - clean.items,
        "pseudonyms": names,
        "tombstone_at": clean.at,
        "tables": [{**asdict(table), "erased": [digest.hex() for digest in table.erased]} for table in clean.tables],
        "unreachable": list(clean.unreachable),
        "steps": [list(step) for one in seen for step in one.steps],
        "lineage_complete_from": max(one.complete_from for one in seen),
        "aof_rewritten_at": clean.aof_rewritten_at,
        "backups": clean.backups,
        "receipts": answers,
    }
