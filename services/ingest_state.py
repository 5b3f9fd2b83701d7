"""How far each file has been ingested: in Redis beside the gateway's ids, else in a folder of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import redis

from services.local import redis_server

if TYPE_CHECKING:
    from services.settings import Settings

KEEP_S = 15 * 86_400
"""As long as the ledger remembers events (the longest of chats.raw, chats.clean and examples, and a day), doubled."""

FOLDER = Path(".driftline/ingest")


@dataclass(frozen=True)
class Position:
    """Records of a file that the broker has acknowledged, without a gap, and whether these are all."""

    done: int = 0
    complete: bool = False


class Positions(Protocol):
    """Where positions are kept."""

    def load(self, name: str) -> Position:
        """The position of a file digest; the beginning when it is not known."""

    def save(self, name: str, position: Position) -> None:
        """Remember it."""


class RedisPositions:
    """Positions under `gw:ingest:<broker>:<digest>`."""

    def __init__(self, client: redis.Redis, broker: str) -> None:
        self._client = client
        self._prefix = f"gw:ingest:{broker}:"

    def load(self, name: str) -> Position:
        """The position of a file digest; the beginning when it is not known."""
        return _position(self._client.get(self._prefix + name))

    def save(self, name: str, position: Position) -> None:
        """Remember it for `KEEP_S`; an outage costs a repeat, which the ledger drops."""
        try:
            self._client.set(self._prefix + name, _text(position), ex=KEEP_S)
        except redis.RedisError:
            # The next save, a second later, tries again.
            return


class FilePositions:
    """Positions as small files."""

    def __init__(self, folder: Path, broker: str) -> None:
        self._folder = folder / broker.replace("/", "_")

    def load(self, name: str) -> Position:
        """The position of a file digest; the beginning when it is not known."""
        path = self._folder / f"{name}.json"
        return _position(path.read_bytes() if path.exists() else None)

    def save(self, name: str, position: Position) -> None:
        """Remember it, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f"{name}.tmp"
        temporary.write_text(_text(position))
        temporary.rename(self._folder / f"{name}.json")


@contextmanager
def open_positions(settings: Settings, broker: str) -> Iterator[Positions]:
    """Redis if it answers, else the folder; `broker` is the broker's identity, since its offsets die with it."""
    client = redis_server.client(settings.redis.url, settings.redis.timeout_s)
    try:
        client.ping()
    except redis.RedisError:
        yield FilePositions(FOLDER, broker)
    else:
        yield RedisPositions(client, broker)
    finally:
        client.close()


def _text(position: Position) -> str:
    return json.dumps({"done": position.done, "complete": position.complete})


def _position(raw: bytes | str | None) -> Position:
    if raw is None:
        return Position()
    found = json.loads(raw)
    return Position(int(found["done"]), bool(found["complete"]))
