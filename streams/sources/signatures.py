"""Are these bytes from the platform that they claim, and which event are they.

`verify` raises `Refused` with a `Reason`; it reads nothing but its arguments. Contracts as published:
Zendesk webhooks, Slack request signing v0, Intercom notifications, Standard Webhooks 1.0.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from streams.events import timestamp

WINDOW_S = 300
"""How far the signed time may lie from ours, both ways, seconds; also Slack's and Standard Webhooks' own advice."""

PUBLIC_SECRETS = frozenset({"dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==", "this_secret_is_for_testing_only"})
"""Secrets printed in documentation; whoever uses them signs nothing."""

SOURCES = ("zendesk", "slack", "intercom", "standard")
"""Platforms whose signatures are known."""


class Reason(StrEnum):
    """Why a request is refused; all of them are answered with 401."""

    MISSING_HEADER = "missing_header"
    BAD_HEADER = "bad_header"
    TIME = "time"
    SIGNATURE = "signature"
    UNCONFIGURED = "unconfigured"


class Refused(Exception):
    """The bytes are not known to come from the source; `reason` says why, the message holds nothing of them."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class EventIds:
    """What stops a replay: the id under which the request is remembered, and its signed time where it has one."""

    request_id: str
    """From signed bytes only: the platform's own id, else a digest of what was signed."""
    signed_at: float | None
    """Unix seconds; None for Intercom, which signs no time."""


def verify(source: str, raw_body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> EventIds:
    """Check the signature over the bytes as received, against every secret. Raises `Refused`.

    `source` is one of `SOURCES` (KeyError otherwise); `headers` may have any casing; `now` is Unix seconds.
    """
    if not secrets:
        raise Refused(Reason.UNCONFIGURED)
    found = {name.lower(): value for name, value in headers.items()}
    ids, candidates, expected = _CLAIMS[source](raw_body, found)
    if ids.signed_at is not None and abs(now - ids.signed_at) > WINDOW_S:
        raise Refused(Reason.TIME)
    # Every pair is compared, so that the time taken says nothing about which one fits.
    matches = [hmac.compare_digest(expected(secret), given) for secret in secrets for given in candidates]
    if not any(matches):
        raise Refused(Reason.SIGNATURE)
    return ids


Claim = tuple[EventIds, Sequence[bytes], Callable[[str], bytes]]
"""Who it says it is, the signatures that it brings, and the signature that a secret gives."""


def _zendesk(body: bytes, headers: Mapping[str, str]) -> Claim:
    given = _header(headers, "x-zendesk-webhook-signature")
    stamp = _header(headers, "x-zendesk-webhook-signature-timestamp")
    signed = stamp.encode() + body
    try:
        at = timestamp(stamp)
    except (ValueError, OverflowError):
        raise Refused(Reason.BAD_HEADER) from None
    return EventIds(_digest("zendesk", signed), at), [given.encode()], lambda s: _base64(s.encode(), signed)


def _slack(body: bytes, headers: Mapping[str, str]) -> Claim:
    given = _header(headers, "x-slack-signature")
    stamp = _header(headers, "x-slack-request-timestamp")
    signed = b"v0:" + stamp.encode() + b":" + body
    ids = EventIds(_digest("slack", signed), _seconds(stamp))
    return ids, [given.encode()], lambda s: b"v0=" + hmac.digest(s.encode(), signed, "sha256").hex().encode()


def _intercom(body: bytes, headers: Mapping[str, str]) -> Claim:
    given = _header(headers, "x-hub-signature")
    ids = EventIds(_digest("intercom", body), None)
    return ids, [given.encode()], lambda s: b"sha1=" + hmac.digest(s.encode(), body, "sha1").hex().encode()


def _standard(body: bytes, headers: Mapping[str, str]) -> Claim:
    name = _header(headers, "webhook-id")
    stamp = _header(headers, "webhook-timestamp")
    given = _header(headers, "webhook-signature")
    signed = f"{name}.{stamp}.".encode() + body
    # Other versions (v1a is asymmetric) may stand beside ours and are skipped.
    candidates = [part[3:].encode() for part in given.split(" ") if part.startswith("v1,")]
    if not candidates:
        raise Refused(Reason.BAD_HEADER)
    return EventIds(name, _seconds(stamp)), candidates, lambda s: _base64(_standard_key(s), signed)


_CLAIMS: Mapping[str, Callable[[bytes, Mapping[str, str]], Claim]] = {
    "zendesk": _zendesk, "slack": _slack, "intercom": _intercom, "standard": _standard,
}  # fmt: skip


def check_secret(source: str, secret: str) -> None:
    """Raises ValueError, without the secret in it, when a secret is public, empty or not in its source's form."""
    if not secret or secret in PUBLIC_SECRETS:
        raise ValueError(f"{source}: wants a secret that no documentation prints")
    if source == "standard":
        try:
            key = _standard_key(secret)
        except Refused:
            raise ValueError("standard: wants whsec_ and base64") from None
        if len(key) < 16:  # 128 bits
            raise ValueError("standard: wants a key of at least 16 bytes")


def _standard_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.UNCONFIGURED) from None


def _base64(key: bytes, signed: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise Refused(Reason.MISSING_HEADER)
    if not value.isascii():
        raise Refused(Reason.BAD_HEADER)
    return value


def _seconds(stamp: str) -> float:
    if not stamp.isdigit() or len(stamp) > 12:  # seconds until the year 33658
        raise Refused(Reason.BAD_HEADER)
    return float(stamp)


def _digest(source: str, signed: bytes) -> str:
    return f"{source}-{sha256(signed).hexdigest()[:32]}"
