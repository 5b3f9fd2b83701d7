"""examples -> the replay buffer: samples stored once, late feedback laid over stored replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streams import dead_letters
from streams.config import StreamConfig
from streams.dead_letters import Letter
from streams.events import Annotation, ExampleRecord, Relane, Sample, decode_example
from streams.lanes import Incoming
from streams.ledger import Entry, Outcome, event_digest, record_digest
from streams.outbox import NOTHING, Output
from streams.replay import Offset, Tables, TopicPartition
from streams.topics import CHATS_DEAD_LETTER, EXAMPLES


class InsertStage:
    """Stores a batch in order: a conversation's samples before the annotations behind them."""

    def __init__(self, tables: Tables, offsets: Any, config: StreamConfig, key: bytes, count: Any = None) -> None:
        self._tables = tables
        self._offsets = offsets
        self._config = config
        self._key = key
        self._count = count

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """Nothing leaves; the effect is in Redis, offset bits included."""
        run: list[tuple[Sample, Offset]] = []
        for record in batch:
            place = Offset(EXAMPLES, record.partition, record.offset)
            found = self._decode(record)
            if isinstance(found, Annotation):
                self._insert(run)
                run = []
                answer = self._tables.annotate(found, place)
                self._counted("accepted" if answer != "no_target" else "rejected", "no_target")
            elif isinstance(found, Relane):
                self._insert(run)
                run = []
                self._tables.relane(found.targets, found.lane)
                self._offsets.mark(TopicPartition(EXAMPLES, record.partition), [record.offset])
            else:
                run.append((found, place))
        self._insert(run)
        return [NOTHING] * len(batch)

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """The dead letter of a record that our own writer should not have made; its events keep their entries."""
        self._offsets.mark(TopicPartition(EXAMPLES, record.partition), [record.offset])
        entry = record_digest(record.key, record.value, self._key)
        moves: list[tuple[str, Entry]] = [(entry, Entry(Outcome.DEAD_LETTERED, "bad_value", 0))]
        try:
            found = decode_example(record.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = None
        held = found.event_ids if isinstance(found, Sample) else ()
        moves += [(event_digest(event_id, self._key), Entry(Outcome.REJECTED, "bad_value", 0)) for event_id in held]
        letter = Letter(
            self._config.topic(EXAMPLES), record.partition, record.offset, "buffer", type(error).__name__,
            "bad_value", entry, len(record.key or b""), len(record.value or b""),
        )  # fmt: skip
        made = dead_letters.record(self._config.topic(CHATS_DEAD_LETTER), letter, record, self._key)
        return Output((made,), tuple(moves))

    def _decode(self, record: Incoming) -> ExampleRecord:
        return decode_example(record.value or b"")

    def _insert(self, run: Sequence[tuple[Sample, Offset]]) -> None:
        """Store samples; those that are deferred (the buffer evicts for them) come again."""
        left = list(run)
        while left:
            again = []
            for table in self._tables.all:
                part = [item for item in left if self._tables.home(item[0]) is table]
                if not part:
                    continue
                report = self._tables.insert([s for s, _ in part], [o for _, o in part])[table.table]
                again += [item for item, letter in zip(part, report.letters, strict=True) if letter == "-"]
                self._counted("accepted", count=report.inserted)
                self._counted("rejected", "duplicate", report.duplicate)
            left = again

    def _counted(self, outcome: str, reason: str = "", count: int = 1) -> None:
        if self._count is not None and count:
            self._count.outcome("buffer", outcome, reason, count)
