"""The evaluation side of the replay buffer: what gate, reports and probes read of one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streams.events import Sample
from streams.replay import Tables
from streams.replay.codec import sample_digest
from streams.replay.figures import top

STORED = 4_096
"""Held-out samples that are read at most."""

SEEN = 512
"""Trained samples in which the memorisation probe looks for rare values."""


@dataclass(frozen=True)
class Stored:
    """Tables read whole; what `outdated` says of a sample leaves the held-out ones, however late it came."""

    tables: Tables
    line: str
    key: bytes
    """Of the samples' digests."""
    outdated: Callable[[Sample], bool]

    def val(self) -> list[Sample]:
        """Validation samples of the line."""
        return self._of(top(self.tables.val, STORED, by="age"))

    def golden(self) -> list[Sample]:
        """Curated samples of the line."""
        return self._of(top(self.tables.golden, STORED, by="age"))

    def test(self) -> list[Sample]:
        """Test samples of the line, newest last."""
        return sorted(self._of(top(self.tables.test, STORED, by="age")), key=lambda sample: sample.completed_at)

    def train(self) -> list[Sample]:
        """Trained samples of highest loss: what is hardest is what would be memorised."""
        return self._of(top(self.tables.of(self.line), SEEN, by="priority"))

    def retire(self, outdated: Callable[[Sample], bool]) -> int:
        """Take held-out samples that state a superseded fact out of their tables; how many were there."""
        gone = 0
        for table in (self.tables.val, self.tables.test, self.tables.golden):
            stored = (sample for sample in top(table, STORED, by="age") if sample.line == self.line)
            gone += table.retire(
                [sample_digest(sample, self.key) for sample in stored if outdated(sample)], "superseded"
            )
        return gone

    def _of(self, samples: list[Sample]) -> list[Sample]:
        return [sample for sample in samples if sample.line == self.line and not self.outdated(sample)]
