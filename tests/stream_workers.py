"""Real stream workers for tests: started as processes of their own, killed by pid, judged by the ledger."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Producer

from services.local import redis_server
from services.local.supervisor import free_port
from services.settings import Settings, child_environment, load
from streams.events import Closed, Feedback, Message, Role, encode, isoformat
from streams.ledger import Entry, Ledger
from streams.scrub.identity import ledger_key
from streams.topics import CHATS_RAW
from tests.conversations import START, said

ROOT = Path(__file__).resolve().parents[1]
READY_S = 60.0
Record = tuple[bytes, bytes]
"""Key and value on chats.raw."""


class Workers:
    """Processes `driftline clean` against one broker and one Redis."""

    def __init__(
        self, folder: Path, kafka: Mapping[str, object], redis_url: str, stream: Mapping[str, object] | None = None,
        entry: Sequence[str] = ("services.cli", "clean"),
    ) -> None:  # fmt: skip
        """`entry` is the module that runs a worker, with its arguments."""
        self._folder = folder
        self._entry = tuple(entry)
        self.values: dict[str, Mapping[str, object]] = {
            "kafka": kafka, "redis": {"url": redis_url}, "keys": {"ring": {"k1": "a1" * 32}, "fixed": "b2" * 32},
            "stream": {"gap_s": 3, "idle_s": 6, "emit_after_s": 1, "rating_wait_s": 3, "session_timeout_s": 3,
                       **(stream or {})},
        }  # fmt: skip
        self.running: dict[subprocess.Popen[bytes], int] = {}
        self.killed = 0

    @property
    def environment(self) -> dict[str, str]:
        """What the processes find their settings in."""
        return {**child_environment(self.values), "OMP_NUM_THREADS": "1"}

    @property
    def settings(self) -> Settings:
        """The same settings, for this process."""
        return load(environment={k: v for k, v in self.environment.items() if k.startswith("DRIFTLINE_")})

    def start(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """One more worker; with `wait` it is ready when this returns."""
        port = free_port()
        environment = {**self.environment, **child_environment({"admin": {"port": port}})}
        environment = {**environment, "DRIFTLINE_ADMIN__PORT": str(port)}
        with (self._folder / "clean.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *self._entry], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        self.running[process] = port
        if wait:
            until(lambda: self.is_ready(process) or process.poll() is not None, READY_S)
            assert process.poll() is None, self.log()
        return process

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it has said so on /readyz."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.running[process]}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def ready(self, timeout_s: float) -> list[subprocess.Popen[bytes]]:
        """Those that say so, as soon as one does."""
        found: list[subprocess.Popen[bytes]] = []

        def look() -> bool:
            found[:] = [process for process in list(self.running) if self.is_ready(process)]
            return bool(found)

        until(look, timeout_s)
        return found

    def metrics(self, process: subprocess.Popen[bytes]) -> str:
        """What it says on /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.running[process]}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End it as a crash does."""
        process.kill()
        process.wait(10)
        self.killed += 1
        del self.running[process]

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """End it in good order; its exit code."""
        process.send_signal(signal.SIGTERM)
        del self.running[process]
        return process.wait(10)

    def close(self) -> None:
        """End all that still run."""
        for process in list(self.running):
            process.kill()
            process.wait(10)

    def log(self) -> str:
        """What the workers have logged."""
        return (self._folder / "clean.log").read_text()

    def command(self, *arguments: str) -> tuple[int, str]:
        """A command of driftline against the same broker and Redis: exit code and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments], cwd=ROOT, env=self.environment, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode() + done.stderr.decode()


def tended(workers: Workers, count: int, stop: threading.Event) -> threading.Thread:
    """Keep `count` workers running, as a supervisor does."""

    def tend() -> None:
        while not stop.wait(0.3):
            for process in [p for p in workers.running if p.poll() is not None]:
                del workers.running[process]
            while len(workers.running) < count and not stop.is_set():
                workers.start(wait=False)

    thread = threading.Thread(target=tend, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.1) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    pause = threading.Event()
    for _ in range(int(timeout_s / every_s)):
        if condition():
            return True
        pause.wait(every_s)
    return condition()


def raw_chats(n: int, seed: int, *, turns: int = 6) -> dict[str, list[Record]]:
    """Chat events as senders write them, by conversation: turns, a close and for some a rating."""
    rng = random.Random(seed)
    chats = {}
    roles: list[Role] = ["customer", "agent"]
    for number in range(n):
        name = f"chat-{seed}-{number}"
        key = name.encode()
        count = rng.randrange(2, turns + 1)
        base: dict[str, Any] = {"conversation_id": name}
        events: list[Message | Closed | Feedback] = [
            Message(
                event_id=f"{name}-{seq}", seq=seq, ts=isoformat(START + seq), text=said(rng, role), role=role, **base
            )
            for seq, role in enumerate(roles * count)
        ]
        end = len(events)
        events.append(Closed(event_id=f"{name}-end", seq=end, ts=isoformat(START + 60), turns=end, **base))
        if number % 5 == 0:
            events.append(Feedback(event_id=f"{name}-rate", seq=end + 1, ts=isoformat(START + 70), rating=1.0, **base))
        chats[name] = [(key, encode(event)) for event in events]
    return chats


def interleaved(chats: Mapping[str, Sequence[Record]], seed: int, *, repeats: float = 0.02) -> list[Record]:
    """One stream of all chats, each in its order, some records twice."""
    rng = random.Random(seed)
    queues = [list(records) for records in chats.values()]
    found: list[Record] = []
    while queues:
        queue = rng.choice(queues[:50])
        found.append(queue.pop(0))
        if rng.random() < repeats:
            found.append(rng.choice(found[-200:]))
        if not queue:
            queues.remove(queue)
    return found


def produce(
    bootstrap: str,
    records: Sequence[Record],
    *,
    every: int = 0,
    pause: Callable[[], None] | None = None,
    prefix: str = "",
) -> None:
    """Put records on chats.raw in order; call `pause` after `every` records."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
    )
    for number, (key, value) in enumerate(records, 1):
        producer.produce(prefix + CHATS_RAW, value=value, key=key)
        producer.poll(0)
        if every and number % every == 0:
            assert producer.flush(60) == 0
            if pause is not None:
                pause()
    assert producer.flush(60) == 0


def entries(workers: Workers, records: Sequence[Record]) -> dict[str, Entry | None]:
    """The ledger's entry of each distinct event."""
    settings = workers.settings
    ledger = Ledger(connection(workers), ledger_key(settings.keys.keys()), 1_000)
    names = list(dict.fromkeys(str(json.loads(value)["event_id"]) for _, value in records))
    found: list[Entry | None] = []
    for at in range(0, len(names), 2_000):
        found += ledger.read([ledger.digest(name) for name in names[at : at + 2_000]])
    return dict(zip(names, found, strict=True))


def outcomes(found: Mapping[str, Entry | None]) -> Counter[str]:
    """Events by outcome; `none` for those that the ledger does not know."""
    return Counter("none" if entry is None else entry.outcome.value for entry in found.values())


def settled(workers: Workers, records: Sequence[Record], timeout_s: float) -> dict[str, Entry | None]:
    """The entries once nothing is waiting or unknown any more; as they are when the time is over."""
    last: dict[str, Entry | None] = {}

    def done() -> bool:
        last.clear()
        last.update(entries(workers, records))
        counts = outcomes(last)
        return not counts["none"] and not counts["waiting"]

    until(done, timeout_s, 0.5)
    return last


def connection(workers: Workers) -> redis.Redis:
    """A client on the workers' Redis."""
    return redis_server.client(str(workers.values["redis"]["url"]))
