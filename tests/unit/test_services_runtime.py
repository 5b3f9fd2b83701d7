"""One process's edge: logs, health, metrics."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from services.local.supervisor import health
from services.runtime import Log, Runtime
from services.settings import AdminConfig


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        """Seconds since the test began."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def runtime(clock: Clock, output: io.StringIO) -> Iterator[Runtime]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    process = Runtime("test", AdminConfig(livez_max_age_s=5), clock=clock, signals=False, stream=output)
    yield process
    process.close()
    root.handlers[:], root.level = before


def test_runtime_livez_fails_when_the_loop_is_silent(runtime: Runtime, clock: Clock) -> None:
    """A main loop that stopped ticking is not alive, even though the admin port answers."""
    assert health(runtime.port, "/livez")[0] == 200
    clock.now = 6
    assert health(runtime.port, "/livez")[0] == 503
    runtime.tick()
    assert health(runtime.port, "/livez")[0] == 200


def test_runtime_readyz_names_the_reason(runtime: Runtime) -> None:
    """A process is not ready before it has said what that hangs on; then it says what is away, until it is back."""
    assert health(runtime.port) == (503, "starting")
    state = {"reason": "away"}
    runtime.ready("kafka", lambda: state["reason"] or None)
    assert health(runtime.port) == (503, "kafka: away")
    state["reason"] = ""
    assert health(runtime.port) == (200, "ok")
    runtime.stop.set()
    assert health(runtime.port) == (503, "draining")


def test_runtime_metrics_are_exposed(runtime: Runtime) -> None:
    """/metrics shows the build and counts what was caught."""
    runtime.caught("runtime", ValueError("4111 1111"))
    text = health(runtime.port, "/metrics")[1]
    assert 'driftline_handled_errors_total{kind="ValueError",module="runtime"} 1.0' in text
    assert "driftline_build_info" in text
    assert health(runtime.port, "/other")[0] == 404


def test_runtime_logs_hold_no_foreign_text(runtime: Runtime, output: io.StringIO) -> None:
    """Exceptions and foreign loggers leave their type and template, never their arguments."""
    runtime.caught("runtime", ValueError("secret 4111"))
    logging.getLogger("library").error("could not read %s", "secret 4111")
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert "4111" not in output.getvalue()
    assert lines[-2]["error"] == "ValueError"
    assert lines[-1]["reason"] == "library: could not read %s"


def test_runtime_log_keys_are_a_closed_set() -> None:
    """A key outside the set is refused, so that text cannot slip in."""
    with pytest.raises(ValueError, match="closed set"):
        Log("test", stream=io.StringIO()).info("event", text="hello")


def test_runtime_log_level_hides_what_is_below(output: io.StringIO) -> None:
    """A level keeps the lines below it out."""
    log = Log("test", "warning", output)
    log.info("quiet")
    log.warning("heard", count=1)
    assert [json.loads(line)["event"] for line in output.getvalue().splitlines()] == ["heard"]
