"""What several commands ask of a number on their command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1. Raises ArgumentTypeError and ValueError, which argparse puts into words."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: wants at least 1")
    return number
