"""`driftline console`: builds the pages from settings and serves until a signal."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from learner.records import Records
from services import adapters, explain, status
from services.console.app import Console, Views, create_app
from services.console.metrics import ConsoleMetrics
from services.http_server import HttpServer
from services.publishers import registry_of
from services.remedies import remedy
from services.review_desk import desk
from services.runtime import Runtime
from services.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.settings import Settings

TICK_S = 0.5
VERSIONS = 50
"""Newest versions on their page."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the processes are whose state is shown; all else is in the section `console` of the settings."""
    parser.add_argument("--targets", type=Path, default=status.TARGETS, help="Prometheus file discovery")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal. Returns 0. Raises `SettingsError` where nobody may come in."""
    config = settings.console
    if not config.reviewers:
        raise SettingsError(
            "console.reviewers is empty: nobody could come in;"
            """ set DRIFTLINE_CONSOLE__REVIEWERS='{"NAME": "PASSWORD"}'"""
        )
    wall = time.time  # noqa: TID251 - the composition root hands the clock on
    runtime = Runtime("console", settings.admin)
    metrics = ConsoleMetrics(runtime.registry)
    chosen = desk(settings, "console", wall, config.decision_timeout_s)
    told = partial(remedy, settings=settings, named=[args.targets])
    console = Console(config, chosen, views(settings, args.targets, wall), metrics, told)
    server = HttpServer(create_app(console, config, metrics), config.host, config.port)
    runtime.ready("api", lambda: None if server.alive() else "the API has stopped")
    server.start()
    runtime.log.info("serving", url=server.url)
    while not runtime.stop.wait(TICK_S):
        runtime.tick()
    server.stop()
    runtime.close()
    return 0


def views(settings: Settings, targets: Path, clock: Callable[[], float]) -> Views:
    """What the pages show, by the settings."""
    registry = registry_of(settings.registry, clock)
    records = Records(adapters.records_folder(settings))

    def version(name: str) -> str:
        return adapters.described(adapters.detail(registry, records, name))

    def explained(answer: str, about: str) -> str:
        return explain.text(explain.explained(answer, settings, registry, about=about))

    return Views(
        state=lambda: status.collect(settings, targets),
        versions=lambda: adapters.rows(registry, settings.rollout.line, VERSIONS),
        version=version,
        explained=explained,
    )
