"""Whether a Redis server keeps what it acknowledges: asked when tables are opened, and while they are in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from streams.replay.config import TableConfig, UnsafeServer

INDEX_BYTES = 240
"""Memory that one sample takes beside its payload, at the most of the servers measured."""

FORK = 1.25
"""Memory while the append-only file is rewritten over memory before it: pages written meanwhile are copied."""


def check_server(
    client: redis.Redis, *, require_aof: bool = True, tables: Sequence[TableConfig] = ()
) -> tuple[str, ...]:
    """Warnings about a server that is safe to use, for these tables. Raises `UnsafeServer`, redis.RedisError."""
    memory, persistence = client.info("memory"), client.info("persistence")
    for problem in unsafe(memory, persistence, require_aof=require_aof):
        raise UnsafeServer(problem)
    return tuple(_warnings(client, memory, persistence, tables))


def unsafe(memory: Mapping[str, Any], persistence: Mapping[str, Any], *, require_aof: bool = True) -> Iterator[str]:
    """What makes a server drop or forget samples, by its INFO: setting, value, rule."""
    policy = memory["maxmemory_policy"]
    if policy != "noeviction":
        yield f"maxmemory_policy = {policy}: wants noeviction, any other drops samples without an error"
    if require_aof and not persistence["aof_enabled"]:
        yield "appendonly = no: wants yes, or acknowledged samples die with the server"


def failing(persistence: Mapping[str, Any]) -> Iterator[str]:
    """What the server says of its append-only file, if it cannot write it."""
    if persistence["aof_enabled"] and persistence["aof_last_write_status"] != "ok":
        yield "the last write of the append-only file failed"


def _warnings(
    client: redis.Redis, memory: Mapping[str, Any], persistence: Mapping[str, Any], tables: Sequence[TableConfig]
) -> Iterator[str]:
    yield from failing(persistence)
    wanted = int(FORK * sum(table.max_bytes + table.capacity * INDEX_BYTES for table in tables))
    if 0 < memory["maxmemory"] < wanted:
        yield f"maxmemory = {memory['maxmemory']}: full tables, their index and a fork want {wanted} bytes"
    try:
        lazy = client.config_get("lazyfree-lazy-expire").get("lazyfree-lazy-expire")
    except redis.ResponseError:  # CONFIG is disabled on many a managed server
        return
    if lazy == "no":
        yield "lazyfree-lazy-expire = no: wants yes, or all calls wait while a bucket of samples expires"
