"""The replay buffer under crashes, long form of tests/faults/test_replay.py: kills, cut files, redelivery, fuzz.

    driftline bench replay_faults [--kills N] [--cuts N] [--fuzz OPERATIONS]

On every server found: kill -9 at random moments under everysec and always, append-only files cut at random bytes,
random operations audited throughout. A failed check ends it with its assertion.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.bench._heading import heading, table
from tests.faults.test_replay import Traffic, crash, cuts
from tests.replay_fuzz import Fuzzer
from tests.servers import RedisServer, executables

T = TypeVar("T")


def main(argv: list[str]) -> int:
    """Print what was survived. Returns 0; a violation raises AssertionError."""
    parser = argparse.ArgumentParser(prog="driftline bench replay_faults")
    parser.add_argument("--kills", type=int, default=26, help="of each server, half of them at appendfsync everysec")
    parser.add_argument("--cuts", type=int, default=100, help="of each server's append-only file")
    parser.add_argument("--fuzz", type=int, default=1_500, help="random operations of each server")
    args = parser.parse_args(argv)
    rows = [["server", "kills", "acknowledged", "redelivered", "doubled", "cuts", "fuzz", "audits failed"]]
    for name, executable in executables().items():
        rows.append(_row(name, executable, args))
    sys.stdout.write(heading("replay_faults", argv) + "\n" + table(rows) + "\n")
    return 0


def _row(name: str, executable: str, args: argparse.Namespace) -> list[str]:
    half = args.kills // 2
    acknowledged, again = (
        sum(counts)
        for counts in zip(
            _in_folder(lambda folder: _kills(executable, folder, half, "everysec")),
            _in_folder(lambda folder: _kills(executable, folder, half, "always")),
            strict=True,
        )
    )
    _in_folder(lambda folder: cuts(executable, folder, args.cuts))
    _in_folder(lambda folder: _fuzz(executable, folder, args.fuzz))
    return [name, *map(str, (2 * half, acknowledged, again, 0, args.cuts, args.fuzz, 0))]


def _in_folder(run: Callable[[Path], T]) -> T:
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


def _kills(executable: str, folder: Path, count: int, fsync: str) -> tuple[int, int]:
    """Samples that were acknowledged, and how many came again without effect."""
    traffic = Traffic(len(fsync))
    with RedisServer(executable, folder, "--appendfsync", fsync) as server:
        for _ in range(count):
            crash(server, traffic, always=fsync == "always")
    return traffic.acknowledged, traffic.redelivered


def _fuzz(executable: str, folder: Path, operations: int) -> None:
    with RedisServer(executable, folder) as server:
        Fuzzer(server.start(), 7).run(operations)
