"""An HTTP API of a process: one uvicorn server in a thread of its own, stopped by its owner."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from services.impatient_http import ImpatientProtocol

START_S = 10.0
"""Longest wait for the server to accept, seconds."""


class HttpServer:
    """Serves `app` from `start` to `stop`; binds at once, so that `url` is known before the first request."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, drain_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(drain_s) or 1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._drain_s = drain_s

    def start(self) -> None:
        """Begin to serve. Raises RuntimeError if the server does not come up."""
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_S / 0.01)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            waited.wait(0.01)
        raise RuntimeError(f"the API on port {self.port} did not start")

    def alive(self) -> bool:
        """True while the server's thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish running requests for a while, then close."""
        self._server.should_exit = True
        self._thread.join(self._drain_s + 5)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
