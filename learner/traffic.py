"""A share of one line's fresh samples, as they enter the replay buffer: watched beside the learner, never drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from streams.events import Sample
from streams.replay.buffer import ReplayBuffer
from streams.replay.figures import news, place


@dataclass
class Traffic:
    """Chosen by conversation, so that a chat is seen whole or not at all."""

    table: ReplayBuffer
    line: str
    share: float
    """Of all conversations, 0 to 1."""
    stored: frozenset[str] = frozenset()
    """Keys of what the buffer held at the last look: what else is remembered has expired or was erased."""
    _since: int | None = field(default=None, init=False)

    def newest(self) -> dict[str, Sample]:
        """What came since the last call, oldest first, by key; the first call only marks the place.

        Raises redis.RedisError.
        """
        if self._since is None:
            self._since = place(self.table)
        found = news(self.table, self._since)
        self._since, self.stored = found.seq, frozenset(digest.hex() for digest in found.stored)
        return {digest.hex(): sample for digest, sample in found.samples.items() if self._watched(sample)}

    def _watched(self, sample: Sample) -> bool:
        name = sample.conversation.encode(errors="surrogatepass")
        place = int.from_bytes(blake2b(name, digest_size=8, person=b"tune").digest(), "big") / 2**64
        return sample.line == self.line and place < self.share
