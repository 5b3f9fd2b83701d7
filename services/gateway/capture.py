"""The capture proxy: OpenAI's chat API, passed through to the upstream of the settings, and recorded.

The answer never waits for the record and never fails because of it: what cannot be recorded is counted. A client
that sends its whole history each time needs no conversation id: the digest of the messages so far names the chat.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from services.gateway.limits import Refusal, parse, read_body
from services.gateway.memory import Forgetful, Memory
from services.gateway.metrics import GatewayMetrics
from services.gateway.sink import Outgoing, Sink, Unavailable
from services.gateway_config import GatewayConfig
from streams.events import MAX_ID, MAX_TEXT, Message, encode, isoformat
from streams.sources.chats import message_id, role_of

_HOP = frozenset({"connection", "content-length", "content-encoding", "transfer-encoding", "keep-alive", "upgrade"})
"""Headers of the upstream that belong to its connection."""


@dataclass(frozen=True, repr=False)
class Said:
    """One message of a request, as a chat turn."""

    role: str
    text: str


@dataclass(frozen=True, repr=False)
class Chat:
    """A request that is to be recorded."""

    tenant: str
    conversation_id: str | None
    customer_id: str | None
    messages: tuple[Said, ...]


class Capture:
    """Passes requests to the upstream and their chats to Kafka."""

    def __init__(
        self,
        config: GatewayConfig,
        sink: Sink,
        memory: Memory,
        metrics: GatewayMetrics,
        *,
        tenant: Callable[[Any], str],
        wall: Callable[[], float],
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._config = config
        self._sink = sink
        self._memory = memory
        self._metrics = metrics
        self._tenant = tenant
        self._wall = wall
        # No redirects and no proxies of the environment: the only host ever called is the one of the settings.
        self._client = client or httpx.AsyncClient(
            timeout=config.upstream_timeout_s, follow_redirects=False, trust_env=False
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        try:
            chat, raw, streams = await self._read(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal.code)
        sent = self._client.build_request(
            "POST", f"{self._config.upstream}/chat/completions", content=raw, headers=self._headers(request)
        )
        try:
            answer = await self._client.send(sent, stream=True)
        except httpx.HTTPError:
            return _error(502, "upstream_unavailable")
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
        if streams and answer.is_success:
            return StreamingResponse(self._stream(answer, chat), answer.status_code, headers)
        try:
            content = await answer.aread()
        except httpx.HTTPError:
            return _error(502, "upstream_unavailable")
        finally:
            await answer.aclose()
        if answer.is_success:
            self._record(chat, _answer_text(content))
        return Response(content, answer.status_code, headers)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        try:
            self._tenant(request.headers)
            answer = await self._client.get(f"{self._config.upstream}/models", headers=self._headers(request))
        except Refusal as refusal:
            return _error(refusal.status, refusal.code)
        except httpx.HTTPError:
            return _error(502, "upstream_unavailable")
        return Response(answer.content, answer.status_code, media_type="application/json")

    async def close(self) -> None:
        """Finish the records that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await self._client.aclose()

    async def _read(self, request: Request) -> tuple[Chat, bytes, bool]:
        tenant = self._tenant(request.headers)
        raw = await read_body(request.stream(), request.headers.get("content-length"), self._config)
        body = parse(raw, self._config)
        if not isinstance(body, dict):
            raise Refusal(400, "wrong_type")
        metadata = body.get("metadata")
        known = metadata if isinstance(metadata, dict) else {}
        name = request.headers.get("x-conversation-id") or known.get("conversation_id")
        customer = body.get("user") or known.get("customer_id")
        chat = Chat(tenant, _usable(name), _usable(customer), _messages(body.get("messages")))
        return chat, raw, body.get("stream") is True

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self._config.upstream_key:
            headers["authorization"] = f"Bearer {self._config.upstream_key}"
        accept = request.headers.get("accept")
        return {**headers, "accept": accept} if accept else headers

    async def _stream(self, answer: httpx.Response, chat: Chat) -> AsyncIterator[bytes]:
        pieces: list[str] = []
        rest = b""
        try:
            async for chunk in answer.aiter_bytes():
                yield chunk
                *lines, rest = (rest + chunk).split(b"\n")
                pieces.extend(_piece(line) for line in lines)
            # Only an answer that came to its end is an answer; its last line may lack a line feed.
            self._record(chat, "".join([*pieces, _piece(rest)]))
        finally:
            await answer.aclose()

    def _record(self, chat: Chat, answer: str) -> None:
        if not chat.messages or not answer.strip() or len(answer) > MAX_TEXT:
            self._metrics.uncaptured.inc()
            return
        task = asyncio.create_task(self._produce(chat, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _produce(self, chat: Chat, answer: str) -> None:
        try:
            name, seq, new = await self._place(chat)
            said = [*new, Said(self._config.record_agent, answer)]
            records = [self._outgoing(chat, name, seq + at, one) for at, one in enumerate(said)]
            await self._sink.put(records)
        except (Forgetful, Unavailable):
            self._metrics.uncaptured.inc()
            return
        whole = [*chat.messages, Said("assistant", answer)]
        await self._memory.keep_chat(chat.tenant, _digest(chat, whole), name, seq + len(said))
        if chat.conversation_id is not None:
            await self._memory.keep_chat(chat.tenant, _named(name), name, seq + len(said))
        self._metrics.events.labels("ingest", "accepted").inc(len(records))

    async def _place(self, chat: Chat) -> tuple[str, int, Sequence[Said]]:
        """Conversation, next number and new messages: those behind the last answer, where the chat is known."""
        answers = [at for at, said in enumerate(chat.messages) if said.role == "assistant"]
        behind = answers[-1] + 1 if answers else 0
        if behind:
            found = await self._memory.chat(chat.tenant, _digest(chat, chat.messages[:behind]))
            if found is not None:
                return found[0], found[1], chat.messages[behind:]
        # History that we did not see is not recorded: it is not ours to number.
        new = chat.messages[behind:]
        if chat.conversation_id is None:
            return str(uuid.uuid4()), 0, new
        last = await self._memory.chat(chat.tenant, _named(chat.conversation_id))
        return chat.conversation_id, last[1] if last else 0, new

    def _outgoing(self, chat: Chat, name: str, seq: int, said: Said) -> Outgoing:
        role = role_of(said.role)
        event = Message(
            event_id=message_id(name, seq, said.role, said.text),
            conversation_id=name,
            seq=seq,
            ts=isoformat(self._wall()),
            role=role or "customer",
            text=said.text,
            channel="api",
            customer={"id": chat.customer_id} if chat.customer_id and role == "customer" else None,
        )
        return Outgoing(name.encode(), encode(event), chat.tenant)


def _messages(found: object) -> tuple[Said, ...]:
    out = []
    for message in found if isinstance(found, list) else []:
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = "\n".join(part for part in parts if isinstance(part, str))
        role = {"developer": "system"}.get(str(message.get("role")), str(message.get("role")))
        known = role in {"user", "assistant", "system"}
        if known and isinstance(content, str) and content.strip() and len(content) <= MAX_TEXT:
            out.append(Said(role, content))
    return tuple(out)


def _answer_text(content: bytes) -> str:
    try:
        body = msgspec.json.decode(content)
        text = body["choices"][0]["message"]["content"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def _piece(line: bytes) -> str:
    """The text of one server-sent event of a streamed answer."""
    if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
        return ""
    try:
        text = msgspec.json.decode(line[5:].strip())["choices"][0]["delta"].get("content")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return text if isinstance(text, str) else ""


def _digest(chat: Chat, messages: Sequence[Said]) -> str:
    digest = sha256(f"{chat.conversation_id or ''}\x1f{chat.customer_id or ''}".encode(errors="surrogatepass"))
    for said in messages:
        digest.update(f"\x1e{said.role}\x1f{said.text}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _named(conversation_id: str) -> str:
    return f"id:{conversation_id}"


def _usable(name: object) -> str | None:
    return name if isinstance(name, str) and name.strip() and len(name) <= MAX_ID and name.isprintable() else None


def _error(status: int, code: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": code, "type": "gateway_error"}}, status_code=status)
