"""`driftline up`: chats stream, processes die, every event is accounted for, customers are answered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PAUSE = threading.Event()


def driftline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder."""
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of simulated chats and its truth."""
    path = tmp_path_factory.mktemp("up")
    done = driftline(
        path, "simulate", "--out", "chats.jsonl", "--truth", "truth.jsonl", "--count", "250", "--seed", "7"
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[dict[str, Any]]:
    """`driftline up` on that file; its run file."""
    command = [sys.executable, "-m", "services.cli", "up", "--chats", "chats.jsonl", "--speed", "40"]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        file = folder / ".driftline/run.json"
        for _ in range(1200):
            if "Ctrl-C" in (folder / "up.log").read_text() or process.poll() is not None:
                break
            PAUSE.wait(0.1)
        assert file.exists(), (folder / "up.log").read_text()
        yield json.loads(file.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_up_accounts_for_every_event_though_the_worker_is_killed(folder: Path, running: dict[str, Any]) -> None:
    """The stream worker is killed twice while chats stream; at rest each event has one outcome and one effect."""
    for _ in range(2):
        PAUSE.wait(4)
        pids = [p for p in Path("/proc").glob("[0-9]*") if _is_worker(p, folder)]
        for path in pids:
            os.kill(int(path.name), signal.SIGKILL)
    report: dict[str, Any] = {"waiting": -1}
    for _ in range(60):
        done = driftline(folder, "reconcile", "chats.jsonl", "--json", "--events", "events.jsonl")
        report = json.loads(done.stdout)
        if report["waiting"] == 0:
            break
        PAUSE.wait(2)
    rows = {row["event_id"]: row for row in map(json.loads, (folder / "events.jsonl").read_text().splitlines())}
    ended = report["accepted"] + sum(sum(report[name].values()) for name in ("rejected", "dead_lettered", "removed"))
    assert (report["waiting"], report["missing"], ended) == (0, [], report["events"])
    assert max(row["effects"] for row in rows.values()) == 1
    for truth in map(json.loads, (folder / "truth.jsonl").read_text().splitlines()):
        if truth["kind"] == "malformed" and truth["event_id"]:
            assert (rows[truth["event_id"]]["outcome"], rows[truth["event_id"]]["reason"]) == (
                "dead_lettered",
                truth["malformed"],
            )
    assert running["kafka"]


def _is_worker(process: Path, folder: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
        return b"clean" in command and (process / "cwd").resolve() == folder
    except OSError:
        return False


def test_up_status_shows_every_process_ready(folder: Path, running: dict[str, Any]) -> None:
    """Once the worker is back: six processes, what waits, what is stored, and the rollout's state."""
    del running
    for _ in range(30):
        done = driftline(folder, "status", "--json")
        if done.returncode == 0:
            break
        PAUSE.wait(1)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert sorted(name.split()[0] for name in found["processes"]) == [
        "clean", "learn", "node", "node", "rollout", "router",
    ]  # fmt: skip
    assert set(found["lag"]) == {"chats.raw", "chats.clean"}
    assert found["buffer"]["train"] > 0
    assert found["rollout"]["stable"]


def test_up_answers_an_openai_client(running: dict[str, Any]) -> None:
    """A chat completion names the version that gave it, in the body and in the header."""
    body = {"model": "driftline", "messages": [{"role": "user", "content": "Where is my order?"}]}
    answer = httpx.post(f"{running['urls']['router']}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"] == answer.headers["X-Driftline-Version"]
    assert found["choices"][0]["message"]["role"] == "assistant"
    assert answer.headers["X-Conversation-Id"]


def test_up_ingests_a_file_only_once(folder: Path, running: dict[str, Any]) -> None:
    """A second ingest of the same file sends nothing."""
    del running
    done = driftline(folder, "ingest", "chats.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"] == 0
