"""`driftline adapters`: which versions there are and why, the card of one, and freeing the files of old ones."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner.records import VERSIONS, Records, card
from learner.registry import Manifest, Registry, RegistryError
from learner.registry.manifest import to_object
from services.publishers import registry_of

if TYPE_CHECKING:
    from services.settings import Settings

KEPT = 20
"""Newest versions of a line whose files are never freed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="versions of a line, newest first")
    listing.add_argument("--line", default="a")
    listing.add_argument("--limit", type=int, default=20)
    show = actions.add_parser("show", help="one version: lineage, losses, gate evidence")
    show.add_argument("version")
    collect = actions.add_parser("collect", help="free the files of old versions")
    collect.add_argument("--keep", nargs="*", default=(), help="versions that a rollout record or a node names")
    collect.add_argument("--newest", type=int, default=KEPT, help="versions of each line that stay in any case")
    for action in (listing, show, collect):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Answer from the store. Returns 0, or 2 for an unknown version."""
    clock = time.time  # noqa: TID251 - the composition root hands the clock on
    registry = registry_of(settings.registry, clock)
    try:
        if args.action == "list":
            found: Any = rows(registry, args.line, args.limit)
            text = table(found)
        elif args.action == "show":
            found = detail(registry, Records(records_folder(settings)), args.version)
            text = described(found)
        else:
            found = registry.collect(args.keep, args.newest)
            text = "\n".join(found) or "nothing to free"
    except (RegistryError, OSError) as error:
        sys.stderr.write(f"driftline adapters: {type(error).__name__}: {error}\n")
        return 2
    sys.stdout.write((json.dumps(found) if args.json else text) + "\n")
    return 0


def records_folder(settings: Settings) -> Path:
    """Where records and model cards lie: beside the versions, so that every reader of the store finds them."""
    return Path(settings.registry.directory) / "records"


def rows(registry: Registry, line: str, limit: int) -> list[dict[str, Any]]:
    """The newest versions of a line, newest first."""
    return [row(registry, version) for _, version in zip(range(limit), registry.history(line), strict=False)]


def row(registry: Registry, version: str) -> dict[str, Any]:
    """One line of the list."""
    found = registry.manifest(version)
    measured = found.eval
    return {
        "id": version, "parent": found.parent, "created_at": found.created_at, "decision": measured.decision,
        "gated_against": measured.gated_against, "nll_per_token": measured.nll_per_token,
        "base_nll_per_token": measured.base_nll_per_token, "examples": measured.examples,
        "steps": list(found.training.steps), "gone": registry.gone(version),
    }  # fmt: skip


def detail(registry: Registry, records: Records, version: str) -> dict[str, Any]:
    """The record of a version; from its manifest alone where no record was written."""
    found: Manifest = registry.manifest(version)
    try:
        return records.read(VERSIONS, version)
    except FileNotFoundError:
        facts = to_object(found)
        del facts["probe"], facts["signature"]
        return facts


def described(found: dict[str, Any]) -> str:
    """What `detail` gave, for people: the model card where there is a record."""
    return card(found) if "gate" in found else json.dumps(found, indent=1)


def table(found: list[dict[str, Any]]) -> str:
    """The list for people."""
    lines = [f"{'version':18}{'parent':18}{'decision':10}{'nll':>8}{'base':>8}{'n':>6}  steps"]
    lines += [
        f"{one['id']:18}{one['parent']:18}{one['decision']:10}{one['nll_per_token']:8.3f}{one['base_nll_per_token']:8.3f}"
        f"{one['examples']:6}  {one['steps'][0]}-{one['steps'][1]}" + (f"  ({one['gone']})" if one["gone"] else "")
        for one in found
    ]
    return "\n".join(lines) if found else "no versions yet"
