"""`driftline up`: every process on this machine, kept running to try; ends with Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from services.local.profile import fresh, up_profile
from services.local.stack import Stack
from services.local.supervisor import ChildFailed
from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to stream meanwhile."""
    parser.add_argument("--chats", type=Path, help="stream this file of chats (any format of driftline ingest)")
    parser.add_argument("--speed", type=float, default=1.0, help="times as fast as the file's own clock (default 1)")
    parser.add_argument("--base-model", default="", help="name or folder of another base model")
    parser.add_argument("--directory", type=Path, default=Path(".driftline"), help="where data and logs go")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run until a signal. Returns 0, 2 when something could not start or the embedded broker died."""
    del settings
    if args.chats is not None and not args.chats.is_file():
        sys.stderr.write(f"driftline up: --chats {args.chats}: no such file\n")
        return 2
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    fresh(args.directory)
    stack = Stack(args.directory, up_profile(args.speed if args.chats else 1.0, args.base_model))
    try:
        stack.start(_say)
        _explain(stack.urls, stack.targets, args.directory)
        return _serve(args, stack, stop)
    except ChildFailed as failed:
        _say(str(failed))
        return 2
    finally:
        _say("stopping")
        stack.stop()


def _serve(args: argparse.Namespace, stack: Stack, stop: threading.Event) -> int:
    ingest = _ingest(args, stack) if args.chats else None
    told = False
    while not stop.wait(0.5):
        if stack.supervisor.failed:
            _say(f"{stack.supervisor.failed} died; see {stack.supervisor.log_file(stack.supervisor.failed)}")
            return 2
        if ingest is not None and not told and ingest.poll() is not None:
            told = True
            _say(_told(args, ingest.returncode, stack.supervisor.log_file("ingest")))
    if ingest is not None and ingest.poll() is None:
        ingest.terminate()
        ingest.wait(10)
    return 0


def _ingest(args: argparse.Namespace, stack: Stack) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.cli", "ingest", str(args.chats), "--speed", str(args.speed), "--json"]
    _say(f"streaming {args.chats} at {args.speed:g} times its own speed")
    with stack.supervisor.log_file("ingest").open("wb") as log:
        return subprocess.Popen(command, env=stack.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _told(args: argparse.Namespace, code: int, log: Path) -> str:
    if code:
        return f"ingest ended with {code}; see {log}"
    try:
        sent = json.loads(log.read_text())["sent"]
    except (ValueError, KeyError):
        sent = "all"
    return f"{sent} records sent; next: driftline reconcile {args.chats}"


def _explain(urls: dict[str, str], targets: dict[str, str], directory: Path) -> None:
    width = max(map(len, [*urls, *targets])) + 2
    for name, url in urls.items():
        _say(f"{name:{width}}{url}")
    for name, target in targets.items():
        _say(f"{name:{width}}http://{target}/metrics")
    _say(f"logs in {directory / 'logs'}; Ctrl-C ends everything. Try:")
    body = '{"model": "driftline", "messages": [{"role": "user", "content": "Where is my order?"}]}'
    _say(f"  curl -s {urls['router']}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
