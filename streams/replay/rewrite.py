"""Rewriting the append-only file: after an erasure, and before the first write to a server that has just started."""

from __future__ import annotations

from collections.abc import Callable

import redis

from streams.replay.config import UnsafeServer

TRIES = 2_400
"""Looks at a running rewrite: two minutes."""

_POLL_S = 0.05
"""Pause between two looks at a running rewrite; one takes tens of milliseconds a gigabyte to fork, seconds to write."""

_SETTLED = "{rb:src}:aof"
"""The run id of the server start for which the file was last rewritten."""


def settle(client: redis.Redis, pause: Callable[[float], bool], tries: int = TRIES) -> bool:
    """Rewrite the file once for each start of a server, before anything is written; whether that was due.

    Redis cuts a torn file behind its last whole command, not before the open MULTI, and appends to it: the start after
    next would run half of a script. `pause(seconds)` gives True to give up. Raises `UnsafeServer` if no rewrite ends
    well, and redis.RedisError; then nothing was written.
    """
    run_id = str(client.info("server")["run_id"])
    last = client.get(_SETTLED)
    if not client.info("persistence")["aof_enabled"] or last in {run_id, run_id.encode()}:
        return False
    if not rewritten(client, pause, tries):
        raise UnsafeServer("the append-only file could not be rewritten after the server's start; its log says why")
    client.set(_SETTLED, run_id)
    return True


def rewritten(client: redis.Redis, pause: Callable[[float], bool], tries: int = TRIES) -> bool:
    """Whether a rewrite that began after this call ended well. Raises redis.RedisError where none may begin."""
    if not (_wait(client, pause, tries, _start) and _wait(client, pause, tries, _idle)):
        return False
    return bool(client.info("persistence")["aof_last_bgrewrite_status"] == "ok")


def _start(client: redis.Redis) -> bool:
    """Start a rewrite; False while one runs that may have begun before the call."""
    try:
        client.bgrewriteaof()
    except redis.ResponseError as error:
        if "in progress" not in str(error):
            raise
        return False
    return True


def _idle(client: redis.Redis) -> bool:
    info = client.info("persistence")
    return not (info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def _wait(client: redis.Redis, pause: Callable[[float], bool], tries: int, done: Callable[[redis.Redis], bool]) -> bool:
    for _ in range(tries):
        if done(client):
            return True
        if pause(_POLL_S):
            return False
    return False
