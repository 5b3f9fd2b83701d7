"""The progress bar of `driftline ingest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from services.ingest import Summary


@contextmanager
def progress(path: Path, *, shown: bool) -> Iterator[Callable[[Summary, int], None]]:
    """A function (summary, bytes read) that moves the bar; one that does nothing when it is not `shown`."""
    if not shown:
        yield lambda _summary, _position: None
        return

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size, records=0)
        yield lambda summary, position: bar.update(task, completed=position, records=summary.records)
