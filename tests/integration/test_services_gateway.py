"""The gateway over HTTP against the embedded broker and a real Redis."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka import Producer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from services.gateway.app import Gateway, create_app
from services.gateway.capture import Capture
from services.gateway.memory import Memory, connect
from services.gateway.metrics import GatewayMetrics
from services.gateway.sink import Outgoing, Sink, Unavailable
from services.gateway_config import GatewayConfig
from services.http_server import HttpServer
from services.pacing import Backlog
from services.simulate import Mix, Record, traffic
from streams.topics import CHATS_RAW
from tests.kafka_reading import embedded, read_all

Start = Callable[..., httpx.Client]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEYS = {"key-a": "acme", "key-b": "bolt"}


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e-{number}",
        "type": "message",
        "conversation_id": "c",
        "seq": number,
        "role": "customer",
        "text": "hi",
        "ts": "2026-01-02T03:04:05Z",
        **more,
    }


@dataclass(frozen=True)
class Raw:
    """Where a test's records go: a topic of its own on this module's broker."""

    bootstrap: str
    topic: str


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one embedded broker for this module."""
    yield from embedded(tmp_path_factory.mktemp("broker"))


@pytest.fixture
def raw(broker: str, request: pytest.FixtureRequest) -> Raw:
    """A fresh topic."""
    name = f"{CHATS_RAW}.{request.node.name.partition('[')[0]}"
    Producer({"bootstrap.servers": broker}).list_topics(name, timeout=5)
    return Raw(broker, name)


@pytest.fixture
def start(raw: Raw, redis_url: str, redis_client: redis.Redis) -> Iterator[Start]:
    """A function that starts a gateway with some settings and gives a client of it, authorised as acme."""
    assert redis_client.ping()
    open_parts: list[tuple[HttpServer, Sink, httpx.Client]] = []

    def begin(config: GatewayConfig | None = None, bootstrap: str = "", url: str = redis_url) -> httpx.Client:
        config = replace(config or GatewayConfig(), api_keys=KEYS, port=0)
        base = {"bootstrap.servers": bootstrap or raw.bootstrap, "log_level": 0}
        sink = Sink(
            base, raw.topic, time.monotonic, max_queue_bytes=config.max_queue_bytes, timeout_s=config.produce_timeout_s
        )
        metrics = GatewayMetrics(CollectorRegistry())
        memory = Memory(connect(url, 1), raw.topic, config.remember_s, lambda _error: None)
        gateway = Gateway(config, sink, memory, metrics, clock=time.monotonic, wall=lambda: 1767323045.0)
        capture = None
        if config.upstream:
            capture = Capture(config, sink, memory, metrics, tenant=gateway.tenant, wall=lambda: 1767323045.0)
        server = HttpServer(create_app(gateway, capture), "127.0.0.1", 0)
        sink.start()
        server.start()
        client = httpx.Client(base_url=server.url, headers={"authorization": "Bearer key-a"}, timeout=20)
        open_parts.append((server, sink, client))
        return client

    yield begin
    for server, sink, client in open_parts:
        client.close()
        server.stop()
        sink.close(0.5)


def test_gateway_produces_an_event_once(start: Start, raw: Raw) -> None:
    """An event is acknowledged with its tenant in a header, and the same id again is known and not produced."""
    client, trace = start(), {"traceparent": TRACE}
    first, again = (client.post("/v1/events", json=event(0, tenant="bolt"), headers=trace) for _ in range(2))
    assert (first.status_code, first.json()) == (200, {"event_id": "e-0", "status": "produced"})
    assert again.json() == {"event_id": "e-0", "status": "known"}
    (found,) = read_all(raw.bootstrap, raw.topic)
    assert (found.key, json.loads(found.value)) == (b"c", event(0))
    assert found.headers == {"tenant": b"acme", "traceparent": TRACE.encode()}
    other = client.post("/v1/events", json=event(0), headers={"authorization": "Bearer key-b"})
    assert other.json()["status"] == "produced"


def test_gateway_takes_lines_of_a_traffic_file(start: Start, raw: Raw) -> None:
    """Lines with key and value are events; a key that contradicts its event, or a broken value, is refused by name."""
    client = start()
    lines = [
        {"offset_ms": 1, "key": "c", "value": event(0)},
        {"offset_ms": 2, "key": None, "value": event(1)},
        {"offset_ms": 3, "key": "c", "value_raw": '{"event_id": "e-2", "ty'},
        {"offset_ms": 4, "key": "c", "value_raw": json.dumps(event(3))},
        {"offset_ms": 5, "key": "c", "value": ["no object"]},
    ]
    answers = [client.post("/v1/events", json=line) for line in lines]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 200, 400]
    reasons = [answer.json().get("reason") for answer in answers]
    assert reasons == [None, "bad_key", "truncated_json", None, "wrong_type"]
    assert [json.loads(found.value) for found in read_all(raw.bootstrap, raw.topic)] == [event(0), event(3)]


def test_gateway_takes_batches_and_names_what_is_malformed(start: Start, raw: Raw) -> None:
    """Good events of a batch are produced, bad ones are named in place, and the answer is 400."""
    client = start()
    answer = client.post("/v1/events", json={"events": [event(0), event(1, text=""), event(2, role="boss"), event(3)]})
    assert answer.status_code == 400
    assert [r["status"] for r in answer.json()["results"]] == ["produced", "malformed", "malformed", "produced"]
    assert [r.get("reason") for r in answer.json()["results"]][1:3] == ["empty_text", "unknown_role"]
    lines = b"\n".join(json.dumps(event(n)).encode() for n in range(3, 6))
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    more = client.post("/v1/events", content=gzip.compress(lines), headers=headers)
    assert [r["status"] for r in more.json()["results"]] == ["known", "produced", "produced"]
    assert [json.loads(r.value)["seq"] for r in read_all(raw.bootstrap, raw.topic)] == [0, 3, 4, 5]


def test_gateway_wants_a_key(start: Start) -> None:
    """No key, a wrong one and another scheme are 401; so is everything when no key is configured."""
    client = start()
    for value in ("", "Bearer nope", "Basic key-a", "Bearer"):
        answer = client.post("/v1/events", json=event(0), headers={"authorization": value})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_gateway_throttles_with_retry_after(start: Start) -> None:
    """Above its rate a sender gets 429 with a time to wait; another sender does not."""
    client = start(GatewayConfig(rate_per_s=0.5, burst=2))
    assert [client.post("/v1/events", json=event(n)).status_code for n in range(3)] == [200, 200, 429]
    again = client.post("/v1/events", json=event(3))
    assert int(again.headers["retry-after"]) in {1, 2}
    assert client.post("/v1/events", json=event(4), headers={"authorization": "Bearer key-b"}).status_code == 200


def test_gateway_answers_503_when_kafka_is_away(start: Start) -> None:
    """Without an acknowledgment it is 503 with Retry-After within two seconds, and at once while Kafka stays away."""
    client = start(GatewayConfig(produce_timeout_s=0.4), bootstrap="127.0.0.1:1")
    began = time.monotonic()
    first = client.post("/v1/events", json=event(0))
    assert (first.status_code, first.headers["retry-after"]) == (503, "2")
    assert time.monotonic() - began < 2
    began = time.monotonic()
    assert client.post("/v1/events", json=event(1)).status_code == 503
    assert time.monotonic() - began < 0.3


def test_gateway_bounds_its_queue(start: Start) -> None:
    """What would not fit into the queue is refused at once."""
    client = start(GatewayConfig(max_queue_bytes=50))
    assert client.post("/v1/events", json=event(0)).status_code == 503


def test_gateway_goes_on_without_redis(start: Start, raw: Raw) -> None:
    """While Redis is away events are produced anyway, repeats too: the ledger drops them."""
    client = start(url="redis://127.0.0.1:1/0")
    assert [client.post("/v1/events", json=event(0)).json()["status"] for _ in range(2)] == ["produced", "produced"]
    assert len(read_all(raw.bootstrap, raw.topic)) == 2


def test_gateway_refuses_while_the_reader_is_far_behind(raw: Raw) -> None:
    """On the embedded broker the backlog of the reader is seen, and a paused sink takes nothing."""
    base = {"bootstrap.servers": raw.bootstrap, "log_level": 0}
    sink = Sink(base, raw.topic, time.monotonic, max_queue_bytes=10_000, timeout_s=5)
    sink.start()
    asyncio.run(sink.put([Outgoing(b"k", b"v", "") for _ in range(5)]))
    backlog = Backlog(base, "nobody", raw.topic, most=4)
    assert backlog.full()
    assert not Backlog(base, "nobody", raw.topic, most=5).full()
    backlog.close()
    sink.paused = True
    with pytest.raises(Unavailable):
        asyncio.run(sink.put([Outgoing(b"k", b"v", "")]))
    sink.close()


def test_gateway_takes_traffic_as_the_truth_says(start: Start, raw: Raw) -> None:
    """Of a traffic file every good record is taken once and every malformed one is 400; ingest carries those."""
    client = start()
    records = list(traffic(3, 40, mix=Mix(malformed=0.05, redelivered=0.03)))
    for record in records:
        broken = any(truth["kind"] == "malformed" for truth in record.truth)
        keyed = broken and "bad_key" in {truth.get("malformed") for truth in record.truth}
        status = client.post("/v1/events", content=record.raw()).status_code
        # A null key is wrong in Kafka only; over HTTP the key comes from the body.
        assert status == (400 if broken and not keyed else 200)
    ids = [json.loads(record.value)["event_id"] for record in read_all(raw.bootstrap, raw.topic)]
    good = {record.value["event_id"] for record in records if not isinstance(record.value, str) and _good(record)}
    assert len(ids) == len(set(ids))
    assert set(ids) == good


def _good(record: Record) -> bool:
    return {truth["malformed"] for truth in record.truth if truth["kind"] == "malformed"} <= {"bad_key"}


def test_gateway_serves_its_asyncapi_document(start: Start) -> None:
    """The document of the topics is there for everybody, with the types that only services know."""
    found = start().get("/asyncapi.json").json()
    assert set(found["channels"]["adapters.rollout"]["messages"]) == {"RolloutRecord"}


def test_gateway_takes_cloudevents(start: Start, raw: Raw) -> None:
    """Binary-mode attributes give id and time of a single event; envelopes come alone or in a batch."""
    bare = {k: v for k, v in event(0).items() if k not in {"event_id", "ts"}}
    headers = {"ce-specversion": "1.0", "ce-id": "ce-1", "ce-time": "2026-01-02T03:04:05Z"}
    assert start().post("/v1/events", json=bare, headers=headers).json()["event_id"] == "ce-1"
    assert json.loads(read_all(raw.bootstrap, raw.topic)[0].value)["ts"] == "2026-01-02T03:04:05Z"
    envelope = {"specversion": "1.0", "type": "chat", "source": "/crm", "time": "2026-01-02T03:04:05Z", "data": bare}
    batch = [{**envelope, "id": f"ce-{n}"} for n in (2, 3)]
    found = start().post("/v1/events", json=batch, headers={"content-type": "application/cloudevents-batch+json"})
    assert [result["event_id"] for result in found.json()["results"]] == ["ce-2", "ce-3"]
    assert {json.loads(record.value)["type"] for record in read_all(raw.bootstrap, raw.topic)} == {"message"}


@pytest.fixture
def upstream() -> Iterator[str]:
    """An OpenAI-compatible server that repeats the last message, streamed where asked."""

    async def completions(request: Request) -> JSONResponse | StreamingResponse:
        body = await request.json()
        said = f"You said {body['messages'][-1]['content']}."
        assert request.headers["authorization"] == "Bearer upstream-key"
        if body["messages"][-1]["content"] == "fail":
            return JSONResponse({"error": "no"}, status_code=500)
        if not body.get("stream"):
            return JSONResponse({"choices": [{"message": {"role": "assistant", "content": said}}]})

        async def pieces() -> Any:
            for word in said.split(" "):
                yield f"data: {json.dumps({'choices': [{'delta': {'content': word + ' '}}]})}\n\n"
                await asyncio.sleep(0)
            yield "data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def models(_request: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": "m"}]})

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"]), Route("/v1/models", models)])
    server = HttpServer(app, "127.0.0.1", 0)
    server.start()
    yield f"{server.url}/v1"
    server.stop()


def turns(raw: Raw, count: int) -> list[tuple[bytes | None, int, str, str]]:
    """The recorded turns, once there are `count`."""
    for _ in range(100):
        found = read_all(raw.bootstrap, raw.topic)
        if len(found) >= count:
            break
    rows = [(record.key, json.loads(record.value)) for record in found]
    return [(key, row["seq"], row["role"], row["text"]) for key, row in rows]


def test_gateway_capture_records_a_plain_client(start: Start, upstream: str, raw: Raw) -> None:
    """A client that sends its whole history each time is recorded as one conversation, each turn once, in order."""
    client = start(GatewayConfig(upstream=upstream, upstream_key="upstream-key"))
    history: list[dict[str, str]] = [{"role": "system", "content": "be kind"}]
    for number, text in enumerate(("one", "two", "three"), 1):
        history.append({"role": "user", "content": text})
        body = {"model": "m", "messages": history, "user": "cust-1"}
        answer = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
        history.append(answer)
        assert len(turns(raw, 1 + 2 * number)) == 1 + 2 * number
    found = turns(raw, 7)
    assert len({key for key, *_ in found}) == 1
    assert [seq for _, seq, *_ in found] == list(range(7))
    assert [role for *_, role, _ in found] == ["system", *["customer", "agent"] * 3]
    assert client.get("/v1/models").json() == {"data": [{"id": "m"}]}


def test_gateway_capture_records_streams_and_named_chats(start: Start, upstream: str, raw: Raw) -> None:
    """A streamed answer passes piece by piece and is recorded whole; a client with an id may send new messages only."""
    client = start(GatewayConfig(upstream=upstream, upstream_key="upstream-key"))
    for number, text in enumerate(("one", "two"), 1):
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
        answer = client.post("/v1/chat/completions", json=body, headers={"x-conversation-id": "named"})
        assert answer.text.endswith("data: [DONE]\n\n")
        turns(raw, 2 * number)
    assert turns(raw, 4) == [
        (b"named", 0, "customer", "one"),
        (b"named", 1, "agent", "You said one. "),
        (b"named", 2, "customer", "two"),
        (b"named", 3, "agent", "You said two. "),
    ]


def test_gateway_capture_passes_errors_and_records_none(start: Start, upstream: str, raw: Raw) -> None:
    """Errors of the upstream reach the client as they are; an upstream that is away is 502; neither is recorded."""
    client = start(GatewayConfig(upstream=upstream, upstream_key="upstream-key"))
    body = {"messages": [{"role": "user", "content": "fail"}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 500
    assert client.post("/v1/chat/completions", json=body, headers={"authorization": ""}).status_code == 401
    away = start(GatewayConfig(upstream="http://127.0.0.1:1/v1"))
    assert away.post("/v1/chat/completions", json=body).status_code == 502
    assert read_all(raw.bootstrap, raw.topic) == []


def test_gateway_capture_answers_while_kafka_and_redis_are_away(start: Start, upstream: str) -> None:
    """The customer's answer does not depend on the record."""
    config = GatewayConfig(upstream=upstream, upstream_key="upstream-key", produce_timeout_s=0.2)
    client = start(config, bootstrap="127.0.0.1:1", url="redis://127.0.0.1:1/0")
    body = {"messages": [{"role": "user", "content": "hi"}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), st.booleans()), max_size=30))
def test_gateway_numbers_turns_without_gaps(
    redis_url: str, redis_client: redis.Redis, calls: list[tuple[int, int, bool]]
) -> None:
    """Whatever comes twice or mixed: turns count 0, 1, 2 ... in each conversation, and an event keeps its number."""
    redis_client.flushall()

    async def numbers() -> list[int]:
        memory = Memory(connect(redis_url, 1), "b", 60, lambda _error: None)
        found = [
            await memory.number("t", f"c-{chat}", f"{chat}-{number}-{turn}", turn=turn) for chat, number, turn in calls
        ]
        await memory.close()
        return found

    model: dict[tuple[int, int, bool], int] = {}
    counts = [0, 0, 0]
    expected = []
    for call in calls:
        chat, _, turn = call
        if call not in model:
            model[call] = counts[chat]
            counts[chat] += turn
        expected.append(model[call])
    assert asyncio.run(numbers()) == expected
