"""What the worker does about itself: it ends when something ended it, and when it has nothing to do for too long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streams import app
from streams.config import StreamConfig
from streams.metrics import StreamMetrics


def worker(**changes: Any) -> app.Worker:
    """A worker that is never started."""
    idle: Any = SimpleNamespace()
    return app.create_app(
        StreamConfig(**changes),
        app.Parts(
            scrub=idle, assemble=idle, insert=idle, decide=idle, producer=idle, move=lambda _: None,
            resume=lambda *_: None, skip=lambda *_: None, effects_to=lambda *_: 0, changed=lambda: False,
            metrics=StreamMetrics(CollectorRegistry()), caught=lambda *_: None,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("waited_s", "ends"), [(59.0, False), (61.0, True)])
def test_app_worker_without_partitions_ends(waited_s: float, monkeypatch: pytest.MonkeyPatch, *, ends: bool) -> None:
    """After a minute without an assignment it fails, so that its supervisor starts it again."""
    made = worker()
    made.assigned_at = 1_000.0
    monkeypatch.setattr(app, "monotonic", lambda: 1_000.0 + waited_s)
    app._supervise(made, [])
    assert (made.error is not None) is ends


def test_app_first_error_ends_the_worker() -> None:
    """The cause is kept, not what follows from it."""
    made = worker()
    made.fail(RuntimeError("first"))
    made.fail(RuntimeError("second"))
    assert str(made.error) == "first"


def test_app_is_a_static_member_of_its_group() -> None:
    """Prefix, group and instance name it; Faust's web server is off, and nothing is logged by Faust's own handlers."""
    conf = worker(prefix="p.", instance="pod-1").app.conf
    assert conf.id == "p.driftline-clean"
    assert conf.consumer_group_instance_id == "pod-1"
    assert not conf.web_enabled
    assert conf.loghandlers == []
