"""Routes of the console and their pages.

Pages come whole from the server and hold no script. A form answers 303 to the next page; 400 where it lacks something,
404 where the item is not in the queue any more, 413 or 408 for its size and time, 503 where Redis or Kafka does not
answer or the deployment lacks a setting: then nothing has been decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qs, quote

import redis
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from learner.registry import RegistryError
from services.console.door import Door
from services.gateway.limits import Refusal, read_body
from services.review_desk import Undelivered
from services.settings import SettingsError
from streams.review import Action
from streams.scrub.identity import UnusableKeys

if TYPE_CHECKING:
    from learner.select import ReviewItem
    from services.console.metrics import ConsoleMetrics
    from services.console_config import ConsoleConfig
    from services.review_desk import Desk

REFRESH_S = 5
"""How often the page of the state is loaded again, seconds."""

MOST_FIELDS = 8
ACTIONS: dict[str, Action] = {name: name for name in get_args(Action)}


@dataclass(frozen=True)
class Views:
    """What pages show, asked for each time; each may block, and raises redis.RedisError or `RegistryError`."""

    state: Callable[[], Mapping[str, Mapping[str, Any]]]
    """Part of the system -> its figures, as `driftline status` tells them."""
    versions: Callable[[], Sequence[Mapping[str, Any]]]
    """Versions of the line, newest first, as `driftline adapters list` tells them."""
    version: Callable[[str], str]
    """The card of a version."""
    explained: Callable[[str, str], str]
    """The trail of an answer or version, chats like the second text first, as `driftline explain` tells it."""


class Console:
    """The pages over one review desk and the views."""

    def __init__(
        self,
        config: ConsoleConfig,
        desk: Desk,
        views: Views,
        metrics: ConsoleMetrics,
        told: Callable[[Exception], str | None],
    ) -> None:
        """`told` gives the line about a fault that an operator can mend, None of any other."""
        self._told = told
        self._config = config
        self._desk = desk
        self._views = views
        self._metrics = metrics
        loader = PackageLoader("services.console", "pages")
        self._pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
        self._style = files("services.console").joinpath("pages/style.css").read_text()

    async def state(self, request: Request) -> Response:
        """GET /: what runs and where it stands."""
        found = await run_in_threadpool(self._views.state)
        return self._page(request, "state.html", parts=found, refresh_s=REFRESH_S)

    async def queue(self, request: Request) -> Response:
        """GET /review: what a person should look at, most wanted first."""
        items = await run_in_threadpool(self._desk.queue.list, self._config.items)
        return self._page(request, "queue.html", items=items)

    async def item(self, request: Request) -> Response:
        """GET /review/SAMPLE: one item and what may be decided about it."""
        item = await run_in_threadpool(self._desk.queue.get, request.path_params["sample"])
        if item is None:
            return self._gone(request)
        return self._page(request, "item.html", item=item)

    async def decide(self, request: Request) -> Response:
        """POST /review/SAMPLE: a decision; then the next item."""
        form = await self._form(request)
        item = await run_in_threadpool(self._desk.queue.get, request.path_params["sample"])
        if item is None:
            return self._gone(request)
        try:
            made = await run_in_threadpool(self._decided, item, form, request.state.reviewer)
        except ValueError as error:
            return self._message(request, 400, f"{error}; nothing was decided")
        self._metrics.decisions.labels(made).inc()
        left = await run_in_threadpool(self._desk.queue.list, 1)
        path = f"/review/{quote(left[0].sample_id)}" if left else "/review"
        return RedirectResponse(path, status_code=303)

    async def versions(self, request: Request) -> Response:
        """GET /versions: versions of the line and what the gate said."""
        rows = await run_in_threadpool(self._views.versions)
        return self._page(request, "versions.html", rows=rows)

    async def version(self, request: Request) -> Response:
        """GET /versions/VERSION: its card and trail."""
        name = request.path_params["version"]
        card = await run_in_threadpool(self._views.version, name)
        trail = await run_in_threadpool(self._views.explained, name, "")
        return self._page(request, "texts.html", title=name, texts=[card, trail])

    async def answer(self, request: Request) -> Response:
        """GET /answer?id=ANSWER&about=TEXT: where an answer came from."""
        given = request.query_params.get("id", "").strip()
        texts = []
        if given:
            texts = [await run_in_threadpool(self._views.explained, given, request.query_params.get("about", ""))]
        return self._page(request, "answer.html", given=given, texts=texts)

    async def style(self, _request: Request) -> Response:
        """GET /style.css."""
        return Response(self._style, media_type="text/css")

    async def failed(self, request: Request, error: Exception) -> Response:
        """The page of an error."""
        if isinstance(error, Refusal):
            return self._message(request, error.status, f"{error.code.replace('_', ' ')}; nothing was decided")
        if isinstance(error, RegistryError):
            return self._message(request, 404, f"{error}; wants the id of an answer or of a version")
        if isinstance(error, Undelivered):
            return self._message(request, 503, str(error))
        line = self._told(error)
        return self._message(request, 503 if line else 500, line or "a fault of the console; its log says where")

    def _decided(self, item: ReviewItem, form: Mapping[str, str], reviewer: str) -> str:
        action = ACTIONS.get(form.get("action", ""))
        if action is None:
            raise ValueError(f"action: wants one of {', '.join(ACTIONS)}")
        stars, text = form.get("stars", ""), form.get("text", "").replace("\r\n", "\n")
        rated = int(stars) if action == "rate" and stars.isdecimal() else None
        return self._desk.decide(item, action, reviewer, stars=rated, text=text).action

    async def _form(self, request: Request) -> dict[str, str]:
        raw = await read_body(request.stream(), request.headers.get("content-length"), self._config)
        try:
            fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
        except ValueError:
            raise Refusal(400, "malformed") from None
        return {name: values[-1] for name, values in fields.items()}

    def _gone(self, request: Request) -> Response:
        return self._message(request, 404, "This item does not wait any more: decided, erased, or pushed out.")

    def _message(self, request: Request, status: int, text: str) -> Response:
        return self._page(request, "message.html", status, text=text)

    def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        shown = {"reviewer": request.state.reviewer, "path": request.url.path, "refresh_s": 0, **values}
        return HTMLResponse(self._pages.get_template(name).render(shown), status)


def create_app(console: Console, config: ConsoleConfig, metrics: ConsoleMetrics) -> Door:
    """The ASGI application behind its door."""
    routes = [
        Route("/", console.state),
        Route("/style.css", console.style),
        Route("/review", console.queue),
        Route("/review/{sample:path}", console.item, methods=["GET"]),
        Route("/review/{sample:path}", console.decide, methods=["POST"]),
        Route("/versions", console.versions),
        Route("/versions/{version}", console.version),
        Route("/answer", console.answer),
    ]
    known = (Refusal, RegistryError, Undelivered, redis.RedisError, UnusableKeys, SettingsError, Exception)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(known, console.failed))
    return Door(app, config.reviewers, metrics)
