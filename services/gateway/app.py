"""Routes of the gateway and their answers.

200 acknowledged by Kafka or already known; 400 malformed; 401 key, signature or time; 408 too slow; 413 too large;
429 above the sender's rate; 503 not acknowledged. 429 and 503 carry Retry-After.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.capture import Capture
from services.gateway.intake import events_of, record, refused
from services.gateway.limits import Rates, Refusal, parse, read_body, unpacked
from services.gateway.memory import Forgetful, Memory
from services.gateway.metrics import OUTCOMES, GatewayMetrics, Outcome
from services.gateway.sink import Outgoing, Sink, Unavailable
from services.gateway_config import GatewayConfig
from services.rollout_records import NodeRecord, RolloutRecord, VersionRecord
from streams.asyncapi import document
from streams.events import BadEvent, timestamp
from streams.sources.platforms import Draft, Malformed, challenge, drafts
from streams.sources.signatures import SOURCES, EventIds, Refused, verify
from streams.topics import NODES, ROLLOUT, VERSIONS

Handler = Callable[[Request], Awaitable[tuple[Response, Outcome]]]

RETRY_S = 2.0
"""Retry-After of a 503, seconds."""


class Gateway:
    """The parts of one gateway, and what its routes do with them."""

    def __init__(
        self,
        config: GatewayConfig,
        sink: Sink,
        memory: Memory,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.config = config
        self.metrics = metrics
        self._sink = sink
        self._memory = memory
        self._clock = clock
        self._wall = wall
        self._rates = Rates(config.rate_per_s, config.burst, clock)
        self._open = 0

    async def events(self, request: Request) -> Response:
        """POST /v1/events: one event, or a batch."""
        return await self._answer(request, "api", self._events)

    async def webhook(self, request: Request) -> Response:
        """POST /v1/webhooks/SOURCE/TENANT: what a platform signed."""
        source = request.path_params["source"]
        return await self._answer(request, source if source in SOURCES else "unknown", self._webhook)

    async def close(self) -> None:
        """Give the connections back."""
        await self._memory.close()

    def tenant(self, headers: Mapping[str, str]) -> str:
        """The tenant of a bearer key. Raises `Refusal` 401."""
        given = headers.get("authorization", "")
        token = given[7:].strip().encode() if given[:7].lower() == "bearer " else b""
        # Every key is compared, so that the time taken says nothing about which one is near.
        found = [name for key, name in self.config.api_keys.items() if hmac.compare_digest(key.encode(), token)]
        if not token or not found:
            raise Refusal(401, "unauthorized")
        return found[0]

    async def _answer(self, request: Request, source: str, handle: Handler) -> Response:
        began = self._clock()
        self._open += 1
        try:
            response, outcome = await (handle if self._open <= self.config.max_connections else _busy)(request)
            self.metrics.duration.labels("ingest").observe(self._clock() - began)
        except Refusal as refusal:
            response, outcome = _refusal(refusal), OUTCOMES[refusal.status]
        except (Unavailable, Forgetful):
            response, outcome = _refusal(Refusal(503, "unavailable", retry_after_s=RETRY_S)), "unavailable"
        except ClientDisconnect:
            response, outcome = Response(status_code=400), "timeout"
        finally:
            self._open -= 1
        self.metrics.requests.labels(source, outcome).inc()
        self.metrics.queued.set(self._sink.queued_bytes())
        return response

    async def _events(self, request: Request) -> tuple[Response, Outcome]:
        tenant = self.tenant(request.headers)
        body = await self._json(request)
        found = events_of(body, self.config.max_batch)
        self._throttle(f"key:{tenant}", len(found))
        results, records = self._check(found, tenant, request.headers)
        known = await self._produce(tenant, records)
        for event_id, place in ((name, place) for place, name, _ in records):
            results[place] = {"event_id": event_id, "status": "known" if event_id in known else "produced"}
        bad = sum(result["status"] == "malformed" for result in results)
        single = isinstance(body, dict) and "events" not in body
        content = results[0] if single else {"results": results}
        outcome: Outcome = "malformed" if bad else "duplicate" if len(known) == len(records) else "accepted"
        return JSONResponse(content, status_code=400 if bad else 200), outcome

    def _check(
        self, found: Sequence[Any], tenant: str, headers: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], list[tuple[int, str, Outgoing]]]:
        results: list[dict[str, Any]] = [{} for _ in found]
        records: list[tuple[int, str, Outgoing]] = []
        key = headers.get("idempotency-key")
        # Attributes of a CloudEvent belong to one event, never to a batch.
        attributes = headers if len(found) == 1 else {"traceparent": headers.get("traceparent", "")}
        for place, body in enumerate(found):
            try:
                event_id, outgoing = record(body, tenant, attributes, key, place)
            except (BadEvent, Refusal) as error:
                name = body.get("event_id") if isinstance(body, dict) else None
                results[place] = refused(error, name if isinstance(name, str) else None)
                self.metrics.rejections.labels("ingest", results[place]["reason"]).inc()
                self.metrics.events.labels("ingest", "rejected").inc()
                continue
            records.append((place, event_id, outgoing))
        return results, records

    async def _webhook(self, request: Request) -> tuple[Response, Outcome]:
        source, tenant = request.path_params["source"], request.path_params.get("tenant", "")
        hook = f"{source}/{tenant}" if tenant else source
        secrets = self.config.webhooks.get(hook, "").split()
        raw = await read_body(request.stream(), request.headers.get("content-length"), self.config)
        try:
            if source not in SOURCES:
                raise Refusal(401, "unauthorized")
            ids = verify(source, raw, request.headers, secrets, self._wall())
        except Refused as refusal:
            raise Refusal(401, str(refusal.reason)) from None
        self._throttle(f"hook:{hook}", 1)
        body = parse(unpacked(raw, request.headers.get("content-encoding", "").lower(), self.config), self.config)
        if not isinstance(body, dict):
            raise Refusal(400, "wrong_type", "body")
        return await self._signed(source, tenant, body, ids)

    async def _signed(self, source: str, tenant: str, body: dict[str, Any], ids: EventIds) -> tuple[Response, Outcome]:
        try:
            asked = challenge(source, body)
            if asked is not None:
                return JSONResponse({"challenge": asked}), "accepted"
            found = drafts(source, body, ids, self.config.slack_agents)
            self._fresh(found)
            records = await self._number(tenant, found)
        except Malformed as error:
            raise Refusal(400, "missing_field", str(error)) from None
        except BadEvent as error:
            self.metrics.rejections.labels("ingest", str(error.reason)).inc()
            raise Refusal(400, str(error.reason), error.field) from None
        known = await self._produce(tenant, records)
        content = {"events": len(records), "known": len(known)}
        return JSONResponse(content), "duplicate" if records and len(known) == len(records) else "accepted"

    def _fresh(self, found: Sequence[Draft]) -> None:
        """Refuse events from before the remembered ids: an old capture could be a repeat that nobody remembers."""
        for draft in found:
            try:
                at = timestamp(str(draft.get("ts", "")))
            except (ValueError, OverflowError):
                raise Malformed("ts") from None
            if self._wall() - at > self.config.remember_s:
                raise Refusal(401, "time", "ts")

    async def _number(self, tenant: str, found: Sequence[Draft]) -> list[tuple[int, str, Outgoing]]:
        records = []
        for place, draft in enumerate(found):
            whole = dict(draft)
            if "seq" not in whole:
                turn = whole.get("type") == "message"
                conversation, name = str(whole.get("conversation_id")), str(whole.get("event_id"))
                whole["seq"] = await self._memory.number(tenant, conversation, name, turn=turn)
                if whole.get("type") == "conversation_closed":
                    whole["turns"] = whole["seq"]
            event_id, outgoing = record(whole, tenant, {})
            records.append((place, event_id, outgoing))
        return records

    async def _produce(self, tenant: str, records: Sequence[tuple[int, str, Outgoing]]) -> frozenset[str]:
        """Send what is new, and give the ids that were known. Raises `Unavailable`."""
        names = [name for _, name, _ in records]
        seen = await self._memory.known(tenant, names)
        known = frozenset(name for name, old in zip(names, seen, strict=True) if old)
        fresh = {name: outgoing for _, name, outgoing in records if name not in known}
        if fresh:
            await self._sink.put(list(fresh.values()))
            await self._memory.remember(tenant, list(fresh))
            self.metrics.events.labels("ingest", "accepted").inc(len(fresh))
        return known

    async def _json(self, request: Request) -> Any:
        raw = await read_body(request.stream(), request.headers.get("content-length"), self.config)
        body = unpacked(raw, request.headers.get("content-encoding", "").lower(), self.config)
        if request.headers.get("content-type", "").startswith("application/x-ndjson"):
            return [parse(line, self.config) for line in body.splitlines() if line.strip()]
        return parse(body, self.config)

    def _throttle(self, sender: str, events: int) -> None:
        wait_s = self._rates.take(sender, events)
        if wait_s > 0:
            raise Refusal(429, "throttled", retry_after_s=wait_s)


def create_app(gateway: Gateway, capture: Capture | None) -> Starlette:
    """The ASGI application; the capture proxy's route only where an upstream is configured."""
    routes = [
        Route("/v1/events", gateway.events, methods=["POST"]),
        Route("/v1/webhooks/{source}", gateway.webhook, methods=["POST"]),
        Route("/v1/webhooks/{source}/{tenant}", gateway.webhook, methods=["POST"]),
        Route("/asyncapi.json", _asyncapi, methods=["GET"]),
    ]
    if capture is not None:
        routes.append(Route("/v1/chat/completions", capture.completions, methods=["POST"]))
        routes.append(Route("/v1/models", capture.models, methods=["GET"]))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        # Connections belong to the loop that opened them, so they are closed in it.
        if capture is not None:
            await capture.close()
        await gateway.close()

    return Starlette(routes=routes, lifespan=lifespan)


async def _busy(_request: Request) -> tuple[Response, Outcome]:
    raise Refusal(503, "busy", retry_after_s=RETRY_S)


async def _asyncapi(_request: Request) -> Response:
    return JSONResponse(document({VERSIONS: [VersionRecord], ROLLOUT: [RolloutRecord], NODES: [NodeRecord]}))


def _refusal(refusal: Refusal) -> Response:
    content = {"error": {"code": refusal.code, **({"field": refusal.field} if refusal.field else {})}}
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    if refusal.status == 401:  # Unauthorized
        headers["WWW-Authenticate"] = "Bearer"
    # A body that was not read to its end makes the connection unusable.
    if refusal.status in {408, 413}:
        headers["Connection"] = "close"
    return JSONResponse(content, status_code=refusal.status, headers=headers)
