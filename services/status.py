"""`driftline status`: what runs and where it stands, each part by itself: one that does not answer hides no other.

Processes are those of the run in this folder, or of any file of targets for Prometheus.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from services.local.redis_server import client
from services.publishers import registry_of
from services.remedies import remedy
from services.rollout.commands import status as rollout_status
from services.rollout.store import Store
from services.settings import SettingsError
from services.stream_lag import lag
from streams.replay import open_tables
from streams.replay.figures import stats
from streams.scrub.identity import ledger_key

if TYPE_CHECKING:
    import redis

    from services.settings import Settings

TARGETS = Path(".driftline/targets.json")
TIMEOUT_S = 2.0
READY = "ready"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the processes are."""
    parser.add_argument(
        "--targets", type=Path, default=TARGETS, help="Prometheus file discovery (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask everything. Returns 0, or 1 where a process is not ready or a part does not answer."""
    found = collect(settings, args.targets)
    sys.stdout.write((json.dumps(found) if args.json else text(found)) + "\n")
    failed = any("error" in part for part in found.values())
    return 1 if failed or any(state != READY for state in found["processes"].values()) else 0


def collect(settings: Settings, targets: Path) -> dict[str, dict[str, Any]]:
    """Part -> its figures, or an `error` in one line. Raises OSError, `SettingsError` for a file of targets."""
    named = processes(targets) if targets != TARGETS or TARGETS.exists() else {}
    connection = client(settings.redis.url, settings.redis.timeout_s)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "processes": lambda: {name: readiness(target) for name, target in named.items()},
        "lag": lambda: _lag(settings),
        "buffer": lambda: _buffer(connection, settings),
        "rollout": lambda: rollout_status(Store(connection, settings.rollout.line)),
        "versions": lambda: _versions(settings),
    }
    return {name: _asked(part, settings, targets) for name, part in parts.items()}


def processes(file: Path) -> dict[str, str]:
    """Name -> host:port of each process in a file of targets. Raises OSError, `SettingsError`."""
    try:
        jobs = json.loads(file.read_text())
        named = [(job.get("labels", {}).get("job", "process"), target) for job in jobs for target in job["targets"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SettingsError(f'{file}: wants Prometheus targets, [{{"targets": ["host:port"]}}]') from None
    return {f"{name.removeprefix('driftline-')} {target}": target for name, target in named}


def readiness(target: str) -> str:
    """`ready`, or why a process is not."""
    try:
        answer = httpx.get(f"http://{target}/readyz", timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        return f"does not answer ({type(error).__name__})"
    return READY if answer.is_success else answer.text.strip()


def text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The state for people."""
    lines = []
    for name, part in found.items():
        lines.append(name)
        lines += [f"  {key:28}{_shown(value)}" for key, value in part.items()] or ["  none known here"]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return "-" if value is None else str(value)


def _asked(part: Callable[[], dict[str, Any]], settings: Settings, targets: Path) -> dict[str, Any]:
    try:
        return part()
    except Exception as error:
        line = remedy(error, settings, [targets])
        if line is None:
            raise
        return {"error": line}


def _lag(settings: Settings) -> dict[str, Any]:
    """Records that wait for the stream worker, by topic."""
    waiting: Counter[str] = Counter()
    for (topic, _), records in lag(settings).items():
        waiting[topic] += records
    return dict(waiting)


def _buffer(connection: redis.Redis, settings: Settings) -> dict[str, Any]:
    """Stored samples, by table."""
    tables = open_tables(connection, settings.replay, ledger_key(settings.keys.keys()))
    return {table.table: stats(table).counters["n"] for table in tables.all}


def _versions(settings: Settings) -> dict[str, Any]:
    """The newest version of the line."""
    clock = time.time  # noqa: TID251 - the composition root hands the clock on
    registry = registry_of(settings.registry, clock)
    return {"newest": registry.newest(settings.rollout.line)}
