"""Every setting of every process: driftline.toml, then DRIFTLINE_SECTION__KEY; nothing else reads the environment.

SettingsError   names the key, the value, the rule it breaks, and where to set it
"""

from __future__ import annotations

import json
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from learner.config import PublishConfig, TrainConfig
from learner.gate import GateLimits
from learner.heldout import SetLimits
from learner.select import SelectConfig
from services.console_config import ConsoleConfig
from services.gateway_config import GatewayConfig, IngestConfig
from services.serving_config import NodeConfig, RegistryConfig, RolloutConfig, RouterConfig
from streams.augment import AugmentConfig
from streams.config import StreamConfig
from streams.quality.config import QualityConfig
from streams.replay.config import ReplayConfig, TableConfig
from streams.scrub.config import ScrubConfig
from streams.scrub.identity import KeyConfig
from streams.topics import BY_NAME, CHATS_CLEAN, CHATS_RAW, EXAMPLES

PREFIX = "DRIFTLINE_"
CONFIG_VARIABLE = "DRIFTLINE_CONFIG"
DEFAULT_FILE = Path("driftline.toml")
RUN_FILE = Path(".driftline/run.json")
PLACES = ("kafka", "redis", "keys", "registry")
"""Sections that say which deployment this is: who sets one of them means another than the run in this folder."""
OUTSIDE = frozenset({CONFIG_VARIABLE, "DRIFTLINE_DATA", "DRIFTLINE_PII"})


class SettingsError(ValueError):
    """A setting that cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class KafkaConfig:
    """How processes reach the broker."""

    bootstrap: str = "127.0.0.1:9092"
    """`host:port`, several separated by commas."""
    prefix: str = ""
    """Put before every topic name and group id on a shared cluster."""
    epoch: str = ""
    """Names the broker's life; offsets mean nothing across two of them. Empty: asked from the cluster."""
    embedded: bool = False
    """True for librdkafka's in-process cluster: memory only, no compaction, four partitions a topic."""
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """librdkafka settings passed through as they are, SASL and TLS included."""

    def client(self, name: str, **more: str | float | bool) -> dict[str, Any]:
        """librdkafka settings of one client called `driftline-<name>`."""
        base = {"bootstrap.servers": self.bootstrap, "client.id": f"driftline-{name}"}
        return {**base, **more, **self.extra}

    def asked_once(self, name: str, **more: str | float | bool) -> dict[str, Any]:
        """Those of a command's client: it says itself, in one line, what librdkafka would say at each attempt."""
        return self.client(name, log_level=0, **more)


@dataclass(frozen=True)
class RedisConfig:
    """How processes reach Redis or Valkey."""

    url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    """redis://, rediss:// or unix:// with user and password where the server wants them."""
    timeout_s: float = 1.0
    """Bound of one call and of one connection attempt, seconds."""

    def __post_init__(self) -> None:
        """Refuse what no server answers to."""
        if not self.url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("url: wants redis://, rediss:// or unix://")
        if not 0 < self.timeout_s <= 2:  # faults-and-attacks: every call ends within 2 s
            raise ValueError(f"timeout_s = {self.timeout_s}: wants more than 0 and at most 2 seconds")


@dataclass(frozen=True)
class AdminConfig:
    """Where a process answers /metrics, /livez and /readyz, and how it logs."""

    host: str = "127.0.0.1"
    """Bind address; 0.0.0.0 in a container."""
    port: int = 0
    """0 takes a free port, which the log names."""
    livez_max_age_s: float = 30.0
    """/livez fails when the main loop has not ticked for so long, seconds."""
    level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        """Check the port and the level."""
        if not 0 <= self.port <= 65535:  # TCP
            raise ValueError(f"port = {self.port}: wants 0 to 65535")
        if self.level not in {"debug", "info", "warning", "error"}:
            raise ValueError(f"level = {self.level!r}: wants debug, info, warning or error")


@dataclass(frozen=True)
class KeysConfig(KeyConfig):
    """The deployment's secrets: those of the pseudonyms, and the operators' token."""

    admin_token: str = field(default="", repr=False)
    """Bearer token of the operators' routes; empty closes them."""

    def __post_init__(self) -> None:
        """Check every secret that is given; `keys()` refuses those that are not."""
        for name, value in [*self.ring.items(), *([("fixed", self.fixed)] if self.fixed else [])]:
            if not 32 <= len(value) <= 128 or set(value.lower()) - set("0123456789abcdef"):  # bits
                raise ValueError(f"{name}: wants 32 to 128 hex digits (openssl rand -hex 32)")
        if self.ring and self.active not in self.ring:
            raise ValueError(f"active = {self.active!r}: is no key of ring ({', '.join(self.ring)})")


@dataclass(frozen=True)
class Settings:
    """One section per part of driftline; each default is the shipped one."""

    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    redis: RedisConfig = field(default_factory=RedisConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    keys: KeysConfig = field(default_factory=KeysConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    console: ConsoleConfig = field(default_factory=ConsoleConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    gate: GateLimits = field(default_factory=GateLimits)
    heldout: SetLimits = field(default_factory=SetLimits)

    def __post_init__(self) -> None:
        """Check what one section says of another."""
        for line in self.train.lines:
            if line == self.train.line or line not in self.replay.lines:
                raise ValueError(
                    f"train.lines = {self.train.lines}: wants lines of replay.lines = {self.replay.lines}"
                    f" other than train.line = {self.train.line!r}"
                )
        remembered: dict[str, StreamConfig | TableConfig] = {
            "stream": self.stream,
            "replay.train": self.replay.train,
            "replay.val": self.replay.val,
            "replay.test": self.replay.test,
        }
        for name, config in remembered.items():
            kept = max(BY_NAME[topic].retention_s for topic in (CHATS_RAW, CHATS_CLEAN, EXAMPLES))
            if config.source_retention_s <= kept:
                raise ValueError(
                    f"{name}.source_retention_s = {config.source_retention_s}: wants more than {kept}, for so long"
                    " Kafka keeps what a rewind reads again and what an erased customer wrote"
                )


def load(file: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the file (driftline.toml if it exists) and, above it, the environment. Raises `SettingsError`."""
    environment = os.environ if environment is None else environment
    named = file or (Path(environment[CONFIG_VARIABLE]) if CONFIG_VARIABLE in environment else None)
    tree: dict[str, Any] = {}
    if named is not None or DEFAULT_FILE.exists():
        path = named or DEFAULT_FILE
        try:
            tree = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"{path}: {reason}; fix the file or unset {CONFIG_VARIABLE}") from None
    for name, value in environment.items():
        if name.startswith(PREFIX) and name not in OUTSIDE:
            _put(tree, name, value)
    built: Settings = _build(Settings, tree, "")
    return built


def with_run_file(
    settings: Settings, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """The same settings, of `file` and environment, pointed at the one-machine run of this folder.

    Only where they name no broker, Redis, keys or store of their own. Raises `SettingsError` where the run was begun by
    a release with other settings.
    """
    environment = os.environ if environment is None else environment
    named = {name.removeprefix(PREFIX).partition("__")[0].lower() for name in environment if name.startswith(PREFIX)}
    own = [part for part in PLACES if part in named or getattr(settings, part) != getattr(Settings(), part)]
    if own or not RUN_FILE.exists():
        return settings
    run = json.loads(RUN_FILE.read_text())
    if "settings" not in run:
        return settings
    try:
        return load(file, {**run["settings"], **environment})
    except SettingsError as error:
        raise SettingsError(f"{RUN_FILE}, of an earlier run: {error}; begin a new run, or delete the file") from None


def child_environment(values: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """The environment that gives a child process these section -> key -> value settings, over our own."""
    chosen = {}
    for section, keys in values.items():
        for key, value in keys.items():
            text = json.dumps(value) if isinstance(value, dict | list | tuple | bool) else str(value)
            chosen[f"{PREFIX}{section.upper()}__{key.upper()}"] = text
    return {**os.environ, **chosen}


def _put(tree: dict[str, Any], name: str, value: str) -> None:
    parts = name.removeprefix(PREFIX).lower().split("__")
    if len(parts) < 2:  # section and key
        raise SettingsError(f"{name}: unknown setting; wants {PREFIX}SECTION__KEY")
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {part} is a value, not a section")
    tree[parts[-1]] = value


def _build(cls: Any, tree: Mapping[str, Any], path: str) -> Any:
    if not isinstance(tree, Mapping):
        raise SettingsError(f"{path.rstrip('.')}: wants a section with keys")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for name in tree:
        if name not in known:
            raise SettingsError(f"{path}{name}: unknown setting; known here: {', '.join(sorted(known))}")
    values = {name: _value(hints[name], raw, f"{path}{name}") for name, raw in tree.items()}
    try:
        return replace(cls(), **values)
    except ValueError as error:
        raise SettingsError(f"{path}{error}") from None


def _value(hint: Any, raw: Any, path: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, raw, f"{path}.")
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if raw is None or raw == "" else _value(options[0], raw, path)
    if origin is typing.Literal:
        return _choice(typing.get_args(hint), raw, path)
    try:
        return _convert(hint, origin, raw, path)
    except (ValueError, TypeError):
        name = f"{PREFIX}{path.replace('.', '__').upper()}"
        wanted = getattr(hint, "__name__", str(hint))
        raise SettingsError(f"{path} = {raw!r}: wants {wanted}; set it in driftline.toml or {name}") from None


def _convert(hint: Any, origin: Any, raw: Any, path: str) -> Any:
    if origin in {tuple, frozenset, list}:
        kind = typing.get_args(hint)[0]
        items = raw if not isinstance(raw, str) else _items(raw)
        return origin(_value(kind, item, path) for item in items)
    if origin is not None and issubclass(origin, Mapping):
        kind = typing.get_args(hint)[1]
        pairs = json.loads(raw) if isinstance(raw, str) else raw
        return {key: _value(kind, value, f"{path}.{key}") for key, value in dict(pairs).items()}
    if hint is bool:
        return raw if isinstance(raw, bool) else _switch(raw)
    if hint in {int, float, str, Path}:
        if isinstance(raw, bool):
            raise TypeError
        return hint(raw)
    raise TypeError


def _items(raw: str) -> list[Any]:
    text = raw.strip()
    return (
        list(json.loads(text)) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    )


def _choice(options: tuple[Any, ...], raw: Any, path: str) -> Any:
    if raw not in options:
        raise SettingsError(f"{path} = {raw!r}: wants one of {', '.join(map(str, options))}")
    return raw


def _switch(raw: str) -> bool:
    if raw.lower() not in {"true", "false", "1", "0"}:
        raise ValueError(raw)
    return raw.lower() in {"true", "1"}
