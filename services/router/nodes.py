"""Asking a node: its chunks as they come, and a clear word when there will be none.

NodeError
├── NodeGone      no connection, a 5xx, a broken stream: another node may do better
└── NodeRefused   a 4xx with the node's own body: 404 = not ready for this version, else the request is at fault

The client is our own: of HTTP/1.1 it speaks what our nodes do (keep-alive, lengths, chunks), at a fifth of what a
general client costs a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

NOT_FOUND = 404
BAD_REQUEST = 400
SERVER_ERROR = 500
IDLE = 64
"""Connections to one node that are kept while nobody uses them."""

BROKEN = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
"""What a connection raises that ends early or speaks nonsense."""


class NodeError(Exception):
    """A node gave no answer."""


class NodeGone(NodeError):
    """The node or its engine failed."""


class NodeRefused(NodeError):
    """The node does not take this request."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.body = body


@dataclass
class _Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(frozen=True)
class _Head:
    """Status and the headers that matter."""

    status: int
    length: int | None
    chunked: bool
    events: bool
    keep: bool


class NodeClient:
    """Keep-alive connections to every node; of one event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[str, list[_Line]] = {}

    async def chat(self, url: str, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI objects: chunks of a stream, or one completion. Raises `NodeError`."""
        line: _Line | None = None
        whole = False
        try:
            line, head = await self._send(url, body, headers)
            if head.status >= BAD_REQUEST:
                raw = b"".join([part async for part in _body(line.reader, head)])
                whole = head.keep
                if head.status >= SERVER_ERROR:
                    raise NodeGone(f"status {head.status}")
                raise NodeRefused(head.status, raw)
            async for item in _objects(_body(line.reader, head), events=head.events):
                yield item
            whole = head.keep
        except BROKEN as error:
            raise NodeGone(type(error).__name__) from None
        finally:
            if line is not None:
                self._give_back(url, line, whole=whole)

    async def close(self) -> None:
        """Close the connections."""
        for lines in self._idle.values():
            for line in lines:
                line.writer.close()
                with suppress(OSError):
                    await line.writer.wait_closed()
        self._idle.clear()

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[_Line, _Head]:
        """Write the request and read the head; kept connections that the node has closed are replaced."""
        parts = urlsplit(url)
        fields = {"host": parts.netloc, "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"POST {parts.path}/v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
        while kept := self._idle.get(url):
            line = kept.pop()
            with suppress(*BROKEN):
                return line, await _ask(line, request)
        line = await self._connect(parts.hostname or "", parts.port, parts.scheme)
        return line, await _ask(line, request)

    async def _connect(self, host: str, port: int | None, scheme: str) -> _Line:
        secure = scheme == "https"
        async with asyncio.timeout(self._connect_timeout_s):
            pair = await asyncio.open_connection(host, port or (443 if secure else 80), ssl=secure or None)
        return _Line(*pair)

    def _give_back(self, url: str, line: _Line, *, whole: bool) -> None:
        kept = self._idle.setdefault(url, [])
        if whole and len(kept) < IDLE:
            kept.append(line)
        else:
            line.writer.close()


async def _ask(line: _Line, request: bytes) -> _Head:
    """Write a request and read the head of its answer; a connection on which that fails is closed."""
    try:
        line.writer.write(request)
        await line.writer.drain()
        return _parse(await line.reader.readuntil(b"\r\n\r\n"))
    except BaseException:
        line.writer.close()
        raise


def _parse(raw: bytes) -> _Head:
    """The head of an answer. Raises ValueError."""
    first, *rest = raw.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in rest if row)}
    length = fields.get("content-length")
    return _Head(
        status=int(first.split(" ", 2)[1]),
        length=None if length is None else int(length),
        chunked=fields.get("transfer-encoding", "").lower() == "chunked",
        events=fields.get("content-type", "").startswith("text/event-stream"),
        keep=fields.get("connection", "").lower() != "close",
    )


async def _body(reader: asyncio.StreamReader, head: _Head) -> AsyncIterator[bytes]:
    if head.length is not None:
        yield await reader.readexactly(head.length)
        return
    if not head.chunked:
        raise ValueError("neither a length nor chunks")
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


async def _objects(body: AsyncIterator[bytes], *, events: bool) -> AsyncIterator[dict[str, Any]]:
    """The objects of an answer; a stream must end with its DONE."""
    if not events:
        yield msgspec.json.decode(b"".join([part async for part in body]), type=dict[str, Any])
        return
    rest, ended = b"", False
    async for part in body:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data: [DONE]"):
                ended = True
            elif line.startswith(b"data: "):
                item = msgspec.json.decode(line[6:], type=dict[str, Any])
                if "error" in item:
                    raise NodeGone("error in the stream")
                yield item
    if not ended:
        raise NodeGone("the stream broke off")
