"""Who may come in: HTTP Basic (RFC 7617) by name and password, forms of this site only, strict headers.

401 without a right password, 403 for a form of another site.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.console.metrics import ConsoleMetrics

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer carries: pages hold chats, so nothing keeps, frames or refers to them."""

SAFE = frozenset({"GET", "HEAD"})
REALM = 'Basic realm="driftline", charset="UTF-8"'


class Door:
    """ASGI middleware before every route; `scope["state"]["reviewer"]` is who came in."""

    def __init__(self, app: ASGIApp, reviewers: Mapping[str, str], metrics: ConsoleMetrics) -> None:
        self._app = app
        self._reviewers = {name.encode(): password.encode() for name, password in reviewers.items()}
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(str(message["status"])).inc()
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        name = self.reviewer(headers.get("authorization", ""))
        if name is None:
            asking = {"WWW-Authenticate": REALM}
            await PlainTextResponse("name and password, please\n", 401, headers=asking)(scope, receive, guarded)
        elif scope["method"] not in SAFE and not same_site(headers):
            await PlainTextResponse("this form came from another site\n", 403)(scope, receive, guarded)
        else:
            scope.setdefault("state", {})["reviewer"] = name
            await self._app(scope, receive, guarded)

    def reviewer(self, authorization: str) -> str | None:
        """The name behind an Authorization header, None unless its password is right."""
        scheme, _, coded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
        except ValueError:
            return None
        # Every pair is compared, so that the time taken says nothing about which one is near.
        right = [
            hmac.compare_digest(name, known) & hmac.compare_digest(password, secret)
            for known, secret in self._reviewers.items()
        ]
        return name.decode() if any(right) else None


def same_site(headers: Headers) -> bool:
    """Whether a form was sent from a page of this site, or by no browser (which would say where it is from)."""
    fetched = headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")
