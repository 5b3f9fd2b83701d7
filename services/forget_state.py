"""A customer's text outside the replay buffer: open conversations, records under way, the review queue."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import redis

from learner.select import ITEMS, QUEUE
from streams.ledger import Entry, Ledger, Outcome, event_digest

CONVERSATION = "asm:c:"
_ERASED = Entry(Outcome.REMOVED, "erased")


def erase_state(
    client: redis.Redis, key: bytes, ledger_ttl_s: int, customers: Collection[str], conversations: Collection[str]
) -> dict[str, int]:
    """Delete it and file its waiting events as erased; how much of each kind there was. Idempotent."""
    ledger = Ledger(client, key, ledger_ttl_s)
    found = {"conversations": 0, "events": 0, "pending": 0, "review": 0}
    for name in conversations:
        events = [field for field in _fields(client, CONVERSATION + name) if field.startswith("e:")]
        found["events"] += len(events)
        found["conversations"] += int(client.delete(CONVERSATION + name))
        for event in events:
            ledger.move(event_digest(event.removeprefix("e:"), key), _ERASED)
    found["pending"] = _erase_pending(client, set(conversations))
    found["review"] = _erase_review(client, set(customers) | set(conversations))
    for customer in customers:
        client.delete(f"asm:cust:{customer}")
    return found


def _fields(client: redis.Redis, name: str) -> list[str]:
    found: list[Any] = client.hkeys(name)
    return [field.decode() for field in found]


def _erase_pending(client: redis.Redis, conversations: set[str]) -> int:
    """Records that were cut and not yet delivered; what was delivered meets the tombstone."""
    gone = 0
    for part in client.scan_iter("asm:out:*", count=1_000):
        held: dict[Any, Any] = client.hgetall(part)
        for name, raw in held.items():
            _, record_key, _ = msgspec.msgpack.decode(raw)
            if record_key in conversations:
                gone += int(client.hdel(part, name))
    for part in client.scan_iter("asm:open:*", count=1_000):
        if conversations:
            client.srem(part, *conversations)
    return gone


def _erase_review(client: redis.Redis, owners: set[str]) -> int:
    gone = 0
    for sample_id, raw in client.hscan_iter(ITEMS, count=256):
        item = msgspec.json.decode(raw)
        if item.get("customer") in owners or item.get("conversation") in owners:
            gone += int(client.hdel(ITEMS, sample_id))
            client.zrem(QUEUE, sample_id)
    return gone
