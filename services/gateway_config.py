"""Settings of the ways in: gateway and ingest. Every default is the shipped one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streams.sources.signatures import SOURCES, check_secret

DAY_S = 86_400.0


@dataclass(frozen=True)
class IngestConfig:
    """How files are put on chats.raw."""

    tenant: str = ""
    """Tenant of everything that is ingested."""
    reader_group: str = "driftline-clean"
    """Consumer group that reads chats.raw; on the embedded broker ingest waits for what it has committed."""
    agents: tuple[str, ...] = ()
    """E-mail addresses or domains of the own staff, by which mbox threads know agents from customers."""


@dataclass(frozen=True)
class GatewayConfig:
    """The HTTP door for chat events and webhooks."""

    host: str = "127.0.0.1"
    """Bind address; 0.0.0.0 in a container."""
    port: int = 8101
    """0 takes a free port."""
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Bearer key -> tenant of its sender; without any, /v1/events and the capture proxy answer 401."""
    webhooks: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name of a hook, `SOURCE/TENANT` (zendesk, slack, intercom, standard) -> its secrets, separated by spaces."""
    slack_agents: tuple[str, ...] = ()
    """Slack user ids of the own staff; everybody else in a channel is a customer."""
    max_body_bytes: int = 1_048_576
    """Largest body as it comes over the wire."""
    max_unpacked_bytes: int = 8_388_608
    """Largest body after gzip."""
    max_depth: int = 32
    """Deepest nesting of JSON."""
    max_batch: int = 1_000
    """Most events in one request."""
    body_timeout_s: float = 10.0
    """Longest time that a request's body may take to arrive, seconds."""
    produce_timeout_s: float = 1.5
    """Longest wait for Kafka's acknowledgment before a 503, seconds; the page asks for 503 within 2 s."""
    max_queue_bytes: int = 33_554_432
    """Bytes waiting for Kafka above which new requests get 503."""
    rate_per_s: float = 500.0
    """Events a second that one sender may send for long; above it 429."""
    burst: float = 5_000.0
    """Events that one sender may send at once."""
    max_connections: int = 1_000
    """Open requests above which new ones get 503."""
    remember_s: float = 7 * DAY_S
    """How long event and webhook ids are remembered, seconds; older webhook events are refused."""
    upstream: str = ""
    """Base URL of the OpenAI-compatible API behind the capture proxy, as `https://host/v1`; empty: no proxy."""
    upstream_key: str = field(default="", repr=False)
    """Bearer key of the upstream; clients use a key of `api_keys` and never see it."""
    upstream_timeout_s: float = 120.0
    """Longest answer of the upstream, seconds."""
    record_agent: Literal["agent", "assistant"] = "agent"
    """Role under which captured answers are recorded: `agent` (trusted model) or `assistant` (wants ratings)."""

    def __post_init__(self) -> None:
        """Check limits, secrets and the upstream's scheme."""
        for name in ("max_body_bytes", "max_unpacked_bytes", "max_depth", "max_batch", "max_queue_bytes", "burst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: wants at least 1")
        for name in ("body_timeout_s", "produce_timeout_s", "rate_per_s", "remember_s", "upstream_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: wants more than 0")
        if self.upstream and not self.upstream.startswith(("http://", "https://")):
            raise ValueError("upstream: wants http:// or https://")
        for name, secrets in self.webhooks.items():
            _check_hook(name, secrets)


def _check_hook(name: str, secrets: str) -> None:
    source = name.partition("/")[0]
    if source not in SOURCES:
        raise ValueError(f"webhooks: {name!r} wants one of {', '.join(SOURCES)} before the slash")
    for secret in secrets.split() or [""]:
        check_secret(source, secret)
