"""The demo from start to end: chats stream, versions learn, good ones are promoted, bad ones never reach anybody."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from confluent_kafka import Producer

from services.demo import checks, chats
from services.demo.customers import Customers, Door, until
from services.demo.evidence import Evidence
from services.demo.figures import Figures
from services.demo.planted import Planter
from services.demo.profile import SPEED, demo_profile, printed
from services.demo.screen import Screen
from services.demo.watch import Watch
from services.local.stack import Stack
from services.local.supervisor import ChildFailed
from services.simulation.policy import Fact
from services.topic_feed import producer_settings

DIRECTORY = Path(".driftline")
LIMIT_S = 180.0
_KEPT = ("logs", "redis", "store", "learner", "router", "node-1", "node-2")


def play(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every check held, 1 when one did not, 2 when it could not start."""
    screen = Screen()
    fresh(DIRECTORY)
    profile = demo_profile(args.base_model)
    screen.say(f"profile: {printed(profile)}")
    stack = Stack(DIRECTORY, profile)
    try:
        stack.start(screen.say)
        demo = Demo(args, stack, screen)
        try:
            demo.run()
        finally:
            demo.close()
    except ChildFailed as failed:
        screen.say(f"could not start: {failed}", style="bold red")
        return 2
    finally:
        stack.stop()
        screen.close()
    return report(demo.evidence, args.json, screen)


def fresh(directory: Path) -> None:
    """Remove what an earlier run left: a new broker begins at offset 0."""
    for name in _KEPT:
        shutil.rmtree(directory / name, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


class Demo:
    """One run: its processes, its customers, and what was seen of them."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen) -> None:
        self.args = args
        self.stack = stack
        self.screen = screen
        self.evidence = Evidence()
        settings = stack.settings
        self.settings = settings
        self.door = Door(stack.urls["router"], settings.keys.admin_token)
        self.watch = Watch(settings.kafka.client("demo"), screen.say)
        self.fact = chats.changing_fact()
        self.file = stack.directory / "chats.jsonl"
        producer = Producer(producer_settings(settings.kafka.client("demo")))
        self.customers = Customers(self.door, producer, chats.questions(args.seed + 100, ()), rate=4.0, seed=args.seed)
        self.planter = Planter(stack, settings, self.watch, screen)
        self._ingest: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """The acts in order; each leaves its evidence."""
        planted = chats.write_chats(self.file, self.args.seed, self.fact)
        before = self.ask_fact()
        self.screen.say(f"asked {self.fact.questions(1)[0]!r} -> {before!r} by the base model")
        self._ingest = chats.ingest(
            self.file, SPEED, self.stack.environment(), self.stack.directory / "logs/ingest.log"
        )
        self.customers.start()
        self.until_said("the first version is promoted", lambda: bool(self.watch.promoted()), 90)
        self.customers.use(chats.questions(self.args.seed + 200, (self.fact,)))
        learned = self.until_said("the changed fact is answered the new way", self.knows_new_fact, 60)
        self.evidence.facts.append(self.fact_row(before, learned=learned))
        self.planter.unchanged(self.evidence)
        self.planter.bad_adapter(self.evidence)
        self.planter.live_regression(self.evidence, self.customers)
        self.customers.stop()
        self.drain()
        checks.judge(self, planted)

    def close(self) -> None:
        """End what the demo itself started."""
        if self._ingest is not None and self._ingest.poll() is None:
            self._ingest.terminate()
            self._ingest.wait(10)
        self.watch.close()
        self.door.close()

    def ask_fact(self) -> str:
        """The live answer to the question whose true answer changes; not recorded."""
        return self.door.ask(self.fact.questions(1)[0], f"probe-{self.screen.seconds:.3f}", recorded=False)[1]

    def knows_new_fact(self) -> bool:
        """Whether the live version states the new value and not the old."""
        return self.fact.states(self.ask_fact()) == "new"

    def fact_row(self, before: str, *, learned: bool) -> dict[str, str]:
        """One row of the evidence about changed facts."""
        del learned
        fact: Fact = self.fact
        return {
            "question": fact.questions(1)[0], "answer_before": before, "answer_after": self.ask_fact(), "expected": fact.new,
        }  # fmt: skip

    def until_said(self, what: str, condition: object, timeout_s: float) -> bool:
        """Wait for something while the figures move; says whether it came."""
        assert callable(condition)
        ports = self.stack.supervisor.ports()

        def step() -> bool:
            self.screen.figures(Figures(ports).rows())
            return bool(condition())

        came = until(step, timeout_s, every_s=1.0)
        self.screen.say(what if came else f"not within {timeout_s:.0f} s: {what}", style="green" if came else "red")
        return came

    def drain(self) -> None:
        """Wait until the file is sent and nothing of it waits any more."""
        if self._ingest is not None:
            self._ingest.wait(60)


def report(evidence: Evidence, path: Path | None, screen: Screen) -> int:
    """Print the checks, write the JSON. Returns the exit code."""
    evidence.seconds = round(screen.seconds, 1)
    rows = [("ok" if check.passed else "FAILED", check.name, check.detail) for check in evidence.checks]
    screen.table("driftline demo", ("", "check", "detail"), rows)
    if path is not None:
        evidence.write(path)
    return 0 if evidence.passed else 1
