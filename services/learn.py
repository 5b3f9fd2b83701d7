"""`driftline learn`: the online learner of one line, from the replay buffer to versions in the registry."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import redis

from services.preconditions import able_to_learn, answering
from services.remedies import remedy
from services.runtime import Log
from streams.replay import ReplayError

if TYPE_CHECKING:
    from services.settings import Settings


def arguments(_parser: argparse.ArgumentParser) -> None:
    """The learner has no options of its own; see the sections `train`, `gate`, `heldout` and `publish`."""


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Train until a signal. Returns 0. Raises SettingsError and UnusableKeys for what a look can tell."""
    able_to_learn(settings)
    try:
        answering(settings)
    except (ReplayError, redis.RedisError) as error:
        reason = remedy(error, settings, ()) or type(error).__name__
        Log("learn", settings.admin.level).warning("waiting", reason=reason)
    from services.learning import serve  # noqa: PLC0415 - loads torch

    return serve(settings)
