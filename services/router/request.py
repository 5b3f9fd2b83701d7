"""A customer's request, checked: who asks, in which conversation, what, and what may be recorded of it."""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.router.record import ROLES, Turn, recordable
from services.serving_config import RouterConfig
from streams.events import MAX_ID

NAME = "driftline"


class BadRequest(Exception):
    """A request that is not served: HTTP status, OpenAI's `code`, and a message without chat text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Ask:
    """What a request asks for."""

    body: dict[str, Any] = field(repr=False)
    turns: tuple[Turn, ...]
    """Its messages with text; `places` says where each stands in the body."""
    places: tuple[int, ...]
    stream: bool
    conversation_id: str
    tenant: str
    customer_id: str | None
    version: str | None
    """Named by an operator; no draw, no pin, no record."""
    record: bool

    @property
    def recorded(self) -> list[Turn]:
        """The turns that become chat events; none when nothing is recorded."""
        return [turn for turn in self.turns if recordable(turn.text)] if self.record else []


def read(config: RouterConfig, admin_token: str, headers: Mapping[str, str], raw: bytes) -> Ask:
    """Check one request to /v1/chat/completions. Raises `BadRequest`."""
    token = headers.get("authorization", "").removeprefix("Bearer ").strip()
    admin = is_admin(admin_token, token)
    tenant = _tenant(config, token, admin=admin)
    body = _body(config, raw)
    turns, places = _turns(config, body)
    given = body.get("metadata")
    metadata: dict[str, Any] = given if isinstance(given, dict) else {}
    customer = body.get("user") or metadata.get("customer_id")
    unrecorded = headers.get("x-driftline-record", "").lower() == "none"
    if unrecorded and not admin:
        raise BadRequest(403, "forbidden", "X-Driftline-Record: none wants the admin token")
    version = _version(config, body.get("model"), admin=admin)
    return Ask(
        body=body,
        turns=turns,
        places=places,
        stream=bool(body.get("stream")),
        conversation_id=_conversation(headers.get("x-conversation-id") or metadata.get("conversation_id")),
        tenant=tenant,
        customer_id=customer if isinstance(customer, str) and 0 < len(customer) <= MAX_ID else None,
        version=version,
        record=config.record == "all" and not unrecorded and version is None,
    )


def is_admin(admin_token: str, token: str) -> bool:
    """Whether a bearer token is the operators' one; an empty one opens nothing."""
    return bool(admin_token) and hmac.compare_digest(admin_token.encode(), token.encode())


def _tenant(config: RouterConfig, token: str, *, admin: bool) -> str:
    if admin or not config.api_keys:
        return ""
    for key, tenant in config.api_keys.items():
        if hmac.compare_digest(key.encode(), token.encode()):
            return tenant
    raise BadRequest(401, "invalid_api_key", "wants a bearer token of this router")


def _body(config: RouterConfig, raw: bytes) -> dict[str, Any]:
    if len(raw) > config.max_body_bytes:
        raise BadRequest(413, "too_large", f"body: wants at most {config.max_body_bytes} bytes")
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadRequest(400, "invalid_json", "body: wants JSON") from None
    if not isinstance(body, dict):
        raise BadRequest(400, "invalid_type", "body: wants a JSON object")
    if body.get("n") not in {None, 1}:
        raise BadRequest(400, "invalid_value", "n: wants 1, as a conversation goes on with one answer")
    return body


def _turns(config: RouterConfig, body: Mapping[str, Any]) -> tuple[tuple[Turn, ...], tuple[int, ...]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= config.max_messages:
        raise BadRequest(400, "invalid_value", f"messages: wants a list of 1 to {config.max_messages}")
    turns, places = [], []
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(400, "invalid_type", f"messages.{at}: wants an object with a role")
        text = _text(message.get("content"), at)
        role = ROLES.get(message["role"])
        if role is not None and text is not None:
            turns.append(Turn(role, text))
            places.append(at)
    if not turns:
        raise BadRequest(400, "invalid_value", "messages: wants one with text")
    return tuple(turns), tuple(places)


def _text(content: object, at: int) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    raise BadRequest(400, "invalid_type", f"messages.{at}.content: wants text")


def _conversation(given: object) -> str:
    if given is None or given == "":
        return uuid.uuid4().hex
    if not isinstance(given, str) or not given.strip() or len(given) > MAX_ID:
        raise BadRequest(400, "invalid_value", f"conversation id: wants 1 to {MAX_ID} characters")
    return given


def _version(config: RouterConfig, model: object, *, admin: bool) -> str | None:
    if model in {None, NAME, f"{NAME}:{config.line}"}:
        return None
    if not isinstance(model, str) or not admin:
        raise BadRequest(404, "model_not_found", f"model: wants {NAME}; a version wants the admin token")
    return model
