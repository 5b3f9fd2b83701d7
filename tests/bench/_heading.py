"""The first lines of every table: what was measured, of which commit, on how many cores, by which command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def heading(name: str, argv: Sequence[str]) -> str:
    """Name, commit (with + when files differ from it), cores and command."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False).stdout

    changed = "+" if git("status", "--porcelain", "--untracked-files=no").strip() else ""
    commit = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    cores = len(os.sched_getaffinity(0))
    return f"{name}   commit {commit}{changed}   {cores} cores   driftline bench {' '.join([name, *argv])}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right; the first row is the header."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
