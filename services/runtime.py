"""One process's edge: JSON logs without chat text, /metrics, /livez and /readyz on a port of its own, signals.

What a service logs is a constant event name and fields of a closed set; anything else is refused, so that
no chat text can slip into a log line. Foreign loggers emit their template and nothing of their arguments.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TextIO

from prometheus_client import CollectorRegistry, Counter, Info, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from services.settings import AdminConfig

LOG_KEYS: Final = frozenset(
    {
        "conversation_id", "topic", "partition", "offset", "version", "trace_id", "reason", "count",
        "duration_seconds", "port", "error", "where", "state", "generation", "step", "url",
    }
)  # fmt: skip
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """JSON lines on a stream: a constant event and fields of `LOG_KEYS` only. Raises ValueError for another key."""

    def __init__(self, process: str, level: str = "info", stream: TextIO | None = None) -> None:
        self._process = process
        self._level = _LEVELS[level]
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def write(self, level: str, event: str, **keys: str | float | None) -> None:
        """One line, if the level is high enough."""
        unknown = keys.keys() - LOG_KEYS
        if unknown:
            raise ValueError(f"log key {min(unknown)!r} is not in the closed set")
        if _LEVELS[level] < self._level:
            return
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"ts": stamp, "level": level, "process": self._process, "event": event}
        line = json.dumps({**head, **{k: v for k, v in keys.items() if v is not None}})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def debug(self, event: str, **keys: str | float | None) -> None:
        """For developers."""
        self.write("debug", event, **keys)

    def info(self, event: str, **keys: str | float | None) -> None:
        """What happened."""
        self.write("info", event, **keys)

    def warning(self, event: str, **keys: str | float | None) -> None:
        """What a person should look at some day."""
        self.write("warning", event, **keys)

    def error(self, event: str, error: BaseException | None = None, **keys: str | float | None) -> None:
        """What failed: the exception's type and place, never its message, which may quote chat text."""
        if error is not None:
            keys = {**keys, "error": type(error).__name__, "where": _where(error)}
        self.write("error", event, **keys)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"


class ForeignHandler(logging.Handler):
    """Sends a library's log record on as its unformatted template and exception type."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Levels above info only; templates are constants of the library, arguments are not."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        template = record.msg if isinstance(record.msg, str) and record.args else record.module
        self._log.write(level, "library", reason=f"{record.name}: {template[:120]}", error=kind)


class Runtime:
    """A process's logs, admin port, health and stop signal. `stop` is set by SIGTERM and SIGINT."""

    def __init__(
        self,
        process: str,
        admin: AdminConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        signals: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client has no annotation there
        self.process = process
        self.log = Log(process, admin.level, stream)
        self.registry = CollectorRegistry()
        self.stop = threading.Event()
        self.errors = Counter(
            "driftline_handled_errors_total", "Errors that were caught", ["module", "kind"], registry=self.registry
        )
        Info("driftline_build", "Version of this process", registry=self.registry).info({"version": release()})
        self._clock = clock
        self._ticked = clock()
        self._max_age_s = admin.livez_max_age_s
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._server = ThreadingHTTPServer((admin.host, admin.port), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="admin", daemon=True).start()
        self._logging()
        if signals:
            signal.signal(signal.SIGTERM, self._stop)
            signal.signal(signal.SIGINT, self._stop)
        self.log.info("started", port=self.port)

    def tick(self) -> None:
        """The main loop is alive."""
        self._ticked = self._clock()

    def ready(self, name: str, check: Callable[[], str | None]) -> None:
        """Add a readiness check: it returns None, or the reason why this process is not ready."""
        self._checks[name] = check

    def caught(self, module: str, error: BaseException) -> None:
        """Count and log an error that was handled where it was caught."""
        self.errors.labels(module, type(error).__name__).inc()
        self.log.error("handled", error, reason=module)  # noqa: PLE1205 - our Log, not logging

    def close(self) -> None:
        """Close the admin port; the last thing a process does."""
        self.log.info("stopped")
        self._server.shutdown()
        self._server.server_close()

    def live(self) -> str | None:
        """None while the main loop ticks, else for how long it has not."""
        age = self._clock() - self._ticked
        return None if age <= self._max_age_s else f"main loop silent for {age:.0f} s"

    def unready(self) -> str | None:
        """None when every check passes, else the first reason; without any check the process is still starting."""
        if self.stop.is_set():
            return "draining"
        if not self._checks:
            return "starting"
        for name, check in list(self._checks.items()):
            reason = check()
            if reason:
                return f"{name}: {reason}"
        return None

    def _stop(self, _signal: int, _frame: object) -> None:
        self.stop.set()

    def _logging(self) -> None:
        root = logging.getLogger()
        root.handlers[:] = [ForeignHandler(self.log)]
        # never below INFO: Faust at DEBUG hands message keys and values to handlers
        root.setLevel(logging.WARNING)


def release() -> str:
    """The installed version, or `checkout` where the package is not installed."""
    try:
        return version("driftline")
    except PackageNotFoundError:
        return "checkout"


def _handler(runtime: Runtime) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(runtime.registry), kind)
            elif self.path in {"/livez", "/readyz"}:
                reason = runtime.live() if self.path == "/livez" else runtime.unready()
                self._answer(503 if reason else 200, (reason or "ok").encode() + b"\n", "text/plain")
            else:
                self._answer(404, b"not found\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            del format, args

    return Handler
