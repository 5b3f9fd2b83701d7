"""Asking a node: its chunks as they come, and a clear word when there will be none.

NodeError
├── NodeGone      no connection, a 5xx, a broken stream: another node may do better
└── NodeRefused   a 4xx with the node's own body: 404 = not ready for this version, else the request is at fault
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec

NOT_FOUND = 404
SERVER_ERROR = 500


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


class NodeClient:
    """Keep-alive connections to every node."""

    def __init__(self, connect_timeout_s: float, answer_timeout_s: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30.0)
        timeout = httpx.Timeout(answer_timeout_s, connect=connect_timeout_s)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def chat(self, url: str, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI objects: chunks of a stream, or one completion. Raises `NodeError`."""
        try:
            async with self._client.stream(
                "POST", f"{url}/v1/chat/completions", content=body, headers=dict(headers)
            ) as response:
                if response.status_code >= SERVER_ERROR:
                    raise NodeGone(f"status {response.status_code}")
                if not response.is_success:
                    raise NodeRefused(response.status_code, await response.aread())
                async for item in _objects(response):
                    yield item
        except (httpx.HTTPError, httpx.StreamError, msgspec.DecodeError) as error:
            raise NodeGone(type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _objects(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        yield msgspec.json.decode(await response.aread(), type=dict[str, Any])
        return
    ended = False
    async for line in response.aiter_lines():
        if line.startswith("data: [DONE]"):
            ended = True
        elif line.startswith("data: "):
            item = msgspec.json.decode(line[6:], type=dict[str, Any])
            if "error" in item:
                raise NodeGone("error in the stream")
            yield item
    if not ended:
        raise NodeGone("the stream broke off")
