"""The gateway's cost per event and per signature: `driftline bench gateway`.

Events go one by one and in batches over keep-alive connections to a gateway process, interleaved with a peer that
does nothing but read the body and produce it with the same libraries. Signatures are timed alone, 2 kB bodies, and
compared with the processor time of a whole webhook request of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from services.local import redis_server
from services.local.supervisor import free_port
from services.settings import child_environment
from streams.sources.signatures import SOURCES, verify
from tests.bench._heading import heading, table

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = 16
BATCH = 100
BODY_BYTES = 2_000
PEER = """
import sys
from confluent_kafka import Producer
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
import asyncio, threading, uvicorn
producer = Producer({"bootstrap.servers": sys.argv[1], "acks": "all", "enable.idempotence": True, "linger.ms": 1})
def poll():
    while True:
        producer.poll(0.05)
threading.Thread(target=poll, daemon=True).start()
async def events(request):
    body = await request.body()
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    report = lambda error, message: loop.call_soon_threadsafe(done.set_result, error is None)
    producer.produce("chats.raw", body, b"c", on_delivery=report)
    return Response(status_code=200 if await done else 503)
app = Starlette(routes=[Route("/v1/events", events, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
"""


def main(argv: list[str]) -> int:
    """Print the table; 1 when a signature costs more than 20 us or 5 % of its request."""
    parser = argparse.ArgumentParser(prog="driftline bench gateway")
    parser.add_argument("--requests", type=int, default=1500, help="requests a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as (gateway, peer, secret):
        found = _measure(gateway, peer, secret, args.requests, args.rounds)
    signatures = {source: _signature_us(source) for source in SOURCES}
    share = max(signatures.values()) / found["webhook, zendesk"][1]
    rows = [["what", "events/s", "server CPU us/event"]]
    rows += [[name, f"{rate:,.0f}", f"{cpu:,.0f}"] for name, (rate, cpu) in found.items()]
    rows += [[f"signature {source}, {BODY_BYTES} bytes", "", f"{cost:.1f}"] for source, cost in signatures.items()]
    rows += [["dearest signature / webhook request", "", f"{share:.1%}"]]
    rows += [["gateway / peer, CPU of one event", "", f"{found['one by one'][1] / found['peer, one by one'][1]:.2f}"]]
    sys.stdout.write(f"{heading('gateway', argv)}\n\n{table(rows)}\n")
    return int(max(signatures.values()) > 20 or share > 0.05)


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int], str]]:
    """(url, pid) of a gateway and of the peer, and the hook's secret."""
    address, port, secret = folder / "broker.json", free_port(), "bench-secret"
    (folder / "redis").mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-m", "services.local.broker", str(address)], cwd=ROOT),
        subprocess.Popen(redis_server.command(port, folder / "redis"), stdout=subprocess.DEVNULL),
    ]
    try:
        _until(address.exists)
        broker, door, plain = json.loads(address.read_text()), free_port(), free_port()
        values = {
            # not marked as embedded: nobody reads here, and what the broker deletes is no loss
            "kafka": {"bootstrap": broker["bootstrap"], "epoch": broker["epoch"]},
            "redis": {"url": f"redis://127.0.0.1:{port}/0"},
            "gateway": {
                "port": door,
                "api_keys": {"key": "acme"},
                "webhooks": {"zendesk/acme": secret},
                "rate_per_s": 1e9,
                "burst": 1e9,
            },
        }
        command = [sys.executable, "-m", "services.cli", "gateway"]
        environment = child_environment(values)
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL))
        processes.append(subprocess.Popen([sys.executable, "-c", PEER, broker["bootstrap"], str(plain)], cwd=ROOT))
        urls = [f"http://127.0.0.1:{door}", f"http://127.0.0.1:{plain}"]
        for url in urls:
            _until(partial(_up, url))
        yield (urls[0], processes[2].pid), (urls[1], processes[3].pid), secret
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(10)


def _measure(
    gateway: tuple[str, int], peer: tuple[str, int], secret: str, requests: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Name -> events a second and CPU microseconds an event, medians over the rounds."""
    jobs: dict[str, tuple[tuple[str, int], str, Callable[[int], tuple[bytes, dict[str, str]]], int, int]] = {
        "one by one": (gateway, "/v1/events", _one, requests, 1),
        "peer, one by one": (peer, "/v1/events", _one, requests, 1),
        f"batches of {BATCH}": (gateway, "/v1/events", _batch, max(20, requests // 20), BATCH),
        "webhook, zendesk": (gateway, "/v1/webhooks/zendesk/acme", lambda n: _hook(n, secret), requests, 1),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, ((url, pid), path, body, count, events) in jobs.items():
            began, before = time.perf_counter(), _cpu_s(pid)
            asyncio.run(_load(url + path, [body(turn * 1_000_000 + n) for n in range(count)]))
            wall, cpu = time.perf_counter() - began, _cpu_s(pid) - before
            # the first round warms up
            if turn:
                found[name].append((count * events / wall, 1e6 * cpu / count / events))
    return {
        name: (statistics.median(r for r, _ in runs), statistics.median(c for _, c in runs))
        for name, runs in found.items()
    }


async def _load(url: str, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> None:
    queue = list(bodies)
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def work() -> None:
            while queue:
                content, headers = queue.pop()
                answer = await client.post(url, content=content, headers=headers)
                answer.raise_for_status()

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def _event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e-{number}", "type": "message", "conversation_id": f"c-{number % 500}", "seq": number % 10,
        "role": "customer", "text": "Where is my parcel? It should have been here on Monday.",
        "ts": "2026-01-02T03:04:05Z",
    }  # fmt: skip


def _one(number: int) -> tuple[bytes, dict[str, str]]:
    return json.dumps(_event(number)).encode(), {"authorization": "Bearer key"}


def _batch(number: int) -> tuple[bytes, dict[str, str]]:
    events = [_event(-(number * BATCH + place) - 1) | {"seq": place} for place in range(BATCH)]
    return json.dumps({"events": events}).encode(), {"authorization": "Bearer key"}


def _hook(number: int, secret: str) -> tuple[bytes, dict[str, str]]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    comment = {"author": {"id": "1", "is_staff": False}, "body": "x" * (BODY_BYTES - 300), "is_public": True}
    body = {
        "id": f"h-{number}", "type": "zen:event-type:ticket.comment_added", "time": stamp,
        "detail": {"id": str(number % 500)}, "event": {"comment": comment},
    }  # fmt: skip
    raw = json.dumps(body).encode()
    value = base64.b64encode(hmac.digest(secret.encode(), stamp.encode() + raw, "sha256")).decode()
    return raw, {"X-Zendesk-Webhook-Signature": value, "X-Zendesk-Webhook-Signature-Timestamp": stamp}


def _signature_us(source: str, count: int = 5_000) -> float:
    """Processor microseconds of one check, right signature."""
    body, now = b"x" * BODY_BYTES, 1767323045.0
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode() if source == "standard" else "secret"
    headers = _signed(source, body, secret)
    began = time.process_time()
    for _ in range(count):
        verify(source, body, headers, [secret], now)
    return 1e6 * (time.process_time() - began) / count


def _signed(source: str, body: bytes, secret: str) -> dict[str, str]:
    stamp, iso = "1767323045", "2026-01-02T03:04:05Z"
    if source == "zendesk":
        value = base64.b64encode(hmac.digest(secret.encode(), iso.encode() + body, "sha256")).decode()
        return {"X-Zendesk-Webhook-Signature": value, "X-Zendesk-Webhook-Signature-Timestamp": iso}
    if source == "slack":
        value = hmac.digest(secret.encode(), f"v0:{stamp}:".encode() + body, "sha256").hex()
        return {"X-Slack-Signature": f"v0={value}", "X-Slack-Request-Timestamp": stamp}
    if source == "intercom":
        return {"X-Hub-Signature": f"sha1={hmac.digest(secret.encode(), body, 'sha1').hex()}"}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    value = base64.b64encode(hmac.digest(key, f"m.{stamp}.".encode() + body, "sha256")).decode()
    return {"webhook-id": "m", "webhook-timestamp": stamp, "webhook-signature": f"v1,{value}"}


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _up(url: str) -> bool:
    try:
        httpx.get(url, timeout=1)
    except httpx.HTTPError:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        asyncio.run(asyncio.sleep(0.05))
    raise TimeoutError("a server of the benchmark did not start")
