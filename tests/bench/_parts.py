"""A long bench in parts: what is done is kept in a folder, and a call that has used its time ends."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch


class Unfinished(Exception):
    """The call's time is up; the same call again goes on behind what is kept."""


class Parts:
    """Results and intermediate states by name; without a folder nothing is kept and no time is up."""

    def __init__(self, folder: Path | None = None, most_s: float = 0.0) -> None:
        """`most_s` CPU seconds of one call; 0 is no bound."""
        self._folder = folder
        self._most_s = most_s if folder is not None else 0.0
        self._started = time.process_time()

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """The options of a bench that can be run in parts."""
        parser.add_argument("--parts", type=Path, help="keep what is done in this folder")
        parser.add_argument("--most-s", type=float, default=0.0, help="with --parts: end after so many CPU seconds")

    def load(self, name: str) -> Any:  # whatever was saved
        """What was saved under the name; None if nothing was."""
        path = self._path(name)
        return None if path is None or not path.exists() else torch.load(path, weights_only=False)

    def save(self, name: str, value: object) -> None:
        """Keep a value. Raises Unfinished when the call's time is up."""
        path = self._path(name)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part")
            torch.save(value, aside)
            aside.rename(path)
        if self._most_s and time.process_time() - self._started > self._most_s:
            raise Unfinished

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{name}.pt"
