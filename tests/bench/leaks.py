"""A traffic file through the whole loop, then a search for its planted values in everything behind the scrubber.

    driftline bench leaks FILE TRUTH [--speed 400] [--minutes 8] [--versions 1]

Broker, Redis, worker, learner, two nodes, router and rollout controller run as `driftline up` runs them. Searched are
every value in Redis and the file it writes, every topic but chats.raw, logs, metrics, the registry's blobs, the
learner's and nodes' files (adapters and their metadata). A control value shows that the search finds. Exit code 1 when
a planted value is found, or when nothing was learned.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from services.demo.figures import Figures
from services.demo.search import Needles, file_contents, redis_contents, search, topic_contents
from services.local.profile import up_profile
from services.local.stack import Stack
from streams.topics import BY_NAME, CHATS_RAW
from tests.bench._heading import heading, table

CONTROL = "4000 0012 3456 7899"
FOLDERS = ("redis", "logs", "store", "learner", "node-1", "node-2", "router")


def main(argv: list[str]) -> int:
    """Run, search, print the table."""
    parser = argparse.ArgumentParser(prog="driftline bench leaks")
    parser.add_argument("file", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--speed", type=float, default=400.0)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--versions", type=int, default=1)
    args = parser.parse_args(argv)
    planted = {row["value"]: row["pii_type"] for row in _rows(args.truth) if row["kind"] == "pii_canary"}
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), up_profile(args.speed))
        try:
            stack.start(lambda what: print(what, file=sys.stderr))  # noqa: T201 - a benchmark prints
            versions = _stream(stack, args)
            stack.redis().set("control", f"my card is {CONTROL}")
            _written(stack.redis())
            places = list(_downstream(stack))
        finally:
            stack.stop()
    found = search(Needles([*planted, CONTROL]), places)
    hits = [hit for hit in found if hit.value != CONTROL]
    _print(argv, planted, places, hits, versions)
    seen = any(hit.value == CONTROL for hit in found)
    return int(bool(hits) or not seen or not versions)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _stream(stack: Stack, args: argparse.Namespace) -> float:
    """Ingest the file and wait until all of it is accounted for and enough versions are published; their number."""
    command = [sys.executable, "-m", "services.cli", "ingest", str(args.file), "--format", "traffic"]
    feeder = subprocess.Popen([*command, "--speed", str(args.speed)], env=stack.environment())
    pause, figures = threading.Event(), Figures(stack.supervisor.ports())
    versions = 0.0
    for _ in range(int(args.minutes * 60 / 5)):
        pause.wait(5)
        figures = Figures(stack.supervisor.ports())
        versions = figures.total("driftline_adapter_publishes_total", outcome="ok")
        if (
            feeder.poll() is not None
            and versions >= args.versions
            and not figures.total("driftline_consumer_lag_messages")
        ):
            break
    if feeder.poll() is None:
        feeder.kill()
        feeder.wait(10)
    return versions


def _written(client: redis.Redis) -> None:
    """Let Redis write its file, in the background: the client's timeout is shorter than a large one takes."""
    client.config_set("rdbcompression", "no")
    before, pause = client.lastsave(), threading.Event()
    pause.wait(1.1)  # LASTSAVE counts seconds
    client.bgsave()
    while client.lastsave() == before:
        pause.wait(0.2)


def _downstream(stack: Stack) -> Iterator[tuple[str, bytes]]:
    yield from redis_contents(stack.redis())
    yield from topic_contents(stack.settings.kafka.client("search"), [name for name in BY_NAME if name != CHATS_RAW])
    for folder in FOLDERS:
        yield from file_contents(stack.directory / folder)
    for name, text in Figures(stack.supervisor.ports()).text.items():
        yield f"/metrics of {name}", text.encode()


def _print(
    argv: list[str], planted: dict[str, str], places: list[tuple[str, bytes]], hits: list[Any], versions: float
) -> None:
    sought = Counter(planted.values())
    lost = Counter(planted[value] for value in {hit.value for hit in hits})
    rows = [[label, str(count), str(lost[label])] for label, count in sought.most_common()]
    print(heading("leaks", argv))  # noqa: T201
    print(f"{len(places):,} stored values, {sum(len(c) for _, c in places) / 2**20:.0f} MB, {versions:.0f} versions")  # noqa: T201
    print(table([["planted", "values", "found"], *rows, ["all", str(len(planted)), str(sum(lost.values()))]]))  # noqa: T201
    for hit in hits[:20]:
        print(f"{planted[hit.value]} in {hit.place}")  # noqa: T201 - its kind, never the value
