"""Bounds of what a stranger may send: bytes on the wire, bytes unpacked, nesting, time, and events a second."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from services.gateway_config import GatewayConfig

_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


class Refusal(Exception):
    """An answer that is no 200: HTTP status, a code of a closed set, the field at fault, seconds to wait."""

    def __init__(self, status: int, code: str, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.field = field
        self.retry_after_s = retry_after_s


class Bounds(Protocol):
    """What a body on the wire may be."""

    @property
    def max_body_bytes(self) -> int:
        """Most bytes."""

    @property
    def body_timeout_s(self) -> float:
        """Longest time that it may take to arrive, seconds."""


async def read_body(chunks: AsyncIterator[bytes], declared: str | None, config: Bounds) -> bytes:
    """The bytes as they came over the wire. Raises `Refusal` 413 (too large) or 408 (too slow)."""
    if declared is not None and declared.isdigit() and int(declared) > config.max_body_bytes:
        raise Refusal(413, "too_large")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(config.body_timeout_s):
            async for chunk in chunks:
                size += len(chunk)
                if size > config.max_body_bytes:
                    raise Refusal(413, "too_large")
                parts.append(chunk)
    except TimeoutError:
        raise Refusal(408, "too_slow") from None
    return b"".join(parts)


def unpacked(body: bytes, encoding: str, config: GatewayConfig) -> bytes:
    """The body after gzip, never more of it than allowed. Raises `Refusal` 413, or 400 for bad data or encoding."""
    if encoding in {"", "identity"}:
        return body
    if encoding != "gzip":
        raise Refusal(400, "bad_encoding", "content-encoding")
    reader = zlib.decompressobj(wbits=31)
    try:
        out = reader.decompress(body, config.max_unpacked_bytes + 1)
    except zlib.error:
        raise Refusal(400, "bad_encoding", "body") from None
    if len(out) > config.max_unpacked_bytes:
        raise Refusal(413, "too_large")
    if not reader.eof:
        raise Refusal(400, "bad_encoding", "body")
    return out


def parse(body: bytes, config: GatewayConfig) -> Any:
    """The JSON of a body that is not nested too deep. Raises `Refusal` 400."""
    if body.count(b"[") + body.count(b"{") > config.max_depth and depth(body) > config.max_depth:
        raise Refusal(400, "too_deep")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "not_json") from None


def depth(body: bytes) -> int:
    """How deep brackets nest outside of strings."""
    deepest = level = 0
    for match in _MARKS.finditer(body):
        mark = match[0]
        if mark in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif mark in b"]}":
            level -= 1
    return deepest


class Rates:
    """A token bucket a sender: `burst` events at once, `rate_per_s` for long; the longest silent are forgotten."""

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float], most: int = 10_000) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._clock = clock
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, sender: str, events: int) -> float:
        """Take this many events; 0 when they may pass, else the seconds after which they may be tried again."""
        now = self._clock()
        level, at = self._buckets.pop(sender, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        # A batch larger than the bucket passes when the bucket is full: else it could never pass.
        wanted = min(float(events), self._burst)
        missing = wanted - level
        self._buckets[sender] = (level if missing > 0 else level - events, now)
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return max(0.0, missing / self._rate)
