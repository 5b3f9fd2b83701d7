"""T16, T17 and T18: forged and replayed webhooks, body bombs, requests that would have us call somewhere."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hmac
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.http_server import HttpServer
from services.local.supervisor import free_port
from services.settings import child_environment
from streams.events import isoformat
from streams.topics import CHATS_RAW
from tests.kafka_reading import embedded, read_all

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"zendesk": "zen secret".replace(" ", "-"), "slack": "slack-secret", "intercom": "intercom-secret"}
STANDARD = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
SOURCES = ("zendesk", "slack", "intercom", "standard")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one embedded broker for this module."""
    yield from embedded(tmp_path_factory.mktemp("broker"))


class Trap:
    """A listener that counts who calls it, and answers with a redirect to itself."""

    def __init__(self) -> None:
        self.called: list[str] = []
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT"])])
        self.server = HttpServer(app, "127.0.0.1", 0)
        self.url = self.server.url
        self.server.start()

    async def _answer(self, request: Request) -> Response:
        self.called.append(request.url.path)
        return Response(status_code=307, headers={"location": f"{self.url}/redirected"})


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    """One trap, which is also the upstream of the capture proxy."""
    found = Trap()
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def door(broker: str, redis_url: str, trap: Trap) -> Iterator[tuple[str, int]]:
    """URL and pid of a gateway process with all four hooks, the old secret still valid beside the new one."""
    port = free_port()
    hooks = {f"{source}/acme": f"old-{secret} {secret}" for source, secret in SECRETS.items()}
    hooks["standard/acme"] = f"{'whsec_' + base64.b64encode(b'x' * 24).decode()} {STANDARD}"
    values: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap": broker, "epoch": "attacks", "embedded": True},
        "redis": {"url": redis_url},
        "gateway": {
            "port": port,
            "webhooks": hooks,
            "upstream": f"{trap.url}/v1",
            "api_keys": {"key": "acme"},
            "body_timeout_s": 1.0,
        },
        "admin": {"port": free_port()},
    }
    command = [sys.executable, "-m", "services.cli", "gateway"]
    process = subprocess.Popen(command, cwd=ROOT, env=child_environment(values), stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(400):
        if _answers(url):
            break
        _pause(0.05)
    yield url, process.pid
    process.terminate()
    assert process.wait(15) == 0


def _pause(seconds: float) -> None:
    asyncio.run(asyncio.sleep(seconds))


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/asyncapi.json", timeout=1).is_success
    except httpx.HTTPError:
        return False


def body_of(source: str, name: str, now: float) -> bytes:
    """A message of each platform; `name` makes it unique."""
    if source == "zendesk":
        author = {"id": "1", "is_staff": False}
        comment = {"comment": {"author": author, "body": name, "is_public": True}}
        kind = "zen:event-type:ticket.comment_added"
        return json.dumps(
            {"id": name, "type": kind, "time": isoformat(now), "detail": {"id": name}, "event": comment}
        ).encode()
    if source == "slack":
        event = {"type": "message", "user": "U1", "text": name, "ts": f"{now:.6f}", "channel": "C"}
        return json.dumps({"type": "event_callback", "event_id": name, "team_id": "T", "event": event}).encode()
    if source == "intercom":
        part: dict[str, Any] = {"body": f"<p>{name}</p>", "author": {"type": "user", "id": "8"}}
        item = {"id": name, "conversation_parts": {"conversation_parts": [part]}}
        topic = "conversation.user.replied"
        return json.dumps({"id": name, "topic": topic, "created_at": int(now), "data": {"item": item}}).encode()
    chat = {"type": "message", "conversation_id": name, "seq": 0, "role": "customer", "text": name}
    return json.dumps({"type": "chat", "timestamp": isoformat(now), "data": chat}).encode()


def signed(source: str, body: bytes, at: float, secret: str | None = None, name: str = "m") -> dict[str, str]:
    """The headers that a platform would send."""
    stamp = str(int(at))
    if source == "zendesk":
        key, when = secret or SECRETS["zendesk"], isoformat(at)
        value = base64.b64encode(hmac.digest(key.encode(), when.encode() + body, "sha256")).decode()
        return {"X-Zendesk-Webhook-Signature": value, "X-Zendesk-Webhook-Signature-Timestamp": when}
    if source == "slack":
        key = secret or SECRETS["slack"]
        value = hmac.new(key.encode(), b"v0:" + stamp.encode() + b":" + body, sha256).hexdigest()
        return {"X-Slack-Signature": f"v0={value}", "X-Slack-Request-Timestamp": stamp}
    if source == "intercom":
        key = secret or SECRETS["intercom"]
        return {"X-Hub-Signature": f"sha1={hmac.new(key.encode(), body, sha1).hexdigest()}"}
    raw = base64.b64decode((secret or STANDARD).removeprefix("whsec_"))
    value = base64.b64encode(hmac.digest(raw, f"{name}.{stamp}.".encode() + body, "sha256")).decode()
    return {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": f"v1,{value}"}


@pytest.mark.parametrize("source", SOURCES)
def test_t16_forged_and_replayed_webhooks(source: str, door: tuple[str, int], broker: str) -> None:
    """Good requests are produced once, whatever is repeated; every forgery is 401 and produces nothing."""
    url = f"{door[0]}/v1/webhooks/{source}/acme"
    now = time.time()  # noqa: TID251 - the process under test reads the real clock
    name = f"{source}-{now:.0f}"
    before = len(read_all(broker, CHATS_RAW))
    body = body_of(source, name, now)
    good = signed(source, body, now, name=name)
    wrong = "whsec_" + base64.b64encode(b"w" * 24).decode() if source == "standard" else "wrong"
    forged: list[tuple[bytes, dict[str, str]]] = [
        (body, signed(source, body, now, wrong, name)),
        (body.replace(b"customer", b"agent") + b" ", good),
        *((body, {k: v for k, v in good.items() if k != missing}) for missing in good),
        (body, {}),
    ]
    if source != "intercom":
        # Two more on the far side: stamps are whole seconds, and time passes until the request arrives.
        forged += [(body, signed(source, body, now + shift, name=name)) for shift in (-301, 303)]
    with httpx.Client(timeout=20) as client:
        assert [client.post(url, content=c, headers=h).status_code for c, h in forged] == [401] * len(forged)
        assert client.post(f"{door[0]}/v1/webhooks/{source}/other", content=body, headers=good).status_code == 401
        assert len(read_all(broker, CHATS_RAW)) == before
        answers = [client.post(url, content=body, headers=good) for _ in range(2)]
        again = signed(source, body, now + 1, name=name)
        answers.append(client.post(url, content=body, headers=again))
    assert [a.status_code for a in answers] == [200, 200, 200]
    assert [a.json()["known"] for a in answers] == [0, 1, 1]
    found = read_all(broker, CHATS_RAW)
    assert len(found) == before + 1
    assert [record.headers for record in found if name.encode() in record.value] == [{"tenant": b"acme"}]


def test_t16_slack_asks_before_it_trusts(door: tuple[str, int]) -> None:
    """The URL question is answered only when it is signed."""
    body = json.dumps({"type": "url_verification", "challenge": "c-1"}).encode()
    url = f"{door[0]}/v1/webhooks/slack/acme"
    now = time.time()  # noqa: TID251 - as above
    assert httpx.post(url, content=body, headers=signed("slack", body, now)).json() == {"challenge": "c-1"}
    assert httpx.post(url, content=body).status_code == 401


def test_t16_old_captures_without_a_signed_time_are_refused(door: tuple[str, int]) -> None:
    """Intercom signs no time: a notification from before the remembered ids is refused by its own."""
    old = time.time() - 8 * 86_400  # noqa: TID251 - as above
    body = body_of("intercom", "old", old)
    url = f"{door[0]}/v1/webhooks/intercom/acme"
    assert httpx.post(url, content=body, headers=signed("intercom", body, old)).status_code == 401


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1])


def test_t17_bombs_are_refused_without_memory(door: tuple[str, int]) -> None:
    """50 MB, gzip of 1000 to 1, ten thousand brackets: 413, 413 and 400, and memory stays within 64 MB."""
    url, pid = door
    headers = {"authorization": "Bearer key"}
    before = memory_kib(pid)
    bomb = gzip.compress(b"x" * 50_000_000)
    deep = b"[" * 10_000 + b"]" * 10_000

    def endless() -> Iterator[bytes]:
        for _ in range(800):
            yield b"x" * 65_536

    for _ in range(3):
        with httpx.Client(timeout=30, headers=headers) as client:
            assert _status(lambda: client.post(f"{url}/v1/events", content=b"x" * 50_000_000)) in {413, 0}
            assert _status(lambda: client.post(f"{url}/v1/events", content=endless())) in {413, 0}
            packed = {"content-encoding": "gzip"}
            assert client.post(f"{url}/v1/events", content=bomb, headers=packed).status_code == 413
            assert client.post(f"{url}/v1/events", content=deep).status_code == 400
    assert memory_kib(pid) - before < 64 * 1024


def _status(call: Callable[[], httpx.Response]) -> int:
    """Status of a request; 0 when the server hung up on it before it was sent, which is an answer to a bomb too."""
    try:
        return call().status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return 0


def test_t17_slow_senders_do_not_slow_others(door: tuple[str, int]) -> None:
    """With 200 connections at a byte a second, others' p99 stays below twice what it was; the slow ones get 408."""
    url, _ = door
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    host, port = url.removeprefix("http://").split(":")
    quiet = _p99(url, "quiet")
    slow = []
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key\r\ncontent-length: 1000\r\n\r\n"
    for _ in range(200):
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(head + b"{")
        slow.append(connection)
    busy = _p99(url, "busy")
    answers = [connection.recv(200).split(b"\r\n")[0] for connection in slow]
    for connection in slow:
        connection.close()
    assert set(answers) == {b"HTTP/1.1 408 Request Timeout"}
    # 5 ms of slack: on a shared core the scheduler alone moves a p99 by that much.
    assert busy < 2 * quiet + 0.005


def _p99(url: str, name: str) -> float:
    times = []
    with httpx.Client(timeout=20, headers={"authorization": "Bearer key"}) as client:
        for number in range(150):
            event = {
                "event_id": f"{name}-{number}", "type": "message", "conversation_id": name, "seq": number,
                "role": "customer", "text": "hi", "ts": "2026-01-02T03:04:05Z",
            }  # fmt: skip
            began = time.perf_counter()
            assert client.post(f"{url}/v1/events", json=event).status_code == 200
            times.append(time.perf_counter() - began)
    return sorted(times)[int(len(times) * 0.99)]


def test_t18_nothing_that_is_sent_makes_us_call(door: tuple[str, int], trap: Trap) -> None:
    """Links, attachments, callbacks and images stay text; a redirect of the upstream is passed on, never followed."""
    url, _ = door
    bait = [f"{trap.url}/bait", "http://169.254.169.254/latest", "file:///etc/passwd", f"{trap.url}/redirected"]
    now = time.time()  # noqa: TID251 - as above
    for number, link in enumerate(bait):
        body = body_of("slack", f"see {link}", now)
        event = json.loads(body)
        event["event"] |= {"files": [{"url_private": link}], "attachments": [{"image_url": link, "from_url": link}]}
        body = json.dumps({**event, "event_id": f"bait-{number}-{now}", "response_url": link}).encode()
        hook = f"{url}/v1/webhooks/slack/acme"
        assert httpx.post(hook, content=body, headers=signed("slack", body, now)).status_code == 200
    assert trap.called == []
    image = {"type": "image_url", "image_url": {"url": f"{trap.url}/bait"}}
    request = {"model": f"{trap.url}/evil", "messages": [{"role": "user", "content": [image]}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=request, headers={"authorization": "Bearer key"})
    assert answer.status_code == 307
    assert trap.called == ["/v1/chat/completions"]
