"""How one stream worker reaches its broker, how much it holds at once, and when conversations are complete."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

DAY_S = 86_400


@dataclass(frozen=True)
class StreamConfig:
    """Settings of the stream worker; times of the assembler run on the clock of chats.raw."""

    bootstrap: str = "127.0.0.1:9092"
    """`host:port`, several separated by commas; filled from the section kafka."""
    prefix: str = ""
    """Put before every topic name and the group; filled from the section kafka."""
    epoch: str = ""
    """Names the broker's life; offsets mean nothing across two of them. Filled from the section kafka."""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """librdkafka settings passed through, SASL and TLS included; filled from the section kafka."""
    group: str = "driftline-clean"
    """Consumer group of all workers."""
    instance: str = ""
    """Static member id of this worker, so that its restart causes no rebalance; empty: a new member each time."""
    session_timeout_s: float = 10.0
    """A killed worker's partitions are taken over after about so long, seconds."""
    commit_interval_s: float = 0.3
    """Between two commits of acknowledged offsets, seconds."""
    fetch_wait_s: float = 1.5
    """Longest wait of the broker for records to answer a fetch with, seconds; short on the embedded broker, which waits
    that long though records come."""
    lean_drain: bool = True
    """Hand records to the agents without Faust's two futures a record; off: Faust's own way."""
    batch: int = 256
    """Most events that one stage takes at once."""
    in_flight: int = 10_000
    """Most events a stage holds that are not acknowledged; above it the worker stops reading."""
    stop_s: float = 4.0
    """Longest wait for what is under way when the worker stops, seconds; the rest is read again."""
    no_assignment_s: float = 60.0
    """A worker without partitions for so long while the broker answers exits to be restarted, seconds."""
    speed: float = 1.0
    """Chats come so many times as fast as they happened: `gap_s`, `idle_s` and `rating_wait_s` are divided by it."""
    gap_s: float = 120.0
    """How long a missing turn, or a close without all its turns, is waited for, seconds."""
    idle_s: float = 1_800.0
    """A conversation without close is complete so long after its last event, seconds."""
    emit_after_s: float = 10.0
    """A sample leaves when its oldest complete reply is so old, seconds; never divided by `speed`."""
    rating_wait_s: float = DAY_S
    """An unrated answer of the model waits for a signal so long after completion, seconds."""
    state_ttl_s: int = 7 * DAY_S
    """Life of a conversation's state after its last event, seconds."""
    ledger_ttl_s: int = 8 * DAY_S
    """Life of ledger entries, seconds; at least the topics' retention and a day."""
    source_retention_s: int = 8 * DAY_S
    """Life of offset bitmaps, seconds; longer than the topics' retention."""
    shares: tuple[float, ...] = (0.85, 0.10, 0.05)
    """Shares of conversations in train, val and test."""
    salt: str = "driftline"
    """Salt of the split; another one deals all conversations anew."""
    max_replies: int = 8
    """Most replies in one sample."""
    context_turns: int = 24
    """Most turns before the first reply of a sample; older ones are left out."""
    context_chars: int = 6_000
    """Most characters of those turns."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if len(self.shares) != 3 or min(self.shares) < 0 or not math.isclose(sum(self.shares), 1.0):
            raise ValueError(f"shares = {self.shares}: wants three shares (train, val, test) that sum to 1")
        positive = ("speed", "gap_s", "idle_s", "emit_after_s", "commit_interval_s", "stop_s", "session_timeout_s")
        for name in (*positive, "fetch_wait_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: wants more than 0")
        if not 1 <= self.batch <= self.in_flight:
            raise ValueError(f"batch = {self.batch}: wants 1 to in_flight = {self.in_flight}")
        if self.ledger_ttl_s < self.state_ttl_s:
            raise ValueError(f"ledger_ttl_s = {self.ledger_ttl_s}: wants at least state_ttl_s = {self.state_ttl_s}")
        if not 1 <= self.max_replies <= 32:  # bits of the buffer's target mask
            raise ValueError(f"max_replies = {self.max_replies}: wants 1 to 32")

    def topic(self, name: str) -> str:
        """The topic's name on this cluster."""
        return self.prefix + name

    def client(self, name: str, **more: str | float | bool) -> dict[str, str | int | float | bool]:
        """librdkafka settings of one client called `driftline-<name>`."""
        base: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap, "client.id": f"driftline-{name}", "log_level": 3,
        }  # fmt: skip
        return {**base, **more, **self.extra}
