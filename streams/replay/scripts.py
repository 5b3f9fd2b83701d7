"""The Lua of the replay buffer, put together from its files and sent by digest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha1
from importlib.resources import files

import redis

from streams import ledger
from streams.replay import offsets
from streams.replay.config import ServerFull

PARTS = {
    "insert": ("core", "flush", "evict", "insert"),
    "annotate": ("annotate",),
    "draw": ("core", "flush", "draw"),
    "update": ("core", "flush", "evict", "update"),
    "remove": ("core", "flush", "evict", "remove"),
    "sweep": ("core", "flush", "evict", "sweep"),
    "probe": ("probe",),
}
"""Each script's files, in the order in which they are put together."""

_FILING = {"insert", "annotate"}
"""Scripts that file what became of events and offsets."""


@cache
def text(name: str) -> str:
    """The whole Lua of a script."""
    shared = ledger.SCRIPT + offsets.SCRIPT if name in _FILING else ""
    folder = files("streams.replay")
    return shared + "".join(folder.joinpath(f"{part}.lua").read_text() for part in PARTS[name])


@cache
def digest(name: str) -> str:
    """What Redis calls a script that it has been sent."""
    return sha1(text(name).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def full_as_error() -> Iterator[None]:
    """Raise `ServerFull` for the several ways in which servers say that a script was denied memory."""
    try:
        yield
    except redis.ResponseError as error:
        if "OOM" in str(error) or "maxmemory" in str(error):
            raise ServerFull("OOM: the server is at maxmemory; nothing happened") from None
        raise
