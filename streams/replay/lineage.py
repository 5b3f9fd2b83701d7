"""Which training steps saw which samples, read back from what `update` wrote: digests and numbers, never text."""

from __future__ import annotations

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
    client, name = table.client, f"{table.prefix}:lin"
    steps: set[tuple[int, int]] = set()
    for member in client.zrange(name, 0, -1):
        chunk = member.decode() if isinstance(member, bytes) else str(member)
        run = int(chunk.split(":")[0])
        for field, packed in client.hscan_iter(f"{name}:{chunk}", count=256):
            found = {packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)}
            if found & wanted:
                steps.add((run, int(field.split(b":")[0])))
    return Seen(tuple(sorted(steps)), complete_from(table))


def complete_from(table: ReplayBuffer) -> int:
    """The step from which on the lineage is complete."""
    return int(table.client.hget(f"{table.prefix}:cfg", "lineage_from") or 0)
