"""Checkpoints and the draw log: what a line needs to go on after kill -9, bit for bit on CPU.

A checkpoint is one safetensors file whose metadata is JSON (no pickle), written aside, synced and renamed. Steps
after it stand in the draw log, which is synced before each step: the buffer has moved on meanwhile, so drawing again
would not be the same draw.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LOG_FILE = "draws.jsonl"


@dataclass(frozen=True)
class Checkpoint:
    """A line at the end of a step."""

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    """JSON values."""


class Checkpoints:
    """The newest checkpoints of one line in a folder, and its draw log."""

    def __init__(self, directory: Path, keep: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._keep = keep
        self._log = directory / LOG_FILE
        self.torn = False
        """Whether something could not be written since the last checkpoint: the folder may have lost what it held."""

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint durably; older ones beyond `keep`, and log entries that none needs, are dropped."""
        self.torn = True
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"step-{checkpoint.step:09d}.safetensors"
        data = save(dict(checkpoint.tensors), metadata={"state": json.dumps(checkpoint.state)})
        _write(path, data)
        kept = self._files()[-self._keep :]
        for old in self._files()[: -self._keep]:
            old.unlink()
        self._trim(_step_of(kept[0]))
        self.torn = False
        return path

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None on a cold start."""
        for path in reversed(self._files()):
            try:
                with safe_open(path, framework="pt") as file:
                    state = json.loads(file.metadata()["state"])
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                continue  # a torn file: the one before it is whole
            return Checkpoint(_step_of(path), tensors, state)
        return None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Log the draw of a step durably, before the step."""
        self.torn = True
        with self._log.open("a+b") as file:
            file.seek(max(file.tell() - 1, 0))
            if file.read() not in {b"", b"\n"}:  # a process died while it wrote: its line stays alone
                file.write(b"\n")
            file.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.torn = False

    def entries(self, after: int, run: int) -> list[dict[str, Any]]:
        """Logged draws of this run's steps above `after`, in order, up to a gap; a torn line is dropped."""
        logged = {entry["step"]: entry for entry in self._entries() if entry["run"] == run}
        return [logged[step] for step in takewhile(logged.__contains__, count(after + 1))]

    def forget(self) -> None:
        """Delete everything: the line starts again from a published version (erasure, rollback)."""
        for path in [*self._files(), self._log]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("step-*.safetensors"))

    def _entries(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        entries = []
        for line in self._log.read_bytes().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # the process died while it wrote this line, so its step was not taken
        return entries

    def _trim(self, step: int) -> None:
        lines = [json.dumps(entry, separators=(",", ":")) for entry in self._entries() if entry["step"] > step]
        _write(self._log, "".join(f"{line}\n" for line in lines).encode())


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)  # a full disc needs the room
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
