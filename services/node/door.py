"""The node's HTTP door: only READY versions that the rollout record names get through; answers name their version.

POST /v1/chat/completions   `model` is a version id or `base`
GET  /v1/models             what is READY
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.engines import BadAsk, Engine, EngineError, EngineGone, Poisoned
from services.engines.http_engine import SERVER_ERROR
from services.node.agent import Agent
from services.rollout_records import BASE, NodeState

STRIPPED = ("prompt_logprobs", "echo")
"""They kill vLLM's engine when adapter requests share the batch (registry-and-nodes.md, trap 20)."""

Flag = Callable[[str, str], None]
"""Looks at a whole answer: (conversation pseudonym, text)."""


class Doorway:
    """The handlers over one agent and its engine."""

    def __init__(self, agent: Agent, engine: Engine, flag: Flag) -> None:
        self._agent = agent
        self._engine = engine
        self._flag = flag

    async def chat(self, request: Request) -> Response:
        """One answer of one version."""
        try:
            body = msgspec.json.decode(await request.body(), type=dict[str, Any])
        except msgspec.DecodeError:
            return _error(400, "invalid_json", "body: wants a JSON object")
        version = body.get("model")
        if not isinstance(version, str) or not self._agent.enter(version):
            return _error(404, "model_not_found", "model: not ready on this node")
        for name in STRIPPED:
            body.pop(name, None)
        answer = self._answer(version, body, request.headers.get("x-driftline-p", ""))
        try:
            first = await anext(answer)
        except BadAsk as bad:
            return _error(400, "invalid_value", str(bad))
        except (EngineError, StopAsyncIteration):
            return _error(503, "unavailable", "the engine gave no answer")
        if body.get("stream"):
            return StreamingResponse(_events(first, answer), media_type="text/event-stream")
        await anext(answer, None)
        return Response(msgspec.json.encode(first), media_type="application/json")

    async def models(self, _request: Request) -> Response:
        """READY versions."""
        ready = [v for v, status in self._agent.statuses().items() if status.state is NodeState.READY]
        return JSONResponse({"object": "list", "data": [{"id": v, "object": "model"} for v in sorted(ready)]})

    async def _answer(self, version: str, body: dict[str, Any], conversation: str) -> AsyncGenerator[dict[str, Any]]:
        """The objects of an answer whose door was entered; a version that fails at once is replaced by stable."""
        serving = version
        try:
            try:
                source, first = await self._begin(version, body)
            except (Poisoned, EngineGone):
                instead = self._agent.instead_of(version)
                if instead is None or not self._agent.enter(instead):
                    raise
                self._agent.leave(version)
                serving = instead
                source, first = await self._begin(instead, body)
            text: list[str] = []
            async with aclosing(source):
                yield _outward(first, serving, text)
                async for item in source:
                    yield _outward(item, serving, text)
            whole = "".join(text)
            self._agent.note_answer(serving, good=bool(whole.strip()))
            self._flag(conversation, whole)
        finally:
            self._agent.leave(serving)

    async def _begin(self, version: str, body: dict[str, Any]) -> tuple[AsyncGenerator[dict[str, Any]], dict[str, Any]]:
        """The engine's answer and its first object. Raises `EngineError`."""
        began = time.perf_counter()
        source = self._guarded(version, self._engine.chat(None if version == BASE else version, body))
        first = await anext(source)
        return source, {**first, "driftline": {"first_s": time.perf_counter() - began}}

    async def _guarded(self, version: str, source: AsyncIterator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any]]:
        """The same objects; failures are told to the agent."""
        try:
            async for item in source:
                yield item
        except Poisoned:
            self._agent.poison(version)
            raise
        except EngineGone:
            self._agent.note_answer(version, good=False)
            raise


def create_app(doorway: Doorway) -> Starlette:
    """The ASGI application."""
    return Starlette(
        routes=[
            Route("/v1/chat/completions", doorway.chat, methods=["POST"]),
            Route("/v1/models", doorway.models),
        ]
    )


def _outward(item: dict[str, Any], version: str, text: list[str]) -> dict[str, Any]:
    for choice in item.get("choices", []):
        part = choice.get("delta") or choice.get("message") or {}
        if part.get("content"):
            text.append(part["content"])
    return {**item, "model": version}


async def _events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    yield b"data: " + msgspec.json.encode(first) + b"\n\n"
    try:
        async for item in rest:
            yield b"data: " + msgspec.json.encode(item) + b"\n\n"
    except EngineError:
        error = {"error": {"message": "the engine broke off", "type": "server_error", "code": "unavailable"}}
        yield b"data: " + msgspec.json.encode(error) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _error(status: int, code: str, message: str) -> Response:
    kind = "server_error" if status >= SERVER_ERROR else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status_code=status)
