"""Which split a conversation belongs to: a pure function of its key, so that it is the same wherever it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from streams.events import Split

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_of(key: str, salt: str, shares: Sequence[float]) -> Split:
    """train, val or test by the hash of `key` (a split pseudonym); `shares` are those three in order, sum 1."""
    digest = sha256(salt.encode() + b"\x00" + key.encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in zip(_SPLITS, shares, strict=True):
        if point < share:
            return name
        point -= share
    return _SPLITS[0]
