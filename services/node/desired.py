"""The last rollout record that a node acted on and its highest marks, on disk: a node starts without Kafka."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from services.rollout_records import RolloutRecord


class _Kept(msgspec.Struct, frozen=True):
    record: RolloutRecord
    highest: int


class Desired:
    """Generations only rise, over restarts too."""

    def __init__(self, file: Path, line: str) -> None:
        self._file = file
        self.record = RolloutRecord(line=line)
        self.highest = 0
        """Highest sequence that was ever verified here."""
        if file.exists():
            kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
            self.record, self.highest = kept.record, kept.highest

    def accept(self, record: RolloutRecord) -> bool:
        """Keep a record before it is acted on; False unless it is this line's and above the last."""
        if record.line != self.record.line or record.generation <= self.record.generation:
            return False
        self.record = record
        self._keep()
        return True

    def verified(self, sequence: int) -> None:
        """A version of this sequence has passed every check."""
        if sequence > self.highest:
            self.highest = sequence
            self._keep()

    def _keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with fresh.open("wb") as out:
            out.write(msgspec.json.encode(_Kept(self.record, self.highest)))
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
