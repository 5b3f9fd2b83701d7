"""The demo from start to end: chats stream, versions learn, good ones are promoted, bad ones never reach anybody."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping
from pathlib import Path

from services.demo.acts import Acts
from services.demo.chats import PUBLIC_NAMES
from services.demo.checks import judge, judge_planted, resources
from services.demo.evidence import Evidence
from services.demo.own_chats import OwnChats
from services.demo.screen import Screen
from services.local.profile import demo_profile, fresh, printed, up_profile
from services.local.stack import Stack
from services.local.supervisor import ChildFailed

DIRECTORY = Path(".driftline")


def play(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every check held, 1 when one did not, 2 when it could not start."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an ended demo ends its processes too
    screen = Screen()
    fresh(DIRECTORY)
    profile = up_profile(args.speed, args.base_model) if args.chats else shop_profile(args.base_model)
    screen.say(f"profile: {printed(profile)}")
    stack = Stack(DIRECTORY, profile)
    evidence = Evidence()
    try:
        perform(args, stack, screen, evidence)
    except ChildFailed as failed:
        screen.say(f"could not start: {failed}", style="bold red")
        return 2
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        stack.stop()
        screen.close()
    return report(evidence, args.json, screen)


def shop_profile(base: str) -> dict[str, Mapping[str, object]]:
    """The demo's settings with what its shop would set: its own names are nobody's."""
    return {**demo_profile(base), "scrub": {"public_names": PUBLIC_NAMES}}


def perform(args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
    """Start the processes, play every act, judge what came of them."""
    stack.start(screen.say)
    run: Acts | OwnChats = (OwnChats if args.chats else Acts)(args, stack, screen, evidence)
    try:
        run.play()
        judge(run)
        if isinstance(run, Acts):
            judge_planted(run)
        resources(run)
    finally:
        run.close()


def report(evidence: Evidence, path: Path | None, screen: Screen) -> int:
    """Print the checks, write the JSON. Returns the exit code."""
    evidence.seconds = round(screen.seconds, 1)
    rows = [("ok" if check.passed else "FAILED", check.name, check.detail) for check in evidence.checks]
    screen.table("driftline demo", ("", "check", "detail"), rows)
    if path is not None:
        evidence.write(path)
    return 0 if evidence.passed else 1
