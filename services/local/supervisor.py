"""Starts the processes of one machine, restarts what dies, measures and ends them, always by pid."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
STOP_S = 12.0
_HEALTHY_S = 30.0
MEMORY_EVERY = 8
"""Looks between two sums of memory: the kernel walks every page for one."""


class ChildFailed(RuntimeError):
    """A process did not become ready, or a process that must not die did; the message names its log."""


@dataclass(frozen=True)
class Spec:
    """One process: its name, arguments, environment, admin port (0: none) and whether it may be restarted."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    admin_port: int = 0
    restart: bool = True


@dataclass
class _Child:
    spec: Spec
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    due: float | None = None


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Supervisor:
    """Keeps processes running until `stop`; `failed` holds the name of one that died for good."""

    def __init__(self, logs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._logs = logs
        self._clock = clock
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self._stopping = threading.Event()
        self.restarts = 0
        self.failed: str | None = None
        self.peak_pss_bytes = 0
        self._cpu: dict[tuple[str, int], float] = {}
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, spec: Spec) -> int:
        """Start one process in a session of its own. Returns its pid."""
        with self._lock:
            self._children[spec.name] = child = _Child(spec, self._spawn(spec), self._clock())
        if not self._watcher.is_alive():
            self._watcher.start()
        return child.process.pid

    def pids(self) -> dict[str, int]:
        """Name -> pid of what runs."""
        return {name: child.process.pid for name, child in self._children.items()}

    def ports(self) -> dict[str, int]:
        """Name -> admin port of the processes that have one."""
        return {name: c.spec.admin_port for name, c in self._children.items() if c.spec.admin_port}

    def cpu_seconds(self) -> dict[str, float]:
        """Name -> seconds of one core used so far, earlier lives of a restarted process included."""
        used: dict[str, float] = {}
        for (name, _), seconds in self._cpu.items():
            used[name] = used.get(name, 0.0) + seconds
        return used

    def log_file(self, name: str) -> Path:
        """Where a process writes."""
        return self._logs / f"{name}.log"

    def wait_ready(self, names: Sequence[str], timeout_s: float) -> None:
        """Return once each /readyz answers 200. Raises `ChildFailed` after `timeout_s`, or when one gave up."""
        deadline = self._clock() + timeout_s
        waiting = list(names)
        reason = ""
        while waiting:
            if self.failed or self._clock() > deadline:
                name = self.failed or waiting[0]
                raise ChildFailed(f"{name} is not ready ({reason or 'no answer'}); see {self.log_file(name)}")
            status, reason = health(self._children[waiting[0]].spec.admin_port)
            if status == http.client.OK:
                waiting.pop(0)
            else:
                self._stopping.wait(0.1)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one process. Returns the pid that got it."""
        pid = self._children[name].process.pid
        os.kill(pid, number)
        return pid

    def end(self, name: str) -> None:
        """End one process for good, as `stop` would."""
        with self._lock:
            child = self._children[name]
            self._ended.add(name)
        _end(child.process)

    def stop(self) -> None:
        """End every process, newest first: SIGTERM, after `STOP_S` SIGKILL, each to its own group."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for child in reversed(self._children.values()):
            _end(child.process)

    def _spawn(self, spec: Spec) -> subprocess.Popen[bytes]:
        with self.log_file(spec.name).open("ab") as log:
            return subprocess.Popen(
                list(spec.argv), env=dict(spec.environment), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _watch(self) -> None:
        for look in count():
            if self._stopping.wait(0.5):
                return
            with self._lock:
                for name, child in self._children.items():
                    if name not in self._ended:
                        self._revive(child)
            self._measure(memory=look % MEMORY_EVERY == 0)

    def _revive(self, child: _Child) -> None:
        now = self._clock()
        if child.process.poll() is None:
            if now - child.started > _HEALTHY_S:
                child.failures = 0
            return
        if not child.spec.restart:
            self.failed = child.spec.name
            return
        if child.due is None:
            child.due = now + BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
            child.failures += 1
        if now >= child.due:
            child.process, child.started, child.due = self._spawn(child.spec), now, None
            self.restarts += 1

    def _measure(self, *, memory: bool) -> None:
        pids = {"supervisor": os.getpid(), **self.pids()}
        if memory:
            self.peak_pss_bytes = max(self.peak_pss_bytes, sum(map(_pss_bytes, pids.values())))
        for named in pids.items():
            self._cpu[named] = max(self._cpu.get(named, 0.0), _cpu_seconds(named[1]))


def health(port: int, path: str = "/readyz") -> tuple[int, str]:
    """Status and text of an admin route; status 0 while nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace").strip()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_S)
        except ProcessLookupError:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _cpu_seconds(pid: int) -> float:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
