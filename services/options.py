"""What several commands ask of a number on their command line."""

from __future__ import annotations

import argparse
import math


def natural(text: str) -> int:
    """A whole number of at least 0. Raises ArgumentTypeError and ValueError, as all do here."""
    return _at_least(0, text)


def positive_number(text: str) -> float:
    """A number above 0, and finite."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: wants a number above 0")
    return number


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text}: wants a number above 0 and at most 1")
    return number


def positive(text: str) -> int:
    """A whole number of at least 1. Raises ArgumentTypeError and ValueError, which argparse puts into words."""
    return _at_least(1, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{number}: wants at least {least}")
    return number
