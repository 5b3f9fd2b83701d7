"""The Lua of the replay buffer, put together from its files and sent by digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import redis

from streams import ledger
from streams.replay import offsets
from streams.replay.config import ServerFull

_FILES = files("streams.replay")


def _text(name: str) -> str:
    return _FILES.joinpath(f"{name}.lua").read_text()


@contextmanager
def full_as_error() -> Iterator[None]:
    """Raise `ServerFull` for the several ways in which servers say that a script was denied memory."""
    try:
        yield
    except redis.ResponseError as error:
        if "OOM" in str(error) or "maxmemory" in str(error):
            raise ServerFull("the server is at maxmemory; nothing happened") from None
        raise


class Scripts:
    """The scripts of one table; each is loaded again by itself after SCRIPT FLUSH or a restart."""

    def __init__(self, client: redis.Redis) -> None:
        core = _text("core")
        evicting = core + _text("evict")
        shared = ledger.SCRIPT + offsets.SCRIPT
        self.insert = client.register_script(shared + evicting + _text("insert"))
        self.annotate = client.register_script(shared + _text("annotate"))
        self.draw = client.register_script(core + _text("draw"))
        self.update = client.register_script(evicting + _text("update"))
        self.remove = client.register_script(evicting + _text("remove"))
        self.sweep = client.register_script(evicting + _text("sweep"))
