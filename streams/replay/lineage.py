"""Which training steps saw which samples, read back from what `update` wrote: digests and numbers, never text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streams.replay.buffer import ReplayBuffer

DIGEST_BYTES = 8


@dataclass(frozen=True)
class Seen:
    """The (run, step) pairs that trained some samples; nothing is known of steps before `complete_from`."""

    steps: tuple[tuple[int, int], ...]
    complete_from: int


def seen_by(table: ReplayBuffer, *digests: bytes) -> Seen:
    """All steps that trained any of these samples, in order of (run, step)."""
    wanted = set(digests)
    found = {(run, step) for run, step, trained in entries(table) if wanted & trained}
    return Seen(tuple(sorted(found)), complete_from(table))


def first_steps(table: ReplayBuffer) -> dict[bytes, tuple[int, int]]:
    """Digest of each sample that the lineage knows -> the (run, step) that trained it first."""
    first: dict[bytes, tuple[int, int]] = {}
    for run, step, trained in sorted(entries(table), key=lambda entry: entry[1]):
        for digest in trained:
            first.setdefault(digest, (run, step))
    return first


def entries(table: ReplayBuffer) -> Iterator[tuple[int, int, set[bytes]]]:
    """Every (run, step) with the digests that it trained, in no order."""
    client, name = table.client, f"{table.prefix}:lin"
    for member in client.zrange(name, 0, -1):
        chunk = member.decode() if isinstance(member, bytes) else str(member)
        run = int(chunk.split(":")[0])
        for field, packed in client.hscan_iter(f"{name}:{chunk}", count=256):
            digests = {packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)}
            yield run, int(field.split(b":")[0]), digests


def complete_from(table: ReplayBuffer) -> int:
    """The step from which on the lineage is complete."""
    return int(table.client.hget(f"{table.prefix}:cfg", "lineage_from") or 0)
