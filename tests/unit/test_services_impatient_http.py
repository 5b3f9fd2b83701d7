"""Connections that do not send a whole head in time are closed; those that do are served as before."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from services.http_server import HttpServer
from services.impatient_http import ImpatientProtocol


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that waits 0.3 s for a head."""
    monkeypatch.setattr(ImpatientProtocol, "head_s", 0.3)
    server = HttpServer(Starlette(routes=[Route("/", _echo, methods=["POST"])]), "127.0.0.1", 0)
    server.start()
    yield server.port
    server.stop()


def _closed_after(connection: socket.socket) -> float:
    began = time.monotonic()
    assert connection.recv(100) == b""
    return time.monotonic() - began


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.1\r\nhost"])
def test_impatient_http_closes_silent_connections(port: int, begun: bytes) -> None:
    """No byte, or a head that never ends: closed after the time, also after a first request that was served."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(begun)
        assert 0.1 < _closed_after(connection) < 3
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(begun or b"P")
        assert 0.1 < _closed_after(connection) < 3


def test_impatient_http_lets_slow_bodies_and_pipelines_pass(port: int) -> None:
    """Once the head is whole its request may take longer: bodies have bounds of their own."""
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(head + b"h")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(10)
            connection.settimeout(5)
            connection.sendall(b"i")
            assert connection.recv(1000).endswith(b"hi")
