"""One run of the demo: its processes, who asks through the router, and what was seen of them."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from services.demo.chats import ingest
from services.demo.customers import Answer, Door, until
from services.demo.evidence import Evidence
from services.demo.figures import Figures
from services.demo.screen import Screen
from services.demo.watch import Watch
from services.local.stack import Stack

LIMIT_S = 180.0


class Run:
    """What every run has, whether its chats are simulated or the user's own."""

    file: Path
    """The chats that are streamed."""
    personal: Mapping[str, str] = {}
    """Planted personal data: value -> kind."""
    planted: frozenset[str] = frozenset()
    """Versions that the demo put into the store itself."""
    allowed_s: float = LIMIT_S
    """How long the run may take, seconds."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
        self.args = args
        self.stack = stack
        self.screen = screen
        self.evidence = evidence
        self.settings = stack.settings
        self.door = Door(stack.urls["router"], self.settings.keys.admin_token)
        self.watch = Watch(self.settings.kafka.asked_once("demo"), screen.say)
        self._ingest: subprocess.Popen[bytes] | None = None

    def play(self) -> None:
        """Everything that happens; the evidence is judged afterwards."""
        raise NotImplementedError

    @property
    def answers(self) -> list[Answer]:
        """Every answer that customers got, and every failure."""
        raise NotImplementedError

    def stream(self, speed: float) -> None:
        """Start `driftline ingest` on the file."""
        log = self.stack.directory / "logs/ingest.log"
        self._ingest = ingest(self.file, speed, self.stack.environment(), log)

    @property
    def streaming(self) -> bool:
        """Whether the file is still being sent."""
        return self._ingest is not None and self._ingest.poll() is None

    def watched(self, what: str, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something while the figures move; says whether it came."""
        ports = self.stack.supervisor.ports()

        def look() -> bool:
            if self.screen.due:
                self.screen.figures(Figures(ports).rows())
            return condition()

        came = until(look, timeout_s, every_s=0.5)
        self.screen.say(what if came else f"not within {timeout_s:.0f} s: {what}", style="green" if came else "red")
        return came

    def close(self) -> None:
        """End what the run itself started."""
        if self._ingest is not None and self.streaming:
            self._ingest.terminate()
            self._ingest.wait(10)
        self.watch.close()
        self.door.close()
