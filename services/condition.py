"""`driftline condition BASE OUT`: a base whose replies are conditioned on how they were received.

The folder OUT is BASE with another chat template; set `train.base` and the nodes' `node.base` to it, and take a new
line letter: a version fits only the template that it was trained with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from learner.conditions import BAD, GOOD, condition
from services.remedies import of_file

if TYPE_CHECKING:
    from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("base", type=Path, help="folder of a base model")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--good", default=GOOD, help="what stands before a reply, and before what is asked for")
    parser.add_argument("--bad", default=BAD, help="what stands before a reply that was received badly")


def run(args: argparse.Namespace, _settings: Settings) -> int:
    """Make the folder. Returns 2 if that cannot be done."""
    try:
        condition(args.base, args.out, args.good, args.bad)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"driftline condition: {of_file(error)}\n")
        return 2
    return 0
