"""The router's parts: draw and pins, numbers, placeholders, spool, requests, and the door over stub nodes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services.http_server import HttpServer
from services.local.supervisor import free_port
from services.rollout_records import BASE, NodeRecord, NodeState, RolloutRecord, VersionStatus, draw
from services.router.app import Routes, create_app
from services.router.backlog import Backlog
from services.router.door import Door
from services.router.fill import Filler, looped
from services.router.metrics import RouterMetrics
from services.router.nodes import NodeClient, NodeGone, NodeRefused
from services.router.pins import Pins, turn_digest
from services.router.request import BadRequest, read
from services.router.spool import Spool
from services.router.view import Pin, View
from services.serving_config import RouterConfig
from services.topic_feed import make_producer
from streams.events import Message, decode
from streams.rollout_events import Exposure, Outcome, decode_exposure, decode_outcome
from streams.scrub import Keys
from streams.topics import CHATS_RAW, EXPOSURES, OUTCOMES

A, B, C = "a000001-aaaaaaaa", "a000002-bbbbbbbb", "a000003-cccccccc"
KEYS = Keys("k1", {"k1": b"1" * 16}, b"2" * 16)
ADMIN = {"Authorization": "Bearer secret"}


def record(generation: int, **changes: Any) -> RolloutRecord:
    """A rollout of B against A at one half."""
    base = {"rollout_id": "r1", "stable": A, "canary": B, "weight": 0.5, "salt": "salt", "state": "canary"}
    return RolloutRecord(generation=generation, **{**base, **changes})


def node(name: str, *ready: str, url: str = "", at: float = 0.0) -> NodeRecord:
    """A node's report."""
    versions = {v: VersionStatus(role="stable", state=NodeState.READY) for v in ready}
    return NodeRecord(
        node=name, url=url or f"http://{name}", generation=1, versions=versions, engine="embedded",
        started_at=0.0, at=at, every_s=1.0,
    )  # fmt: skip


def view_of(*nodes: NodeRecord, **changes: Any) -> View:
    """A view with a record and these nodes."""
    found = View("a")
    assert found.accept(record(1, **changes))
    for each in nodes:
        found.report(each)
    return found


def test_router_draw_gives_the_weight_and_growth_keeps_members() -> None:
    """Shares lie within 4 sigma of the weight, a raised weight keeps earlier members, a new salt draws afresh."""
    names = [f"c{n}" for n in range(20_000)]
    for weight in (0.01, 0.05, 0.25, 0.5):
        members = {name for name in names if draw("salt", name) < weight}
        sigma = math.sqrt(weight * (1 - weight) * len(names))
        assert abs(len(members) - weight * len(names)) < 4 * sigma
        assert members <= {name for name in names if draw("salt", name) < min(1.0, weight * 2)}
    other = {name for name in names if draw("other", name) < 0.5}
    both = sum(1 for name in other if draw("salt", name) < 0.5)
    assert abs(both - len(other) / 2) < 4 * math.sqrt(len(other) / 4)


def test_router_assigns_to_stable_when_no_node_is_ready_for_the_candidate() -> None:
    """The arm stays as it was drawn (intention to treat); only the version falls back."""
    view = view_of(node("n1", A), weight=1.0)
    pin, fallback = view.assign("c1", 0.0)
    assert (pin.version, pin.arm, pin.p, fallback) == (A, "candidate", 1.0, True)


def test_router_never_assigns_a_killed_candidate() -> None:
    """A kill switch means weight 0 at once, and pins of the candidate go to stable."""
    view = view_of(node("n1", A, B), weight=1.0)
    assert view.assign("c1", 0.0)[0].version == B
    view.kill(B)
    pin, _ = view.assign("c1", 0.0)
    assert (pin.version, pin.arm, pin.p) == (A, "control", 0.0)
    moved = view.follow(Pin(B, "r1", "candidate", 1.0), 0.0)
    assert (moved.version, moved.mixed) == (A, True)


@pytest.mark.parametrize(
    ("changes", "version"),
    [({"deny": (B,), "canary": None}, B), ({"canary": C}, B), ({"stable": B, "previous": None, "canary": None}, A)],
)
def test_router_moves_pins_of_versions_that_may_not_serve(changes: dict[str, Any], version: str) -> None:
    """Denied or retired: stable takes over and the conversation is marked; nobody else ever moves."""
    view = view_of(node("n1", A, B, C))
    kept = Pin(version, "r1", "candidate", 0.5)
    assert view.follow(kept, 0.0) == kept
    view.accept(record(2, **changes))
    moved = view.follow(kept, 0.0)
    assert moved.version == view.record.stable
    assert moved.mixed


def test_router_keeps_record_and_kills_over_a_restart(tmp_path: Path) -> None:
    """Without Kafka and Redis a router starts with the last record, and what was killed stays killed."""
    file = tmp_path / "record.json"
    view = View("a", file)
    view.accept(record(5))
    view.kill(B)
    again = View("a", file)
    assert again.record == record(5)
    assert again.killed == {B}
    assert not again.accept(record(5, weight=1.0))
    assert not again.accept(record(4))
    assert again.accept(record(6, deny=(B,), canary=None))
    assert again.killed == frozenset()


def test_router_forgets_a_node_that_is_silent_for_three_reports() -> None:
    """Its last word ages; a newer report brings it back."""
    view = view_of(node("n1", A))
    view.heard_s = 3.5
    assert view.urls(A, 1000.0) == ["http://n1"], "the broker was away: nobody has grown old"
    view.heard_s = 4.5
    assert view.urls(A, 1000.0) == []
    view.report(node("n1", A, at=1.0))
    assert view.urls(A, 1000.0) == ["http://n1"]


TEXTS = st.lists(st.sampled_from(["<NAME_1>", "<ORDER_ID_12>", "<EMAIL_1>", "<", "a < b", "<B_", "é", " x", "<1>"]))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 6)))
def test_router_fills_placeholders_however_the_stream_is_cut(parts: list[str], sizes: list[int]) -> None:
    """Any cutting of an answer gives the same text; unknown placeholders are left out and counted."""
    text = "".join(parts)
    values = {"<NAME_1>": "Jo <3", "<ORDER_ID_12>": "77"}
    whole = Filler(values)
    wanted = whole.feed(text) + whole.end()
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    cut = Filler(values)
    assert "".join(cut.feed(piece) for piece in [*pieces, rest]) + cut.end() == wanted
    assert cut.cut == whole.cut == text.count("<EMAIL_1>")


def test_router_calls_an_answer_looped_only_when_it_turns_in_circles() -> None:
    """The same few words again and again, not a list or a short refrain."""
    assert looped("please restart the device and " * 12)
    assert not looped("one two three " * 3)
    assert not looped(" ".join(f"step {n} do this and that {n * 7}" for n in range(20)))


def test_router_numbers_new_messages_once(redis_url: str, redis_client: redis.Redis) -> None:
    """History is known again, a repeated "yes" is new behind its answer, a retried request numbers nothing twice."""

    async def scenario() -> None:
        client = Redis.from_url(redis_url)
        pins = Pins(client, 60)

        async def turn(job: str, *said: str, answer: str | None = None) -> tuple[int, int, int]:
            digests = [turn_digest(b"k" * 16, "assistant" if s[0] == "A" else "customer", s) for s in said]
            begun = await pins.begin("c1", Pin(A), job, digests)
            if answer:
                await pins.answered("c1", job, turn_digest(b"k" * 16, "assistant", answer))
            return begun.first, begun.skip, begun.count

        assert await turn("j1", "older", "Aolder", "hi", answer="A1") == (0, 2, 1), "no match: the last message only"
        assert await turn("j1", "older", "Aolder", "hi", answer="A1") == (0, 2, 1), "a repeat of the job"
        assert await turn("j2", "hi", "A1", "yes", answer="A2") == (2, 2, 1)
        assert await turn("j3", "hi", "A1", "yes", "A2", "yes", answer="A3") == (4, 4, 1)
        assert await turn("j4", "yes", "A3", "more", "and more", answer="A4") == (6, 2, 2)
        assert await turn("j5", "and more") == (9, 1, 0), "the client did not get A4 and asks again"
        assert await turn("j6", "no history at all", answer="A6") == (9, 0, 1)
        await pins.close()

    del redis_client
    asyncio.run(scenario())


def test_router_pins_once_and_moves_by_compare_and_set(redis_url: str, redis_client: redis.Redis) -> None:
    """The first pin stands whatever later routers propose; of two movers the first wins."""

    async def scenario() -> None:
        pins = Pins(Redis.from_url(redis_url), 60)
        first, second = Pin(A, "r1", "control", 0.25), Pin(B, "r1", "candidate", 0.25)
        assert (await pins.begin("c2", first, "j", [])).fresh
        begun = await pins.begin("c2", second, "j", [])
        assert (begun.pin, begun.fresh, begun.first) == (first, False, -1)
        moved = Pin(C, "r1", "control", 0.25, mixed=True)
        assert await pins.move("c2", first, moved) == moved
        assert await pins.move("c2", first, second) == moved
        await pins.close()

    asyncio.run(scenario())
    assert 0 < int(redis_client.pttl("pin:{c2}")) <= 60_000


def producer_at(bootstrap: str, timeout_ms: int = 20_000) -> Callable[[], Any]:
    """A factory of producers that give up after a while."""
    return lambda: make_producer({"bootstrap.servers": bootstrap, "message.timeout.ms": timeout_ms, "log_level": 0})


def delivered(spool: Spool) -> bool:
    """Poll until nothing is pending, for 30 s at most."""
    for _ in range(600):
        spool.poll(0.05)
        if not spool.pending():
            return True
    return False


def test_router_spool_empties_when_the_broker_has_it_all(tmp_path: Path, mock_broker: dict[str, Any]) -> None:
    """A record is on disk before `put` returns and gone after its delivery report."""
    spool = Spool(tmp_path, producer_at(mock_broker["bootstrap"]), lambda: 0.0)
    spool.put(EXPOSURES, "c1", b"{}", {"tenant": b"t"})
    assert b'"topic":"rollout.exposures"' in next(tmp_path.glob("*.jsonl")).read_bytes()
    assert delivered(spool)
    spool.close()
    assert list(tmp_path.glob("*.jsonl")) == []


def test_router_spool_survives_a_kill_and_an_absent_broker(tmp_path: Path, mock_broker: dict[str, Any]) -> None:
    """What was not delivered, a torn last line apart, is sent by the next process; the absent broker blocks nobody."""
    nobody = f"127.0.0.1:{free_port()}"
    dead = Spool(tmp_path, producer_at(nobody, 400), lambda: 0.0)
    for number in range(5):
        dead.put(EXPOSURES, f"c{number}", b'{"n":%d}' % number)
    for _ in range(20):
        dead.poll(0.05)
    assert dead.pending() == {EXPOSURES: 5}
    dead.close(0.0)
    with next(tmp_path.glob("*.jsonl")).open("ab") as file:
        file.write(b'{"topic":"rollout.exp')
    alive = Spool(tmp_path, producer_at(mock_broker["bootstrap"]), lambda: 10.0)
    assert alive.pending() == {EXPOSURES: 5}
    assert delivered(alive)
    alive.close()


GOOD = {"model": "driftline", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"[" * 100_000, {}, 400),
        ({**GOOD, "messages": []}, {}, 400),
        ({**GOOD, "messages": ["hi"]}, {}, 400),
        ({**GOOD, "messages": [{"role": "user", "content": 5}]}, {}, 400),
        ({**GOOD, "messages": [{"role": "tool", "content": "x"}]}, {}, 400),
        ({**GOOD, "n": 2}, {}, 400),
        ({**GOOD, "model": A}, {}, 404),
        ({**GOOD, "model": "gpt"}, {}, 404),
        (GOOD, {"x-driftline-record": "none"}, 403),
        (GOOD, {"x-conversation-id": "x" * 600}, 400),
        ({**GOOD, "pad": "x" * 2_000_000}, {}, 413),
    ],
)
def test_router_refuses_requests_that_it_cannot_serve(body: Any, headers: dict[str, str], status: int) -> None:
    """Each with the HTTP status that OpenAI clients expect, and without a word of the chat in the message."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadRequest) as caught:
        read(RouterConfig(), "secret", headers, raw)
    assert caught.value.status == status
    assert "hi" not in caught.value.message.split()


def test_router_reads_who_asks_in_which_conversation() -> None:
    """Header before metadata before a new id; tenants by their key; parts of content are joined."""
    config = RouterConfig(api_keys={"key-1": "shop"})
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    body = {"model": "driftline:a", "user": "jo", "metadata": {"conversation_id": "m1"},
            "messages": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": parts}]}  # fmt: skip
    headers = {"authorization": "Bearer key-1"}
    ask = read(config, "secret", headers, json.dumps(body).encode())
    assert (ask.conversation_id, ask.tenant, ask.customer_id) == ("m1", "shop", "jo")
    assert [(turn.role, turn.text) for turn in ask.turns] == [("system", "be kind"), ("customer", "hello")]
    assert (
        read(config, "secret", {**headers, "x-conversation-id": "h1"}, json.dumps(body).encode()).conversation_id
        == "h1"
    )
    with pytest.raises(BadRequest) as caught:
        read(config, "secret", {"authorization": "Bearer other"}, json.dumps(body).encode())
    assert caught.value.status == 401


class StubNode:
    """A node that answers as told; `seen` keeps the requests."""

    def __init__(self, text: str = "hello there", status: int = 200) -> None:
        self.text = text
        self.status = status
        self.breaks = False
        self.seen: list[dict[str, Any]] = []
        app = Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])
        self.server = HttpServer(app, "127.0.0.1", 0)
        self.server.start()

    async def chat(self, request: Request) -> Response:
        """One answer."""
        body = json.loads(await request.body())
        self.seen.append(body)
        if self.status != 200:
            return JSONResponse({"error": {}}, status_code=self.status)
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        if body.get("stream"):
            return StreamingResponse(self.events(head), media_type="text/event-stream")
        message = {"role": "assistant", "content": self.text}
        return JSONResponse({**head, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def events(self, head: dict[str, Any]) -> AsyncIterator[bytes]:
        """The text, letter by letter."""
        for letter in self.text:
            chunk = {**head, "choices": [{"index": 0, "delta": {"content": letter}, "finish_reason": None}]}
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        if self.breaks:
            return
        chunk = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"


class Kept:
    """A spool that keeps."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes]] = []

    def put(self, topic: str, key: str, value: bytes, headers: dict[str, bytes] | None = None) -> None:
        """Keep one."""
        del headers
        self.records.append((topic, key, value))

    def exposures(self) -> list[Exposure]:
        """What was exposed."""
        return [decode_exposure(value) for topic, _, value in self.records if topic == EXPOSURES]

    def outcomes(self) -> list[Outcome]:
        """What went wrong."""
        return [decode_outcome(value) for topic, _, value in self.records if topic == OUTCOMES]

    def turns(self) -> list[Message]:
        """What was recorded."""
        events = [decode(key.encode(), value) for topic, key, value in self.records if topic == CHATS_RAW]
        return [event for event in events if isinstance(event, Message)]


class Bench:
    """A router's app in this process over stub nodes; `redis_url` may point at nobody."""

    def __init__(self, folder: Path, redis_url: str, view: View) -> None:
        self.view = view
        self.spool = Kept()
        self.now = 0.0
        self.backlog = Backlog(folder / "backlog.jsonl")
        self._redis_url = redis_url
        self.config = RouterConfig(spool=folder)

    def run(self, scenario: Callable[[httpx.AsyncClient, Door, Routes], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario in an event loop of its own."""
        asyncio.run(self._run(scenario))

    async def _run(self, scenario: Callable[[httpx.AsyncClient, Door, Routes], Coroutine[Any, Any, None]]) -> None:
        client = Redis.from_url(
            self._redis_url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        door = Door(
            self.config, KEYS, self.view, pins=Pins(client, 60), spool=self.spool,  # type: ignore[arg-type]
            backlog=self.backlog, nodes=NodeClient(1.0), mask=mask, metrics=RouterMetrics(CollectorRegistry()),
            clock=lambda: self.now, wall=lambda: 1000.0 + self.now,
        )  # fmt: skip
        routes = Routes(self.config, "secret", door)
        transport = httpx.ASGITransport(app=create_app(routes, door))
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as http:
            await scenario(http, door, routes)
        await door.nodes.close()
        await client.aclose()


def mask(turns: Any, customer_id: str | None) -> tuple[list[str], dict[str, str]]:
    """One name is personal here."""
    del customer_id
    return [turn.text.replace("Jo", "<PERSON_1>") for turn in turns], {"<PERSON_1>": "Jo"}


@pytest.fixture
def stub() -> Iterator[StubNode]:
    """A node."""
    found = StubNode()
    yield found
    found.server.stop()


@pytest.fixture
def bench(tmp_path: Path, redis_url: str, redis_client: redis.Redis, stub: StubNode) -> Bench:
    """A router over one stub node that is ready for A and B; every new conversation is a candidate's."""
    del redis_client
    return Bench(tmp_path, redis_url, view_of(node("n1", A, B, url=stub.server.url), weight=1.0))


def test_router_answers_with_the_version_and_fills_placeholders(bench: Bench, stub: StubNode) -> None:
    """The engine sees masked text and no personal field; the customer gets the own name back; all is recorded."""
    stub.text = "Dear <PERSON_1>, <EMAIL_9>goodbye"

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        body = {**GOOD, "messages": [{"role": "user", "content": "I am Jo"}], "user": "u1", "temperature": 0.5}
        answer = await http.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": "c1"})
        said = answer.json()
        assert said["choices"][0]["message"]["content"] == "Dear Jo, goodbye"
        assert (said["model"], answer.headers["x-driftline-version"], answer.headers["x-driftline-seq"]) == (B, B, "1")
        assert stub.seen == [
            {"temperature": 0.5, "model": B, "messages": [{"role": "user", "content": "I am <PERSON_1>"}]}
        ]
        asked, replied = bench.spool.turns()
        assert (asked.role, asked.text, asked.seq, asked.customer) == ("customer", "I am Jo", 0, {"id": "u1"})
        assert (replied.role, replied.text, replied.seq) == ("assistant", "Dear Jo, goodbye", 1)
        assert (replied.adapter, replied.arm, replied.p, replied.answer_id) == (B, "candidate", 1.0, said["id"])
        assert [topic for topic, _, _ in bench.spool.records] == [EXPOSURES, CHATS_RAW, CHATS_RAW]
        await http.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": "c1"})
        assert len(bench.spool.exposures()) == 1

    bench.run(scenario)


def test_router_streams_what_the_whole_answer_would_be(bench: Bench, stub: StubNode) -> None:
    """Server-sent events with our id and version, a placeholder put together again, DONE at the end."""
    stub.text = "Dear <PERSON_1>!"

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        body = {**GOOD, "stream": True}
        answer = await http.post("/v1/chat/completions", json=body)
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        chunks = [json.loads(line) for line in lines[:-1]]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Dear Jo!"
        assert {chunk["model"] for chunk in chunks} == {B}
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert bench.spool.turns()[-1].text == "Dear Jo!"

    bench.run(scenario)


def test_router_counts_a_broken_stream_against_its_arm(bench: Bench, stub: StubNode) -> None:
    """A stream that ends without DONE says so to the client, is an error outcome, and is not recorded as answer."""
    stub.breaks = True

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        answer = await http.post("/v1/chat/completions", json={**GOOD, "stream": True})
        assert '"code":"unavailable"' in answer.text
        assert "[DONE]" not in answer.text

    bench.run(scenario)
    assert [outcome.metric for outcome in bench.spool.outcomes()] == ["error"]
    assert [turn.role for turn in bench.spool.turns()] == ["customer"]


def test_router_tries_other_nodes_then_stable_before_it_fails_anybody(bench: Bench, stub: StubNode) -> None:
    """A dead node costs nothing; a candidate that fails everywhere costs an outcome, and stable answers."""
    bad = StubNode(status=500)
    nobody = f"http://127.0.0.1:{free_port()}"

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        bench.view.report(node("n0", A, B, url=nobody))
        answer = await http.post("/v1/chat/completions", json=GOOD)
        assert (answer.status_code, answer.json()["model"]) == (200, B)
        assert bench.spool.outcomes() == []
        bench.view.report(node("n0", url=nobody, at=1.0))
        bench.view.report(node("n1", A, url=stub.server.url, at=1.0))
        bench.view.report(node("n2", B, url=bad.server.url))
        headers = {"X-Conversation-Id": "rescued"}
        answer = await http.post("/v1/chat/completions", json=GOOD, headers=headers)
        assert (answer.status_code, answer.json()["model"]) == (200, A)
        assert [outcome.metric for outcome in bench.spool.outcomes()] == ["error"]
        assert bench.spool.exposures()[-1].version == B
        bench.view.report(node("n1", url=stub.server.url, at=2.0))
        assert (await http.post("/v1/chat/completions", json=GOOD, headers=headers)).status_code == 503

    try:
        bench.run(scenario)
    finally:
        bad.server.stop()


def test_router_serves_without_redis_and_numbers_later(bench: Bench, redis_url: str) -> None:
    """Hash alone, marked degraded; the turns wait on disk and get their numbers when Redis is back."""
    away = Bench(bench.config.spool, f"redis://127.0.0.1:{free_port()}/0", bench.view)

    async def ask(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        answer = await http.post("/v1/chat/completions", json=GOOD, headers={"X-Conversation-Id": "c9"})
        assert answer.status_code == 200
        assert "x-driftline-seq" not in answer.headers
        assert [exposure.degraded for exposure in away.spool.exposures()] == [True]
        assert away.spool.turns() == []

    away.run(ask)
    again = Bench(bench.config.spool, redis_url, bench.view)
    assert len(again.backlog) == 1

    async def drain(_http: httpx.AsyncClient, door: Door, _routes: Routes) -> None:
        await again.backlog.drain(door.pins, door.spool, door.digest_key)

    again.run(drain)
    assert [(turn.role, turn.seq) for turn in again.spool.turns()] == [("customer", 0), ("assistant", 1)]
    assert len(Backlog(bench.config.spool / "backlog.jsonl")) == 0


def test_router_kill_switch_works_without_redis(bench: Bench) -> None:
    """The authenticated POST acts in this router at once and says that the others did not hear."""
    away = Bench(bench.config.spool, f"redis://127.0.0.1:{free_port()}/0", bench.view)

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        assert (await http.post("/v1/rollout/kill")).status_code == 401
        assert (await http.post("/v1/rollout/kill", headers=ADMIN)).json() == {"killed": B, "everywhere": False}
        assert (await http.post("/v1/chat/completions", json=GOOD)).json()["model"] == A

    away.run(scenario)


def test_router_records_nothing_for_an_operator_who_asks_so(bench: Bench) -> None:
    """`X-Driftline-Record: none` keeps exposures only; a version by name is neither drawn, pinned nor recorded."""

    async def scenario(http: httpx.AsyncClient, _door: Door, _routes: Routes) -> None:
        quiet = {**ADMIN, "X-Driftline-Record": "none"}
        assert (await http.post("/v1/chat/completions", json=GOOD, headers=quiet)).json()["model"] == B
        assert [topic for topic, _, _ in bench.spool.records] == [EXPOSURES]
        named = await http.post("/v1/chat/completions", json={**GOOD, "model": A}, headers=ADMIN)
        assert named.json()["model"] == A
        assert len(bench.spool.records) == 1
        bench.view.accept(record(2, deny=(B,), canary=None))
        assert (await http.post("/v1/chat/completions", json={**GOOD, "model": B}, headers=ADMIN)).status_code == 404

    bench.run(scenario)


def test_router_counts_slow_and_empty_answers(bench: Bench, stub: StubNode) -> None:
    """Both guardrails of the router: late first text, and text that is none."""
    stub.text = " "

    async def scenario(http: httpx.AsyncClient, door: Door, _routes: Routes) -> None:
        await http.post("/v1/chat/completions", json=GOOD)
        assert [outcome.metric for outcome in bench.spool.outcomes()] == ["error"]
        stub.text = "fine"
        nodes = door.nodes.chat

        async def late(*args: Any) -> AsyncIterator[dict[str, Any]]:
            async for item in nodes(*args):
                bench.now += 2.5
                yield item

        door.nodes.chat = late  # type: ignore[method-assign, assignment]
        await http.post("/v1/chat/completions", json=GOOD)
        assert [outcome.metric for outcome in bench.spool.outcomes()] == ["error", "slow"]

    bench.run(scenario)


def test_router_node_client_keeps_connections_and_survives_closed_ones(stub: StubNode) -> None:
    """One connection serves many answers; one that the node has closed is replaced without a word."""

    async def scenario() -> None:
        client = NodeClient(1.0)
        body = msgspec.json.encode({"model": A})
        for _ in range(3):
            assert [item["model"] async for item in client.chat(stub.server.url, body, {})] == [A]
        (line,) = client._idle[stub.server.url]
        line.writer.close()
        await line.writer.wait_closed()
        assert [item["model"] async for item in client.chat(stub.server.url, body, {})] == [A]
        stub.status = 404
        with pytest.raises(NodeRefused):
            await anext(client.chat(stub.server.url, body, {}))
        stub.status = 503
        with pytest.raises(NodeGone):
            await anext(client.chat(stub.server.url, body, {}))
        with pytest.raises(NodeGone):
            await anext(client.chat(f"http://127.0.0.1:{free_port()}", body, {}))
        await client.close()

    asyncio.run(scenario())


def test_router_base_is_stable_before_the_first_record() -> None:
    """A router that has never heard of a controller serves the base where a node is ready for it."""
    view = View("a")
    assert view.assign("c", 0.0)[0] == Pin(BASE)
    assert view.safe(0.0) is None
    view.report(node("n1", BASE))
    assert view.safe(0.0) == BASE
