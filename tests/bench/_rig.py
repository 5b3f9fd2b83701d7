"""The stream layer as it runs in production, for benches that break it: Apache Kafka, Redis, workers, a gateway."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from services.local.supervisor import free_port
from services.settings import child_environment
from tests.kafka_broker import KafkaBroker
from tests.servers import RedisServer, executables
from tests.stream_workers import ROOT, Workers, tended, until

START_S = 60.0
API_KEY = "bench"


class Rig:
    """One broker, one Redis and `count` tended workers; everything is ended by `close`."""

    def __init__(
        self, folder: Path, libs: Path, count: int, stream: Mapping[str, object],
        entry: Sequence[str] = ("services.cli", "clean"), *, more: Mapping[str, Mapping[str, object]] = {},
    ) -> None:  # fmt: skip
        """`more` settings of the workers, by section."""
        self.kafka = KafkaBroker(libs, folder / "kafka", free_port(), free_port())
        (folder / "redis").mkdir(parents=True)
        self.redis = RedisServer(next(reversed(executables().values())), folder / "redis")
        self.kafka.start()
        self.redis.start()
        url = f"redis://127.0.0.1:{self.redis.port}/0"
        self.workers = Workers(folder, {"bootstrap": self.kafka.bootstrap}, url, stream, entry)
        self.workers.values.update(more)
        self.restarts = 0
        self._folder = folder
        self._gateway: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self.workers.start()
        self._tending = tended(self.workers, count, self._stop)

    def gateway(self) -> str:
        """Start a gateway; the URL of its API."""
        port, admin = free_port(), free_port()
        environment = child_environment(
            {**self.workers.values, "gateway": {"port": port, "api_keys": {API_KEY: ""}}, "admin": {"port": admin}}
        )
        with (self._folder / "gateway.log").open("wb") as log:
            command = [sys.executable, "-m", "services.cli", "gateway"]
            self._gateway = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        assert until(lambda: _ready(f"http://127.0.0.1:{admin}/readyz"), START_S)
        return f"http://127.0.0.1:{port}"

    def kill_worker(self, rng: random.Random) -> bool:
        """SIGKILL one worker that is ready; False when none is."""
        ready = [p for p in list(self.workers.running) if self.workers.is_ready(p)]
        if ready:
            rng.choice(ready).kill()
            self.workers.killed += 1
        return bool(ready)

    def end_worker(self, rng: random.Random, ended: Counter[str]) -> None:
        """SIGTERM one worker that is ready, and count how it ended: in order, or not within ten seconds."""
        ready = [p for p in list(self.workers.running) if self.workers.is_ready(p)]
        if ready:
            process = rng.choice(ready)
            process.terminate()
            try:
                ended["ended" if process.wait(10) == 0 else "failed"] += 1
            except subprocess.TimeoutExpired:
                ended["hung"] += 1

    def restart_broker(self) -> None:
        """SIGKILL the broker and start it again on what lies on its disk."""
        self.kafka.kill()
        self.kafka.start()
        self.restarts += 1

    def close(self) -> None:
        """End every process."""
        self._stop.set()
        self._tending.join(30)
        self.workers.close()
        if self._gateway is not None:
            self._gateway.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._gateway.wait(15)
        self.kafka.stop()
        self.redis.kill()


@contextmanager
def struck(
    rig: Rig, every_s: Sequence[float], seed: int, blow: Callable[[random.Random], object] | None = None
) -> Iterator[None]:
    """While this runs, `blow` falls every so many seconds; by default a random ready worker is killed."""
    rng, stop = random.Random(seed), threading.Event()

    def strike() -> None:
        while not stop.wait(rng.uniform(*every_s)):
            (blow or rig.kill_worker)(rng)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def jars(path: Path | None) -> Path:
    """The folder of Kafka's jars: the one given, else what `make kafka` fetched."""
    found = path or ROOT / ".kafka/libs"
    if not found.is_dir():
        raise SystemExit(f"{found}: no jars of Apache Kafka; run `make kafka` or give --kafka-libs")
    return found


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200  # ready
    except httpx.HTTPError:
        return False
