"""What vLLM and SGLang have in common: control over HTTP on loopback, answers passed through, a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from services.engines import BadAsk, EngineBusy, EngineGone

OK = 200
TOO_MANY = 429
UNAVAILABLE = 503
SERVER_ERROR = 500


class HttpEngine:
    """An engine behind an HTTP port. `command` starts it; empty: somebody else does, and a restart only looks."""

    def __init__(self, url: str, timeout_s: float, command: Sequence[str] = (), *, start_s: float = 180.0) -> None:
        self._url = url.rstrip("/")
        self._command = tuple(command)
        self._start_s = start_s
        self._child: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=False)
        self._answers = httpx.AsyncClient(base_url=self._url, timeout=timeout_s, trust_env=False)

    def restart(self) -> None:
        """Start it, or start it afresh, and wait until it is healthy. Raises `EngineGone`."""
        if self._command:
            self._end()
            # a session of its own: the engine starts workers, and all of them end together
            self._child = subprocess.Popen(self._command, start_new_session=True)
        pause = threading.Event()
        for _ in range(int(self._start_s)):
            with suppress(httpx.HTTPError):
                if self._client.get("/health", timeout=2.0).status_code == OK:
                    return
            if not self._command or (self._child is not None and self._child.poll() is not None):
                break
            pause.wait(1.0)
        raise EngineGone("not healthy")

    def close(self) -> None:
        """End a child process; close the connections."""
        self._end()
        self._client.close()

    async def close_answers(self) -> None:
        """Close the connections of the event loop that asked."""
        await self._answers.aclose()
        self._answers = httpx.AsyncClient(base_url=self._url, timeout=self._client.timeout, trust_env=False)

    def loaded(self) -> dict[str, str]:
        """Name -> path as loaded, by `GET /v1/models`; the base has no parent and is left out."""
        response = self.call("GET", "/v1/models")
        if response.status_code != OK:
            raise EngineGone(f"/v1/models: status {response.status_code}")
        try:
            models = msgspec.json.decode(response.content)["data"]
            return {str(m["id"]): str(m["root"]) for m in models if m.get("parent")}
        except (msgspec.DecodeError, KeyError, TypeError):
            raise EngineGone("/v1/models: no list of models") from None

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """One control call. Raises `EngineGone` when there is no answer in time: what it did is unknown then."""
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise EngineGone(type(error).__name__) from None

    async def passed(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The engine's own OpenAI objects. Raises `EngineError`."""
        try:
            async with self._answers.stream("POST", "/v1/chat/completions", json=dict(body)) as response:
                _check(response.status_code)
                if not body.get("stream"):
                    yield msgspec.json.decode(await response.aread(), type=dict[str, Any])
                    return
                ended = False
                async for line in response.aiter_lines():
                    ended = ended or line.startswith("data: [DONE]")
                    if line.startswith("data: {"):
                        yield _object(line[6:])
                if not ended:
                    raise EngineGone("the stream broke off")
        except (httpx.HTTPError, httpx.StreamError, msgspec.DecodeError) as error:
            raise EngineGone(type(error).__name__) from None

    def _end(self) -> None:
        if self._child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(10)
        self._child = None


def _check(status: int) -> None:
    if status in {TOO_MANY, UNAVAILABLE}:
        raise EngineBusy(f"status {status}")
    if status >= SERVER_ERROR:
        raise EngineGone(f"status {status}")
    if status != OK:
        raise BadAsk(f"the engine answers {status}")


def _object(raw: str) -> dict[str, Any]:
    item = msgspec.json.decode(raw, type=dict[str, Any])
    if "error" in item:
        raise EngineGone("error in the stream")
    return item
