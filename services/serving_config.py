"""Settings of the registry and of the processes that serve: node, router and rollout, as shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from streams.rollout_events import Metric

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
PUBLIC_DIGITS = 64
"""Hex digits of an Ed25519 public key."""

KILL_CACHE_S = 0.5
"""A kill switch may be known this late, seconds (rollout.md 2)."""


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ValueError(f"{name} = {value}: wants at least {least:g}")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} = {value}: wants 0 to 1")


@dataclass(frozen=True)
class RegistryConfig:
    """Where versions are kept, and whose signatures count."""

    directory: Path = Path(".driftline/store")
    """The store."""
    key: Path = Path(".driftline/signing.key")
    """The publisher's private key, 64 hex digits; made by `learn` where there is none."""
    trusted: tuple[str, ...] = ()
    """Public keys of publishers, hex; empty: the one that belongs to `key` (one machine)."""

    def __post_init__(self) -> None:
        """Check the form of the public keys."""
        for public in self.trusted:
            if len(public) != PUBLIC_DIGITS or set(public.lower()) - set("0123456789abcdef"):
                raise ValueError(f"trusted = {public!r}: wants 64 hex digits")


@dataclass(frozen=True)
class NodeConfig:
    """One inference node: its engine, its door, and when it gives up on a version."""

    name: str = "node-1"
    """Key of its reports; unique in the fleet."""
    host: str = "127.0.0.1"
    """Bind address of the API."""
    port: int = 8104
    """0 takes a free port."""
    url: str = ""
    """By which routers reach it; empty: made from host and port."""
    engine: Literal["embedded", "vllm", "sglang"] = "embedded"
    """Which driver stands behind the door."""
    engine_url: str = "http://127.0.0.1:8000"
    """Of vLLM or SGLang, on loopback; never reachable by others."""
    engine_command: tuple[str, ...] = ()
    """How this node starts and restarts its engine; empty: somebody else does."""
    base: str = ""
    """Folder of the base model; empty: the small one that driftline ships."""
    line: str = "a"
    """The line whose rollout record it obeys."""
    directory: Path = Path(".driftline/node")
    """Fetched versions and the last rollout record, kept over restarts."""
    max_cpu_adapters: int = 8
    """The engine's max-cpu-loras: a retired directory stays for so many later loads."""
    reconcile_s: float = 5.0
    """Desired and real state are compared at least so often, seconds."""
    report_s: float = 2.0
    """Seconds between reports; three missed ones mean gone."""
    engine_timeout_s: float = 60.0
    """Bound of one engine call, seconds."""
    drain_s: float = 30.0
    """Longest wait for running answers of a version before it is unloaded, seconds."""
    retry_s: float = 5.0
    """Pause before a fetch is tried again whose store was away, seconds."""
    breaker_window: int = 20
    """Answers of one version that the breaker looks back on."""
    breaker_limit: int = 5
    """Failed or empty ones among them that open it."""
    crash_window_s: float = 600.0
    """Two engine crashes within so many seconds quarantine the version that was loaded last."""
    batch: int = 8
    """Embedded engine: most answers generated at once."""
    max_new_tokens: int = 96
    """Embedded engine: longest answer when the request names none."""
    queue: int = 256
    """Requests that may wait for the engine; one more is refused with 503."""

    def __post_init__(self) -> None:
        """Check counts and their order."""
        for name in ("batch", "max_new_tokens", "queue", "breaker_limit", "max_cpu_adapters"):
            _at_least(name, getattr(self, name), 1)
        if self.breaker_limit > self.breaker_window:
            raise ValueError(f"breaker_limit = {self.breaker_limit}: wants at most breaker_window")


@dataclass(frozen=True)
class RouterConfig:
    """The customers' door: where it listens, what it records, how long a conversation keeps its version."""

    host: str = "127.0.0.1"
    """Bind address of the API."""
    port: int = 8105
    """0 takes a free port."""
    line: str = "a"
    """The line that plain `driftline` means."""
    record: Literal["all", "none"] = "all"
    """Whether requests and answers become chat events; `none` where the platform sends the same chats itself."""
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Bearer token -> tenant; empty opens the router to anybody, as tenant ''."""
    pin_ttl_s: float = 7 * DAY_S
    """A conversation keeps its version so long after its last turn, seconds."""
    kill_poll_s: float = 0.25
    """How often the kill switch is read from Redis, seconds."""
    connect_timeout_s: float = 1.0
    """Bound of a connection to a node, seconds."""
    answer_timeout_s: float = 60.0
    """Bound of one answer, seconds."""
    slow_s: float = 2.0
    """Objective of the first token; a later one is a `slow` outcome, seconds."""
    spool: Path = Path(".driftline/router")
    """Folder for records on their way to Kafka and for the last rollout record."""
    max_body_bytes: int = 1_048_576
    """Longest request body."""
    max_messages: int = 256
    """Most messages of one request."""

    def __post_init__(self) -> None:
        """Check the limits that the kill switch depends on."""
        if not 0 < self.kill_poll_s <= KILL_CACHE_S:
            raise ValueError(f"kill_poll_s = {self.kill_poll_s}: wants more than 0 and at most 0.5 seconds")
        _at_least("pin_ttl_s", self.pin_ttl_s, 1)


def _windows() -> dict[str, float]:
    return {"error": 60.0, "safety": 60.0, "slow": 60.0, "escalated": DAY_S, "negative": DAY_S}


def _margins() -> dict[str, float]:
    return {"error": 0.01, "safety": 0.01, "slow": 0.02, "escalated": 0.03, "negative": 0.03}


@dataclass(frozen=True)
class RolloutConfig:
    """The canary: its stages, its guardrails, how sure it has to be."""

    line: str = "a"
    """The line that this controller decides for."""
    weights: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5)
    """Share of new conversations for the candidate, stage by stage."""
    matured: tuple[int, ...] = (20, 50, 200, 0)
    """Candidate conversations that must have matured before a stage is left; one count a stage."""
    windows_s: Mapping[str, float] = field(default_factory=_windows)
    """Metric -> seconds after the exposure in which a bad outcome counts; the same for both arms."""
    margins: Mapping[str, float] = field(default_factory=_margins)
    """Metric -> largest rise of its bad rate that promotion may allow."""
    grace_s: float = 5.0
    """Wait for late records after a window has closed, seconds."""
    alpha: float = 0.05
    """Error rate of one rollout, at every moment."""
    caution: float = 5.0
    """No step forward while some harm e-value is at least this."""
    srm_alarm: float = 1000.0
    """Sample-ratio e-value that stops everything."""
    min_wall_s: float = HOUR_S
    """A promotion takes at least so long, seconds."""
    horizon: int = 12_000
    """Conversations after which an undecided candidate is given up."""
    horizon_s: float = 7 * DAY_S
    """Seconds after which an undecided candidate is given up."""
    at_horizon: Literal["roll_back", "hold"] = "roll_back"
    """What giving up means; `hold` waits for a person."""
    quorum: float = 0.8
    """Share of nodes (at least one) that must be ready for the candidate."""
    distribute_timeout_s: float = 600.0
    """A candidate that is not ready on the quorum by then is dropped, seconds."""
    holdback: float = 0.1
    """After a promotion: share of new conversations that stay on the previous version."""
    soak_s: float = DAY_S
    """How long a promotion is watched before the next candidate, seconds."""
    stale_s: float = 120.0
    """Silence of telemetry that means HOLD, seconds."""
    dark_s: float = 1800.0
    """Silence of telemetry that means weight 0, seconds."""
    tick_s: float = 0.25
    """Pause between two looks at the world, seconds."""

    def __post_init__(self) -> None:
        """Check that the stages fit together and every guardrail has its window and margin."""
        if len(self.weights) != len(self.matured):
            raise ValueError(f"matured = {self.matured}: wants one count for each of weights")
        if not self.weights or list(self.weights) != sorted(self.weights) or not self.weights[0] > 0:
            raise ValueError(f"weights = {self.weights}: wants rising shares above 0")
        _share("weights", self.weights[-1])
        _share("holdback", self.holdback)
        _share("quorum", self.quorum)
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha}: wants more than 0 and less than 1")
        for name, values in (("windows_s", self.windows_s), ("margins", self.margins)):
            if not values or set(values) - set(Metric):
                raise ValueError(f"{name}: wants metrics of {', '.join(Metric)}")
        if set(self.windows_s) != set(self.margins):
            raise ValueError("margins: wants the same metrics as windows_s")
        if self.dark_s < self.stale_s:
            raise ValueError(f"dark_s = {self.dark_s}: wants at least stale_s = {self.stale_s}")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The guardrails in their fixed order."""
        return tuple(metric for metric in Metric if metric in self.windows_s)


def demo_rollout() -> dict[str, object]:
    """What the one-machine demo sets: stages, counts, windows and margins small enough for two minutes."""
    windows = dict.fromkeys(("error", "safety", "slow", "escalated", "negative"), 2.0)
    return {
        "weights": (0.25, 0.5), "matured": (10, 10), "windows_s": windows, "margins": dict.fromkeys(windows, 0.2),
        "grace_s": 0.5, "min_wall_s": 0.0, "holdback": 0.1, "soak_s": 0.2, "distribute_timeout_s": 30.0,
        "horizon_s": 600.0, "stale_s": 30.0, "dark_s": 120.0, "tick_s": 0.2,
    }  # fmt: skip
