"""Forgetting a customer: tombstone in every table, delete in bounded pieces, verify, rewrite the append-only file."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import replace

import redis

from streams.replay.buffer import ReplayBuffer
from streams.replay.rewrite import TRIES, rewritten
from streams.replay.shapes import ErasureReceipt, TableErasure

_ROW = struct.Struct(">8sIIH")
_FOLD = struct.Struct(">III")

_TOMBSTONE = """
redis.call('HDEL', KEYS[1] .. ':n', '-') -- marks the script as writing, so that a full memory does not stop it
local now = redis.call('HGET', KEYS[1] .. ':cfg', 'clock') or redis.call('TIME')[1]
for _, customer in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1] .. ':tomb', now, customer)
  redis.call('SADD', KEYS[1] .. ':er', customer)
end
return now
"""


def tombstone(tables: Sequence[ReplayBuffer], customers: Sequence[bytes]) -> tuple[float, list[ReplayBuffer]]:
    """From here on nothing of these customers enters or is drawn; server time, and the tables that answered."""
    at, reached = 0.0, []
    for table in tables:
        try:
            at = float(table.client.register_script(_TOMBSTONE)(keys=[table.prefix], args=list(customers)))
            reached.append(table)
        except redis.RedisError:
            continue
    return at, reached


def erase_from(table: ReplayBuffer, customers: Sequence[bytes]) -> TableErasure:
    """Delete what one table holds of customers who have their tombstone; idempotent. Raises redis.RedisError."""
    total = TableErasure(table.table)
    for customer in customers:
        total = _merged(total, _erase_one(table, customer))
    return total


def erase(tables: Sequence[ReplayBuffer], customers: Sequence[bytes]) -> ErasureReceipt:
    """Tombstones first, in all tables, then the deletes; the receipt is final only after `rewrite_aof`."""
    at, reached = tombstone(tables, customers)
    done = []
    for table in reached:
        try:
            done.append(erase_from(table, customers))
        except redis.RedisError:
            continue
    unreachable = sorted({table.table for table in tables} - {erased.table for erased in done})
    return ErasureReceipt(tuple(customer.hex() for customer in customers), at, tuple(done), tuple(unreachable))


def resume_erasures(tables: Sequence[ReplayBuffer]) -> int:
    """Finish erasures whose process died between tombstone and deletes; how many customers. Raises redis.RedisError."""
    finished = 0
    for table in tables:
        for customer in table.client.smembers(f"{table.prefix}:er"):
            if isinstance(customer, bytes):
                erase_from(table, [customer])
                finished += 1
    return finished


def erased_so_far(tables: Sequence[ReplayBuffer], customers: Sequence[bytes]) -> int:
    """Samples of these customers that erasures have removed, this one included, while their tombstones stand."""
    return sum(int(table.client.hget(f"{table.prefix}:gone", c) or 0) for table in tables for c in customers)


def rewrite_aof(
    client: redis.Redis, receipt: ErasureReceipt, stop: threading.Event, tries: int = TRIES
) -> ErasureReceipt:
    """The receipt with the time at which a rewrite that began after the erasure ended well; unchanged if none did."""
    if client.info("persistence")["aof_enabled"] and not rewritten(client, stop.wait, tries):
        return receipt
    return replace(receipt, aof_rewritten_at=float(client.time()[0]))


def _erase_one(table: ReplayBuffer, customer: bytes) -> TableErasure:
    digests: list[bytes] = []
    left = 1
    while left:
        rows, left = table.erase_chunk(customer)
        if left and not rows:
            break  # a slot of the set that is not the customer's: an audit names it
        digests += [digest for digest, *_ in _ROW.iter_unpack(rows)]
    if not left:
        table.client.srem(f"{table.prefix}:er", customer)
    return _merged(TableErasure(table.table, tuple(digests), left), _departed(table, customer))


def _departed(table: ReplayBuffer, customer: bytes) -> TableErasure:
    """The steps that trained samples of the customer which have left by now: evicted, expired or erased."""
    total = TableErasure(table.table)
    for key in table.client.scan_iter(f"{table.prefix}:cf:*", count=1_000):
        raw = table.client.hget(key, customer)
        if isinstance(raw, bytes):
            first, last, times = _FOLD.unpack(raw)
            total = _merged(total, TableErasure(table.table, (), 0, first, last, times))
    return total


def _merged(a: TableErasure, b: TableErasure) -> TableErasure:
    steps = [t.first_step for t in (a, b) if t.trainings]
    return TableErasure(
        a.table,
        a.erased + b.erased,
        a.left + b.left,
        min(steps, default=0),
        max(a.last_step, b.last_step),
        a.trainings + b.trainings,
    )
