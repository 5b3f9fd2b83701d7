"""The demo's terminal: what happens, line by line, above the figures of this moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

_PLAIN_EVERY_S = 5.0
_LIVE_EVERY_S = 1.5


class Screen:
    """Lines with seconds since the start; on a terminal a live table below them, elsewhere a line now and then."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._printed = 0.0
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def due(self) -> bool:
        """Whether the figures are old enough to be worth a look at every process's metrics."""
        return self.seconds - self._printed >= (_LIVE_EVERY_S if self._live is not None else _PLAIN_EVERY_S)

    def say(self, text: str, *, style: str = "") -> None:
        """One line."""
        with self._lock:
            self.console.print(f"{self.seconds:6.1f}s  {text}", style=style or None, markup=False)

    def figures(self, rows: Mapping[str, str]) -> None:
        """The figures of this moment."""
        self._printed = self.seconds
        if self._live is not None:
            table = Table(show_header=False, box=None, padding=(0, 2))
            for name, value in rows.items():
                table.add_row(name, value)
            self._live.update(table)
        else:
            self.say(" · ".join(f"{name} {value}" for name, value in rows.items() if value))

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A table at the end."""
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None
