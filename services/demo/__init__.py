"""`driftline demo`: the whole loop on this machine, with every promise of the README checked on the way."""

from __future__ import annotations

import argparse
from pathlib import Path

from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to stream and where to write the evidence."""
    parser.add_argument(
        "--chats", type=Path, help="a file of chats to stream instead of the simulator's (traffic JSONL)"
    )
    parser.add_argument("--speed", type=float, default=50.0, help="times as fast as the file's own clock (default 50)")
    parser.add_argument("--json", type=Path, help="write the evidence to this file")
    parser.add_argument("--events", type=Path, help="write what became of each event to this file, a JSON line each")
    parser.add_argument(
        "--base-model", default="", help="name or folder of another base model (default: the shipped one)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulated chats (default 1)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the demo. Returns 0 when every check held, 1 when one did not, 2 when it could not start."""
    del settings
    from services.demo.scenario import play  # noqa: PLC0415 - only the demo itself pays for torch

    return play(args)
