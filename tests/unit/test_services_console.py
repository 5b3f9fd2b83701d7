"""The console's pages: who may come in, what they show, and what their forms do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.datastructures import Headers

from learner.registry import RegistryError
from learner.select import ReviewQueue, SelectConfig, item
from services.cli import main
from services.console.app import Console, Views, create_app
from services.console.door import HEADERS, Door, same_site
from services.console.metrics import ConsoleMetrics
from services.console_config import ConsoleConfig
from services.http_server import HttpServer
from services.local.supervisor import free_port
from services.remedies import remedy
from services.review_desk import desk
from services.settings import KafkaConfig, RedisConfig, Settings
from streams.events import Sample, Turn
from tests.review_decisions import decided

CONFIG = ConsoleConfig(port=0, reviewers={"kim": "correct horse battery"}, decision_timeout_s=5.0)
KIM = ("kim", "correct horse battery")
MARKUP = '<script>alert("x")</script> & "co"'


def _sample(name: str) -> Sample:
    turns = (
        Turn(role="customer", text=f"Is it open? {MARKUP}"),
        Turn(role="agent", text=f"At nine. {MARKUP}", is_target=True, event_id=name),
    )
    return Sample(
        sample_id=f"{name}/sft/0", conversation="conv", customer="k", lane="chat", split="train", turns=turns,
        received_at=1.0, completed_at=1.0,
    )  # fmt: skip


def _version(name: str) -> str:
    if name == "broken":
        raise KeyError("secret of a chat")
    if name != "v1":
        raise RegistryError(f"no version {name}")
    return f"the card of {name}"


VIEWS = Views(
    state=lambda: {"buffer": {"train": 12}, "lag": {"error": "kafka.bootstrap does not answer"}, "processes": {}},
    versions=lambda: [
        {"id": "v1", "parent": "base", "created_at": "2026-11-22", "decision": "promote", "gated_against": "base",
         "nll_per_token": 1.25, "base_nll_per_token": 2.5, "examples": 30, "steps": [1, 9], "gone": None},
    ],
    version=_version,
    explained=lambda name, about: f"{_version(name)} {about}",
)  # fmt: skip


@pytest.fixture
def queue(redis_client: redis.Redis) -> ReviewQueue:
    """A queue with two items."""
    held = ReviewQueue(redis_client, SelectConfig())
    held.add([item(_sample("r1"), "uncertain", 0.7), item(_sample("r2"), "surprising", 0.4)])
    return held


def _served(redis_url: str, bootstrap: str, config: ConsoleConfig = CONFIG) -> HttpServer:
    settings = replace(Settings(), redis=RedisConfig(url=redis_url), kafka=KafkaConfig(bootstrap=bootstrap))
    metrics = ConsoleMetrics(CollectorRegistry())
    told = partial(remedy, settings=settings, named=())
    console = Console(config, desk(settings, "console", lambda: 3.0, config.decision_timeout_s), VIEWS, metrics, told)
    server = HttpServer(create_app(console, config, metrics), "127.0.0.1", 0)
    server.start()
    return server


@pytest.fixture
def console(queue: ReviewQueue, redis_url: str, mock_broker: dict[str, Any]) -> Iterator[httpx.Client]:
    """A reviewer's client of a console over the queue."""
    assert queue.list(2)
    server = _served(redis_url, mock_broker["bootstrap"])
    with httpx.Client(base_url=server.url, auth=KIM) as client:
        yield client
    server.stop()


class Forms(HTMLParser):
    """The forms of a page: for each its fields with their values, and the buttons."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, list[str]]] = []
        self.elements: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        self.elements.append(tag)
        named = dict(attrs)
        if tag == "form":
            self.found.append({})
        elif tag in {"input", "button"} and named.get("name"):
            self.found[-1].setdefault(str(named["name"]), []).append(str(named.get("value")))


@pytest.mark.parametrize("path", ["/", "/review", "/review/r1/sft/0", "/versions/v1", "/style.css", "/nowhere"])
def test_console_wants_a_password_on_every_route(console: httpx.Client, path: str) -> None:
    """401 without or with a wrong one, whatever is asked for; every answer carries the strict headers."""
    for auth in (None, ("kim", "wrong horse battery!"), ("", ""), ("eve", KIM[1])):
        answer = httpx.get(f"{console.base_url}{path}", auth=auth)
        assert answer.status_code == 401
        assert "At nine" not in answer.text
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert all(answer.headers[name] == value for name, value in HEADERS.items())
    assert httpx.post(f"{console.base_url}/review/r1/sft/0", data={"action": "approve"}).status_code == 401
    assert console.get(path).status_code == (404 if path == "/nowhere" else 200)


@given(st.text(st.characters(max_codepoint=255)))
def test_door_reads_any_header(value: str) -> None:
    """No header opens the door by accident, and none breaks it."""

    async def app(*_: object) -> None:
        """Nothing behind the door."""

    door = Door(app, {"kim": KIM[1]}, ConsoleMetrics(CollectorRegistry()))
    assert door.reviewer(value) is None
    assert door.reviewer(f"Basic {value}") is None


def test_console_shows_chats_as_text(console: httpx.Client) -> None:
    """What customers wrote is never markup; pages hold no script."""
    for path in ("/review", "/review/r1/sft/0"):
        page = console.get(path).text
        assert "script" not in Forms(page).elements
        assert "&lt;script&gt;" in page
        assert MARKUP not in page


def test_console_shows_state_versions_and_trails(console: httpx.Client) -> None:
    """Each view has its page; an unknown version is a 404 that says what is wanted."""
    assert "kafka.bootstrap does not answer" in console.get("/").text
    assert "1.250" in console.get("/versions").text
    assert "the card of v1" in console.get("/versions/v1").text
    assert "the card of v1 refunds" in console.get("/answer", params={"id": "v1", "about": "refunds"}).text
    assert console.get("/answer").status_code == 200
    unknown = console.get("/versions/v2")
    assert unknown.status_code == 404
    assert "no version v2" in unknown.text
    broken = console.get("/versions/broken")
    assert broken.status_code == 500
    assert "secret" not in broken.text


def test_console_form_becomes_a_decision(console: httpx.Client, mock_broker: dict[str, Any]) -> None:
    """A rating by the page's own form travels over Kafka under the reviewer's name, and the next item follows."""
    forms = Forms(console.get("/review/r1/sft/0").text).found
    assert forms[0]["action"] == ["approve", "reject"]
    assert forms[1] == {"action": ["rate"], "stars": ["1", "2", "3", "4", "5"]}
    answer = console.post("/review/r1/sft/0", data={"action": "rate", "stars": "2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/review/r2/sft/0")
    made = decided(mock_broker["bootstrap"], b"conv")
    assert (made.action, made.rating, made.reviewer, made.targets) == ("rate", 2.0, "kim", ("r1",))
    again = console.post("/review/r1/sft/0", data={"action": "approve"})
    assert again.status_code == 404
    assert console.get("/review/r1/sft/0").status_code == 404
    assert console.post("/review/r2/sft/0", data={"action": "reject"}).headers["location"] == "/review"


def test_console_takes_an_edit(console: httpx.Client, mock_broker: dict[str, Any]) -> None:
    """The better reply comes with its draft, in the lines that were typed."""
    edited = {"action": "edit", "text": "At ten,\r\nécoutez & co."}
    assert console.post("/review/r1/sft/0", data=edited).status_code == 303
    made = decided(mock_broker["bootstrap"], b"conv")
    assert (made.text, made.draft) == ("At ten,\nécoutez & co.", f"At nine. {MARKUP}")


@pytest.mark.parametrize(
    ("form", "status"),
    [
        (b"action=approv", 400), (b"", 400), (b"action=rate", 400), (b"action=rate&stars=6", 400),
        (b"action=edit&text=+%0A", 400), (b"action=%ff", 400), (b"\xff", 400), (b"a&" * 99, 400),
        (b"text=" + b"x" * 200_000, 413),
    ],
)  # fmt: skip
def test_console_refuses_other_forms(console: httpx.Client, queue: ReviewQueue, form: bytes, status: int) -> None:
    """What is no decision is said to be none, and decides nothing."""
    answer = console.post("/review/r1/sft/0", content=form)
    assert answer.status_code == status
    assert "nothing was decided" in answer.text
    assert len(queue.list(5)) == 2


def test_console_refuses_forms_of_other_sites(console: httpx.Client, queue: ReviewQueue) -> None:
    """A browser that knows the password decides nothing for another site."""
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert console.post("/review/r1/sft/0", data={"action": "reject"}, headers=headers).status_code == 403
    assert len(queue.list(5)) == 2
    assert same_site(Headers({"origin": "https://console.example", "host": "console.example"}))
    assert same_site(Headers({"sec-fetch-site": "same-origin", "origin": "https://behind.example", "host": "inner"}))


def test_console_decides_nothing_when_kafka_or_redis_is_away(queue: ReviewQueue, redis_url: str) -> None:
    """503, and the item stays."""
    config = replace(CONFIG, decision_timeout_s=0.3)
    nowhere = f"127.0.0.1:{free_port()}"
    server = _served(redis_url, nowhere, config)
    answer = httpx.post(f"{server.url}/review/r1/sft/0", data={"action": "approve"}, auth=KIM)
    server.stop()
    assert answer.status_code == 503
    assert "stays in the queue" in answer.text
    assert len(queue.list(5)) == 2
    server = _served(f"redis://{nowhere}", nowhere, config)
    answer = httpx.get(f"{server.url}/review", auth=KIM)
    server.stop()
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text


def test_console_does_not_start_for_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without reviewers, or with a short password, it says what to set."""
    assert main(["console"]) == 2
    assert "DRIFTLINE_CONSOLE__REVIEWERS" in capsys.readouterr().err
    monkeypatch.setenv("DRIFTLINE_CONSOLE__REVIEWERS", '{"kim": "short"}')
    assert main(["console"]) == 2
    assert "at least 16" in capsys.readouterr().err
