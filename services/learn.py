"""`driftline learn`: the online learner of one line, from the replay buffer to versions in the registry."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.settings import Settings


def arguments(_parser: argparse.ArgumentParser) -> None:
    """The learner has no options of its own; see the sections `train`, `gate`, `heldout` and `publish`."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Train until a signal. Returns 0."""
    from services.learning import serve  # noqa: PLC0415 - loads torch

    return serve(settings)
