"""Settings of the console. Every default is the shipped one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHORTEST_PASSWORD = 16
"""Characters; long enough that guessing over the network is hopeless without any lock that could shut people out."""


@dataclass(frozen=True)
class ConsoleConfig:
    """The pages for people: review, versions, state."""

    host: str = "127.0.0.1"
    """Bind address; on another one put TLS in front, for passwords travel with each request."""
    port: int = 8107
    """0 takes a free port, which the log names."""
    reviewers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name of a person -> password; the name is kept with each decision. Without any, the console does not start."""
    items: int = 50
    """Items of the review queue on its page."""
    max_body_bytes: int = 131_072
    """Largest form as it comes over the wire."""
    body_timeout_s: float = 10.0
    """Longest time that a form may take to arrive, seconds."""
    decision_timeout_s: float = 5.0
    """Longest wait for Kafka's acknowledgment of a decision before a 503, seconds."""

    def __post_init__(self) -> None:
        """Check bounds, names and passwords."""
        for name in ("items", "max_body_bytes", "body_timeout_s", "decision_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: wants more than 0")
        if not 0 <= self.port <= 65535:  # TCP
            raise ValueError(f"port = {self.port}: wants 0 to 65535")
        for name, password in self.reviewers.items():
            if not name or ":" in name:  # RFC 7617: a colon ends the name
                raise ValueError(f"reviewers: {name!r} is no name; wants one without a colon")
            if len(password) < SHORTEST_PASSWORD:
                raise ValueError(f"reviewers.{name}: wants at least {SHORTEST_PASSWORD} characters")
