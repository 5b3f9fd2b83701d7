"""The router's HTTP routes.

POST /v1/chat/completions   OpenAI's chat API
GET  /v1/models             what a client may ask for
POST /v1/rollout/kill       switch the candidate (or `version`) off, here and through Redis; admin token
GET  /v1/rollout            record, nodes, killed versions; admin token
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.router.door import Door, Served, Unserved
from services.router.nodes import SERVER_ERROR
from services.router.request import NAME, BadRequest, is_admin, read
from services.serving_config import RouterConfig


class Routes:
    """The handlers over one door."""

    def __init__(self, config: RouterConfig, admin_token: str, door: Door) -> None:
        self._config = config
        self._admin_token = admin_token
        self._door = door

    async def chat(self, request: Request) -> Response:
        """One turn of a conversation."""
        try:
            ask = read(self._config, self._admin_token, request.headers, await self._raw(request))
            turn = await self._door.begin(ask)
            answer = self._door.objects(turn)
            first = await anext(answer)
            if ask.stream:
                return StreamingResponse(_events(first, answer), media_type="text/event-stream", headers=_headers(turn))
            await anext(answer, None)
            return Response(msgspec.json.encode(first), media_type="application/json", headers=_headers(turn))
        except BadRequest as bad:
            return _error(bad.status, bad.code, bad.message)
        except Unserved:
            return _error(503, "unavailable", "no node could answer; try again")
        except ClientDisconnect:
            return Response(status_code=499)

    async def models(self, _request: Request) -> Response:
        """The one model that clients name."""
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": NAME}]})

    async def kill(self, request: Request) -> Response:
        """The kill switch that needs nobody else."""
        if not self._admin(request):
            return _error(401, "invalid_api_key", "wants the admin token")
        raw = await self._raw(request)
        try:
            body: Any = msgspec.json.decode(raw) if raw.strip() else {}
        except msgspec.DecodeError:
            return _error(400, "invalid_json", "body: wants JSON or nothing")
        version = (body.get("version") if isinstance(body, dict) else None) or self._door.view.record.canary
        if not isinstance(version, str):
            return _error(409, "nothing_to_kill", "no candidate is running; name a version")
        self._door.view.kill(version)
        everywhere = True
        try:
            await self._door.pins.kill(self._config.line, version)
        except RedisError:
            everywhere = False
        return JSONResponse({"killed": version, "everywhere": everywhere})

    async def status(self, request: Request) -> Response:
        """For operators and tests."""
        if not self._admin(request):
            return _error(401, "invalid_api_key", "wants the admin token")
        return JSONResponse(self._door.view.status())

    async def watch(self) -> None:
        """Read the kill switch and send what waits for Redis, for ever."""
        while True:
            try:
                self._door.view.killed_elsewhere(await self._door.pins.killed(self._config.line))
                self._door.redis_answers = True
                await self._door.backlog.drain(self._door.pins, self._door.spool, self._door.digest_key)
            except RedisError:
                self._door.redis_answers = False
            await asyncio.sleep(self._config.kill_poll_s)

    def _admin(self, request: Request) -> bool:
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return is_admin(self._admin_token, token)

    async def _raw(self, request: Request) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._config.max_body_bytes:
                raise BadRequest(413, "too_large", f"body: wants at most {self._config.max_body_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


def create_app(routes: Routes, door: Door) -> Starlette:
    """The ASGI application; its background task lives as long as it does."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(routes.watch())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await door.nodes.close()
        await door.pins.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/v1/rollout/kill", routes.kill, methods=["POST"]),
            Route("/v1/rollout", routes.status),
        ],
        lifespan=lifespan,
    )


def _headers(turn: Served) -> dict[str, str]:
    given = {
        "X-Conversation-Id": turn.ask.conversation_id,
        "X-Driftline-Version": turn.pin.version,
        "X-Driftline-Answer": turn.answer_id,
    }
    if turn.seq is not None:
        given["X-Driftline-Seq"] = str(turn.seq)
    return {name: value for name, value in given.items() if value.isascii() and value.isprintable()}


async def _events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Server-sent events; a failure after the first byte can only be told inside the stream."""
    yield b"data: " + msgspec.json.encode(first) + b"\n\n"
    try:
        async for item in rest:
            yield b"data: " + msgspec.json.encode(item) + b"\n\n"
    except Unserved:
        error = {"error": {"message": "the answer broke off", "type": "server_error", "code": "unavailable"}}
        yield b"data: " + msgspec.json.encode(error) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _error(status: int, code: str, message: str) -> Response:
    kind = "server_error" if status >= SERVER_ERROR else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status_code=status)
