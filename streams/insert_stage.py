"""examples -> the replay buffer: samples stored once, late feedback laid over stored replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streams import dead_letters
from streams.assemble.conversation import Conversation
from streams.config import StreamConfig
from streams.dead_letters import Letter
from streams.events import (
    Annotation,
    CleanEvent,
    ExampleRecord,
    Rejection,
    Sample,
    decode_example,
    encode_record,
)
from streams.lanes import Incoming
from streams.ledger import Entry, Ledger, Outcome, event_digest, record_digest
from streams.outbox import Output, Record
from streams.replay import Offset, Tables, TopicPartition
from streams.topics import CHATS_DEAD_LETTER, CHATS_REJECTED, EXAMPLES

ERASED = "erased"
"""Why insert.lua refuses what comes behind an erasure."""

Refused = Mapping[int, tuple[str, tuple[str, ...]]]
"""Number in the batch of a record that did not enter -> its conversation and the events that it stands for."""


class InsertStage:
    """Stores a batch in order: a conversation's samples before the annotations behind them.

    The effect is in Redis, offset bits included. What leaves is the record, on chats.rejected, of each event whose
    only way ended here: of a sample that was refused, and of feedback on a reply that is not stored.
    """

    def __init__(
        self, tables: Tables, offsets: Any, config: StreamConfig, key: bytes, *,
        load: Callable[[Sequence[str]], Sequence[Conversation]], count: Any = None,
    ) -> None:  # fmt: skip
        """`load` gives the stored events of conversations, none where they are gone."""
        self._tables = tables
        self._offsets = offsets
        self._config = config
        self._key = key
        self._ledger = Ledger(tables.client, key, config.ledger_ttl_s)
        self._load = load
        self._count = count

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One output each. Raises redis.RedisError; the same batch may be run again."""
        run: list[tuple[int, Sample, Offset]] = []
        refused: dict[int, tuple[str, tuple[str, ...]]] = {}
        for number, record in enumerate(batch):
            place = Offset(EXAMPLES, record.partition, record.offset)
            found = self._decode(record)
            if isinstance(found, Sample):
                run.append((number, found, place))
                continue
            refused |= self._insert(run)
            run = []
            if isinstance(found, Annotation):
                if self._tables.annotate(found, place) == "applied":
                    self._counted("accepted")
                else:
                    refused[number] = found.conversation, (found.feedback_id,)
            else:
                self._tables.relane(found.targets, found.lane)
                self._offsets.mark(TopicPartition(EXAMPLES, record.partition), [record.offset])
        refused |= self._insert(run)
        told = self._rejections(refused)
        return [Output(tuple(told.get(number, ()))) for number in range(len(batch))]

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

    def _insert(self, run: Sequence[tuple[int, Sample, Offset]]) -> Refused:
        """Store samples; those that are deferred (the buffer evicts for them) come again. Returns the refused."""
        refused: dict[int, tuple[str, tuple[str, ...]]] = {}
        left = list(run)
        while left:
            again = []
            for table in self._tables.all:
                part = [item for item in left if self._tables.home(item[1]) is table]
                if not part:
                    continue
                report = self._tables.insert([s for _, s, _ in part], [o for _, _, o in part])[table.table]
                self._counted("accepted", count=report.inserted)
                for item, letter in zip(part, report.letters, strict=True):
                    if letter == "-":
                        again.append(item)
                    elif letter != "i":
                        refused[item[0]] = item[1].conversation, item[1].event_ids
            left = again
        return refused

    def _rejections(self, refused: Refused) -> dict[int, list[Record]]:
        """Records of those events that the ledger calls rejected: a batch that comes again after a kill has them again.

        A refused sample's events may be in another one. Nothing is told of a customer who was erased.
        """
        named = [(number, name, event) for number, (name, events) in refused.items() for event in events]
        entries = self._ledger.read([self._ledger.digest(event) for _, _, event in named])
        final = [
            (*one, entry.reason)
            for one, entry in zip(named, entries, strict=True)
            if entry is not None and entry.outcome is Outcome.REJECTED
        ]
        names = list(dict.fromkeys(name for _, name, _, _ in final))
        known = {name: conversation.events for name, conversation in zip(names, self._load(names), strict=True)}
        topic = self._config.topic(CHATS_REJECTED)
        told: dict[int, list[Record]] = {}
        for number, name, event_id, reason in final:
            self._counted("rejected", reason)
            if known[name] and reason != ERASED:
                made = _rejection(name, event_id, reason, known[name].get(event_id))
                told.setdefault(number, []).append(Record(topic, name.encode(), encode_record(made)))
        return told

    def _counted(self, outcome: str, reason: str = "", count: int = 1) -> None:
        if self._count is not None and count:
            self._count.outcome("buffer", outcome, reason, count)


def _rejection(conversation: str, event_id: str, reason: str, event: CleanEvent | None) -> Rejection:
    """An event that the conversation does not hold is a decision out of the review queue."""
    if event is None:
        return Rejection(event_id=event_id, conversation=conversation, type="feedback", reason=reason, score=1.0)
    return Rejection(
        event_id=event_id, conversation=conversation, type=event.type, reason=reason, score=1.0, seq=event.seq,
        role=event.role, text=event.text, offset=event.offset,
    )  # fmt: skip
