"""T4 and T5 at the gateway, on Apache Kafka: nothing is acknowledged that is not stored, and it recovers by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from services.ingest import Ingest, Summary
from services.ingest_broker import open_broker
from services.ingest_state import FilePositions
from services.local.supervisor import free_port
from services.settings import KafkaConfig, Settings, child_environment
from streams.sources import SourceRecord
from streams.topics import CHATS_RAW
from tests.kafka_broker import KafkaBroker
from tests.kafka_reading import read_all

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).resolve().parents[2]
PAUSE = threading.Event()


@pytest.fixture(scope="module")
def kafka(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of this module's own, since its tests kill it."""
    broker = KafkaBroker(kafka_libs, tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    broker.start()
    broker.create([CHATS_RAW])
    yield broker
    broker.stop()


@pytest.fixture
def door(kafka: KafkaBroker, redis_url: str) -> Iterator[tuple[str, str, int]]:
    """API and admin URL and pid of a gateway process."""
    port, admin = free_port(), free_port()
    values: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap": kafka.bootstrap},
        "redis": {"url": redis_url},
        "gateway": {"port": port, "api_keys": {"key": "acme"}},
        "admin": {"port": admin},
    }
    command = [sys.executable, "-m", "services.cli", "gateway"]
    process = subprocess.Popen(command, cwd=ROOT, env=child_environment(values), stderr=subprocess.DEVNULL)
    urls = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
    _until(lambda: _status(f"{urls[1]}/readyz") == 200)
    yield *urls, process.pid
    process.terminate()
    assert process.wait(15) == 0


def _until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    for _ in range(int(timeout_s / 0.1)):
        if condition():
            return
        PAUSE.wait(0.1)
    raise TimeoutError


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.HTTPError:
        return 0


def event(number: int) -> dict[str, object]:
    return {
        "event_id": f"e-{number}", "type": "message", "conversation_id": f"c-{number % 7}", "seq": number,
        "role": "customer", "text": "hi", "ts": "2026-01-02T03:04:05Z",
    }  # fmt: skip


def memory_kib(pid: int) -> int:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1])


def test_t4_t5_gateway_acknowledges_only_what_kafka_stored(kafka: KafkaBroker, door: tuple[str, str, int]) -> None:
    """Through SIGKILL and restart: 503 within 2 s and alive while it is away, and every 200 is in the topic."""
    api, admin, pid = door
    acknowledged: set[str] = set()
    slowest = 0.0
    refused = 0
    before = memory_kib(pid)
    with httpx.Client(base_url=api, headers={"authorization": "Bearer key"}, timeout=20) as client:
        for number in range(60):
            if number == 20:
                kafka.kill()
            if number == 40:
                _until(lambda: _status(f"{admin}/readyz") == 503)
                assert _status(f"{admin}/livez") == 200
                kafka.start()
                _until(lambda: _status(f"{admin}/readyz") == 200)
            began = time.monotonic()
            answer = client.post("/v1/events", json=event(number))
            slowest = max(slowest, time.monotonic() - began)
            if answer.status_code == 200:
                acknowledged.add(f"e-{number}")
            else:
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                refused += 1
    stored = {json.loads(record.value)["event_id"] for record in read_all(kafka.bootstrap, CHATS_RAW)}
    assert acknowledged <= stored
    assert 15 <= refused <= 30
    assert len(acknowledged) >= 30
    assert slowest <= 2.5
    assert memory_kib(pid) - before < 50 * 1024


def test_t4_ingest_waits_for_a_broker_that_restarts(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A broker killed in the middle of a file makes ingest wait: every record arrives, in order, without duplicates."""
    settings = Settings(kafka=KafkaConfig(bootstrap=kafka.bootstrap))

    def records() -> Iterator[SourceRecord]:
        for number in range(4_000):
            if number == 1_500:
                kafka.kill()
                threading.Thread(target=kafka.start).start()
            yield SourceRecord(b"ingest-%d" % (number % 3), b"%d" % number)

    summary = Summary("f", "events")
    with open_broker(settings, time.monotonic) as broker:
        job = Ingest(broker, FilePositions(tmp_path, "b"), threading.Event(), time.monotonic)
        job.run("d", records(), summary, speed=None, tenant="")
    assert (summary.sent, summary.complete) == (4_000, True)
    found = [
        (r.key, int(r.value)) for r in read_all(kafka.bootstrap, CHATS_RAW) if (r.key or b"").startswith(b"ingest-")
    ]
    for key in {key for key, _ in found}:
        mine = [number for name, number in found if name == key]
        assert mine == sorted(set(mine))
    assert len(found) == 4_000
