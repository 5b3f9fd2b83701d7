"""One request through the router: pin, exposure, numbers, a node's answer, outcomes.

The order is the contract: the exposure is written before the answer, whether or not one follows; the customer's
messages are recorded before it too; nothing of Kafka, Redis or the learner is waited for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
from redis.exceptions import RedisError

from services.answer_ids import answer_id
from services.router.backlog import Backlog, Waiting
from services.router.fill import Filler, looped
from services.router.metrics import ROLES, RouterMetrics
from services.router.nodes import NOT_FOUND, NodeClient, NodeError, NodeRefused
from services.router.pins import Begun, Pins, turn_digest
from services.router.record import Chat, Turn, answered, asked, recordable
from services.router.request import Ask, BadRequest
from services.router.spool import Spool
from services.router.view import Pin, View
from services.serving_config import RouterConfig
from streams import rollout_events
from streams.rollout_events import Exposure, Metric, Outcome, Source
from streams.scrub.identity import Keys, conversation_pseudonym, ledger_key
from streams.topics import CHATS_RAW, EXPOSURES, OUTCOMES

ATTEMPTS = 3
"""Nodes that are asked for one version before another version takes over."""

PRIVATE = ("user", "metadata", "store", "messages", "model")
"""Fields of a request that no engine sees as they came."""


class Mask(Protocol):
    """Scrubs the turns of one request: the masked texts, and what each placeholder stands for."""

    def __call__(self, turns: Sequence[Turn], customer_id: str | None) -> tuple[list[str], Mapping[str, str]]:
        """Both, from the messages alone; nothing is stored."""


class Unserved(Exception):
    """No node could answer."""


@dataclass
class Served:
    """One turn on its way."""

    ask: Ask
    conversation: str
    job: str
    """Names this turn, 32 hex digits: whatever is repeated for it is done once."""
    pin: Pin
    began: float
    begun: Begun | None = None
    """None while nothing is recorded, or Redis is away."""
    degraded: bool = False
    filler: Filler = field(default_factory=lambda: Filler({}))
    masked: list[str] = field(default_factory=list, repr=False)
    text: list[str] = field(default_factory=list, repr=False)
    first_s: float | None = None
    """From the request to the first text, seconds."""
    seq: int | None = None
    """The answer's number, once it has one."""

    @property
    def answer_id(self) -> str:
        """The id of the answer that the pinned version gives."""
        return answer_id(self.pin.version, self.job)


class Door:
    """All that a request needs; one object a process."""

    def __init__(
        self,
        config: RouterConfig,
        keys: Keys,
        view: View,
        *,
        pins: Pins,
        spool: Spool,
        backlog: Backlog,
        nodes: NodeClient,
        mask: Mask,
        metrics: RouterMetrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.view = view
        self.pins = pins
        self.spool = spool
        self.backlog = backlog
        self.nodes = nodes
        self._config = config
        self._keys = keys
        self.digest_key = ledger_key(keys)
        self._mask = mask
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self.redis_answers = True
        """False from a failed call until `Routes.watch` got an answer again: nobody waits for an absent Redis."""

    async def begin(self, ask: Ask) -> Served:
        """Assign or follow, expose, record what was asked. Raises `BadRequest`."""
        now = self._clock()
        conversation = conversation_pseudonym(self._keys, ask.conversation_id, ask.tenant)
        turn = Served(ask, conversation, uuid.uuid4().hex, Pin(ask.version or ""), now)
        if ask.version is None:
            await self._pin(turn, now)
        elif ask.version in self.view.record.deny or not self.view.urls(ask.version, now):
            self._metrics.denied.inc()
            raise BadRequest(404, "model_not_found", "model: no node is ready for this version")
        if turn.begun is not None and turn.begun.first >= 0:
            new = ask.recorded[turn.begun.skip : turn.begun.skip + turn.begun.count]
            for value in asked(self._chat(turn), new, turn.begun.first):
                self.spool.put(CHATS_RAW, ask.conversation_id, value, {"tenant": ask.tenant.encode()})
        turn.masked, values = self._mask(ask.turns, ask.customer_id)
        turn.filler = Filler(values)
        return turn

    async def objects(self, turn: Served) -> AsyncIterator[dict[str, Any]]:
        """The OpenAI objects of the answer as the client gets them. Raises `Unserved` or `BadRequest`."""
        try:
            source, url, first = await self._open(turn)
        except Unserved:
            self._count(turn, "error")
            raise
        self.view.started(url)
        item: dict[str, Any] | None = first
        try:
            async with aclosing(source):
                while item is not None:
                    yield self._outward(turn, item)
                    item = await self._next(source, turn)
        except (NodeError, TimeoutError) as error:
            self.view.suspect(url, self._clock())
            self._bad(turn, Metric.ERROR)
            self._count(turn, "timeout" if isinstance(error, TimeoutError) else "error")
            raise Unserved from None
        finally:
            self.view.ended(url)
        await self._finish(turn)

    async def _pin(self, turn: Served, now: float) -> None:
        """Draw or follow; without Redis the draw alone decides, and the conversation is no evidence."""
        proposed, fallback = self.view.assign(turn.conversation, now)
        ask, fresh = turn.ask, True
        digests = [turn_digest(self.digest_key, t.role, t.text) for t in ask.recorded]
        if self.redis_answers:
            try:
                turn.begun = await self.pins.begin(turn.conversation, proposed, turn.job, digests)
            except RedisError:
                self.redis_answers = False
        if turn.begun is not None:
            turn.pin, fresh = turn.begun.pin, turn.begun.fresh
        else:
            turn.pin, turn.degraded = proposed, True
            self._metrics.degraded.inc()
        if fresh:
            self._metrics.assignments.labels(proposed.arm or "none", str(fallback).lower()).inc()
            self._expose(turn, fallback=fallback)
        followed = self.view.follow(turn.pin, now)
        if followed != turn.pin:
            await self._move(turn, followed)

    def _expose(self, turn: Served, *, fallback: bool) -> None:
        pin, record = turn.pin, self.view.record
        if pin.arm is None:
            return
        exposure = Exposure(
            rollout_id=pin.rollout_id,
            generation=record.generation,
            line=record.line,
            conversation_id=turn.conversation,
            arm=pin.arm,
            version=pin.version,
            p=pin.p,
            ts=self._wall(),
            fallback=fallback,
            degraded=turn.degraded,
        )
        self.spool.put(EXPOSURES, turn.conversation, rollout_events.encode(exposure))

    async def _move(self, turn: Served, pin: Pin) -> None:
        """The pinned version may not or cannot serve: another takes over, and the conversation is mixed."""
        old = turn.pin
        denied = old.version in self.view.record.deny or old.version in self.view.killed
        gone = old.version not in self.view.record.roles()
        self._metrics.moved.labels("denied" if denied else "retired" if gone else "unready").inc()
        turn.pin = pin
        if turn.degraded:
            return
        try:
            stands = await self.pins.move(turn.conversation, old, pin)
        except RedisError:
            self.redis_answers = False
            return
        if self.view.servable(stands.version):
            turn.pin = stands

    async def _open(self, turn: Served) -> tuple[AsyncGenerator[dict[str, Any]], str, dict[str, Any]]:
        """A node that has begun to answer: of the pinned version, else of the safe one."""
        opened = await self._first(turn)
        if opened is None:
            self._bad(turn, Metric.ERROR)
            safe = self.view.safe(self._clock())
            if turn.ask.version is None and safe is not None and safe != turn.pin.version:
                await self._move(turn, replace(turn.pin, version=safe, mixed=True))
                opened = await self._first(turn)
        if opened is None:
            raise Unserved
        return opened

    async def _first(self, turn: Served) -> tuple[AsyncGenerator[dict[str, Any]], str, dict[str, Any]] | None:
        body, headers = self._inward(turn), {"content-type": "application/json", "x-driftline-p": turn.conversation}
        for url in self.view.urls(turn.pin.version, self._clock())[:ATTEMPTS]:
            source = self.nodes.chat(url, body, headers)
            try:
                item = await self._next(source, turn)
                if item is not None:
                    return source, url, item
            except NodeRefused as refused:
                if refused.status != NOT_FOUND:
                    raise BadRequest(refused.status, "invalid_value", "the engine does not take this request") from None
            except (NodeError, TimeoutError):
                self.view.suspect(url, self._clock())
            await source.aclose()
        return None

    async def _next(self, source: AsyncGenerator[dict[str, Any]], turn: Served) -> dict[str, Any] | None:
        """The next object, None at the end. Raises `NodeError`, TimeoutError."""
        left = turn.began + self._config.answer_timeout_s - self._clock()
        async with asyncio.timeout(max(left, 0.0)):
            return await anext(source, None)

    def _inward(self, turn: Served) -> bytes:
        """The request as the node gets it: masked messages, the version as model, no personal fields."""
        messages = list(turn.ask.body["messages"])
        for place, text in zip(turn.ask.places, turn.masked, strict=True):
            messages[place] = {"role": messages[place]["role"], "content": text}
        body = {name: value for name, value in turn.ask.body.items() if name not in PRIVATE}
        return msgspec.json.encode({**body, "model": turn.pin.version, "messages": messages})

    def _outward(self, turn: Served, item: dict[str, Any]) -> dict[str, Any]:
        """An object as the client gets it: our ids, the customer's own values for placeholders."""
        extra = item.pop("driftline", {})
        if item.get("model", turn.pin.version) != turn.pin.version:
            self._bad(turn, Metric.ERROR)
            turn.pin = replace(turn.pin, version=item["model"], mixed=True)
        for choice in item.get("choices", []):
            part = choice.get("delta") or choice.get("message") or {}
            text = turn.filler.feed(part.get("content") or "")
            if choice.get("finish_reason"):
                text += turn.filler.end()
            if text or part.get("content"):
                choice["delta" if "delta" in choice else "message"] = {**part, "content": text}
            if text:
                turn.text.append(text)
                if turn.first_s is None:
                    turn.first_s = extra.get("first_s", self._clock() - turn.began)
        return {**item, "id": turn.answer_id, "model": turn.pin.version}

    async def _finish(self, turn: Served) -> None:
        """The answer is whole: outcomes, then its number and its event."""
        text = "".join(turn.text)
        empty = not text.strip() or looped(text)
        if empty:
            self._bad(turn, Metric.ERROR)
        if turn.first_s is not None and turn.first_s > self._config.slow_s:
            self._bad(turn, Metric.SLOW)
        self._metrics.stray.inc(turn.filler.cut)
        self._count(turn, "error" if empty else "ok")
        if turn.ask.record:
            await self._record_answer(turn, text)

    async def _record_answer(self, turn: Served, text: str) -> None:
        chat, ask = self._chat(turn), turn.ask
        if turn.begun is not None and not recordable(text):
            return
        if turn.begun is not None:
            digest = turn_digest(self.digest_key, "assistant", text)
            try:
                turn.seq = await self.pins.answered(turn.conversation, turn.job, digest)
            except RedisError:
                self.redis_answers = False
        if turn.seq is not None:
            value = answered(chat, text, turn.seq, turn.pin)
            self.spool.put(CHATS_RAW, ask.conversation_id, value, {"tenant": ask.tenant.encode()})
            return
        roles, texts = [t.role for t in ask.recorded], [t.text for t in ask.recorded]
        self.backlog.put(Waiting(chat, turn.conversation, roles, texts, text, turn.pin.encode()))

    def _chat(self, turn: Served) -> Chat:
        ask = turn.ask
        return Chat(
            conversation_id=ask.conversation_id,
            tenant=ask.tenant,
            line=self._config.line,
            customer_id=ask.customer_id,
            answer_id=turn.answer_id,
            at=self._wall(),
        )

    def _bad(self, turn: Served, metric: Metric) -> None:
        """Something happened that a guardrail counts; only conversations that are compared matter."""
        if turn.pin.arm is None:
            return
        outcome = Outcome(
            conversation_id=turn.conversation,
            metric=metric,
            bad=True,
            event_ts=self._wall(),
            answer_id=turn.answer_id,
            source=Source.ROUTER,
        )
        self.spool.put(OUTCOMES, turn.conversation, rollout_events.encode(outcome))

    def _count(self, turn: Served, outcome: str) -> None:
        role = self.view.record.roles().get(turn.pin.version, "other")
        role = role if role in ROLES else "other"
        self._metrics.replies.labels(role, outcome).inc()
        self._metrics.duration.labels(role).observe(self._clock() - turn.began)
