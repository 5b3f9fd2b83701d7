"""chats.clean -> the assembler's state, and what leaves it when it is due: records for examples and chats.rejected.

An event is done with when its turn, ledger entry and offset bit are stored. What leaves later is cut by one script into
`asm:out:<partition>`, produced, and deleted there after its delivery report; `begin` produces it again.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from streams import dead_letters, rollout_events
from streams.assemble.conversation import NEVER, Conversation
from streams.assemble.cut import Prepared, cut, prepare
from streams.assemble.store import Arrival, AssembleStore, Pending
from streams.config import StreamConfig
from streams.dead_letters import Letter
from streams.events import CleanEvent, Turn, decode_clean
from streams.lanes import Incoming
from streams.ledger import Entry, Outcome, event_digest, record_digest
from streams.near_copies_store import RedisCopies
from streams.outbox import NOTHING, Output, Record
from streams.quality import QualityConfig
from streams.signals import signals
from streams.topics import CHATS_CLEAN, CHATS_DEAD_LETTER, OUTCOMES

CACHED = 20_000
"""Conversations kept in memory between their events."""

DUE_AT_ONCE = 64
"""Conversations that are cut in one go, so that new events do not wait long."""

Produced = dict[tuple[int, str], Pending]
"""Partition and name of a record to produce."""


class AssembleStage:
    """The assembler of the partitions that this worker owns."""

    def __init__(
        self, store: AssembleStore, copies: RedisCopies, config: StreamConfig, quality: QualityConfig, key: bytes,
        count: Any = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._copies = copies
        self._config = config
        self._quality = quality
        self._key = key
        self._count = count
        self._cache: OrderedDict[str, Conversation] = OrderedDict()
        self._due: defaultdict[int, dict[str, float]] = defaultdict(dict)
        self._raw: dict[str, int] = {}
        self.newest: dict[tuple[int, int], float] = {}
        """Partition of chats.clean and of chats.raw -> newest timestamp that came that way."""

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """Take events in; rollout outcomes that they show are produced before they are acknowledged."""
        events = [decode_clean(record.value or b"") for record in batch]
        places = [(record.partition, record.offset) for record in batch]
        arrivals = self._store.arrive(CHATS_CLEAN, places, events, [record.value or b"" for record in batch])
        outputs = []
        for record, event, arrival in zip(batch, events, arrivals, strict=True):
            way = (record.partition, event.offset[0])
            self.newest[way] = max(event.received_at, self.newest.get(way, 0.0))
            outputs.append(self._arrived(record, event, arrival))
        return outputs

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """The dead letter of a record that our own writer should not have made."""
        entry = record_digest(record.key, record.value, self._key)
        try:
            entry = event_digest(decode_clean(record.value or b"").event_id, self._key)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        letter = Letter(
            self._config.topic(CHATS_CLEAN), record.partition, record.offset, "assemble", type(error).__name__,
            "bad_value", entry, len(record.key or b""), len(record.value or b""),
        )  # fmt: skip
        made = dead_letters.record(self._config.topic(CHATS_DEAD_LETTER), letter, record, self._key)
        return Output((made,), ((entry, Entry(Outcome.DEAD_LETTERED, "bad_value", 0)),))

    def begin(self, partition: int) -> Produced:
        """Take a partition over: its open conversations are looked at, and its cut records are produced again."""
        self._due[partition] = dict.fromkeys(self._store.open(partition), 0.0)
        return {(partition, name): pending for name, pending in self._store.pending(partition).items()}

    def end(self, partitions: Iterable[int]) -> None:
        """Give partitions up: another worker may own their conversations now."""
        for partition in partitions:
            for name in self._due.pop(partition, {}):
                self._cache.pop(name, None)
        self._cache.clear()

    def open(self) -> int:
        """Conversations that wait for something."""
        return sum(len(due) for due in self._due.values())

    def tick(self, partition: int, clocks: Mapping[int, float]) -> Produced:
        """Cut what is due in a partition; `clocks` are those of the partitions of chats.raw."""
        now_by_name = {}
        for name, due in self._due[partition].items():
            now = max(
                clocks.get(self._raw.get(name, -1), 0.0), self.newest.get((partition, self._raw.get(name, -1)), 0.0)
            )
            if due <= now:
                now_by_name[name] = now
                if len(now_by_name) == DUE_AT_ONCE:
                    break
        return self._leave(partition, now_by_name, clocks) if now_by_name else {}

    def delivered(self, partition: int, names: Sequence[str]) -> None:
        """Forget cut records whose delivery was reported."""
        self._store.delivered(partition, names)

    def _arrived(self, record: Incoming, event: CleanEvent, arrival: Arrival) -> Output:
        if arrival.status == "l":
            self._counted("rejected", "late")
        if arrival.status == "d":
            self._counted("rejected", "duplicate")
        if arrival.status != "n":
            return NOTHING
        conversation = self._known(event, arrival.generation)
        due = self._due[record.partition]
        self._raw[event.conversation] = event.offset[0]
        settled = conversation is None or event.type != "message" or bool(conversation.closes())
        at = (
            0.0
            if settled
            else event.received_at + min(self._config.emit_after_s, self._config.idle_s / self._config.speed)
        )
        due[event.conversation] = min(due.get(event.conversation, NEVER), at)
        return Output(tuple(self._outcomes(event, conversation)))

    def _known(self, event: CleanEvent, generation: int) -> Conversation | None:
        """The cached conversation with the event in it, None when the cache has missed something."""
        name = event.conversation
        conversation = self._cache.get(name) or (Conversation(name) if generation == 1 else None)
        if conversation is None or conversation.generation != generation - 1:
            self._cache.pop(name, None)
            return None
        conversation.add(event)
        conversation.generation = generation
        self._remember(conversation)
        return conversation

    def _remember(self, conversation: Conversation) -> None:
        self._cache[conversation.name] = conversation
        self._cache.move_to_end(conversation.name)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)

    def _outcomes(self, event: CleanEvent, conversation: Conversation | None) -> list[Record]:
        """Bad outcomes of the model's answers that this event shows: a bad rating, or what the customer says next."""
        if event.type == "conversation_closed" or (event.type == "message" and event.role != "customer"):
            return []
        if conversation is None:
            conversation = self._store.load([event.conversation])[0]
        answers = [m for m in conversation.messages() if m.role == "assistant" and m.adapter]
        if event.type == "message":
            said = [m for m in answers if m.seq < event.seq][-1:]
            following = (Turn(role="customer", text=event.text or ""),)
            bad = [(m, signals(m.text or "", following)) for m in said]
        else:
            meant = [m for m in answers if event.answer_id in {None, m.answer_id} and event.target_seq in {None, m.seq}]
            bad = [(m, signals(m.text or "", (), [event])) for m in meant]
        found = [
            rollout_events.Outcome(
                conversation_id=event.conversation, bad=True, event_ts=event.received_at, answer_id=m.answer_id or "",
                metric=_metric(signal.evidence, event),
            )
            for m, signal in bad
            if signal.label == "bad"
        ]  # fmt: skip
        topic = self._config.topic(OUTCOMES)
        return [Record(topic, event.conversation.encode(), rollout_events.encode(outcome)) for outcome in found]

    def _leave(self, partition: int, now_by_name: Mapping[str, float], clocks: Mapping[int, float]) -> Produced:
        missing = [name for name in now_by_name if name not in self._cache]
        for conversation in self._store.load(missing):
            self._remember(conversation)
        prepared = []
        for name, now in now_by_name.items():
            conversation = self._cache[name]
            if not conversation.events:
                self._due[partition].pop(name, None)
                continue
            raw = max(conversation.events.values(), key=lambda event: event.received_at).offset[0]
            if self._raw.setdefault(name, raw) != raw or not now:
                self._raw[name] = raw
                now = max(clocks.get(raw, 0.0), self.newest.get((partition, raw), 0.0))  # noqa: PLW2901 - first look
            found = prepare(conversation, now, self._config, self._quality)
            self._due[partition][name] = found.again_at
            if found.due:
                prepared.append((found, now))
        return self._cut(partition, prepared)

    def _cut(self, partition: int, prepared: Sequence[tuple[Prepared, float]]) -> Produced:
        units = [unit for found, _ in prepared for unit in found.units]
        copies = iter(self._copies.look(units) if units else [])
        uses = iter(self._store.uses(units) if units else [])
        produced: Produced = {}
        for found, now in prepared:
            n = len(found.units)
            made = cut(found, [next(copies) for _ in range(n)], [next(uses) for _ in range(n)], self._config)
            answer = self._store.cut(made, partition)
            name = found.conversation.name
            if answer is None:
                self._cache.pop(name, None)
                self._due[partition][name] = 0.0
                continue
            generation, records = answer
            produced.update({(partition, key): pending for key, pending in records.items()})
            self._decided(partition, found.conversation, made.memo, generation, now)
            for reason in made.rejected.values():
                self._counted("rejected", reason)
            self._counted("accepted", count=sum(len(s.event_ids) for s in made.samples))
        return produced

    def _decided(self, partition: int, conversation: Conversation, memo: Any, generation: int, now: float) -> None:
        conversation.memo = memo
        conversation.generation = generation
        if memo.final:
            self._due[partition].pop(conversation.name, None)
            self._cache.pop(conversation.name, None)
            self._raw.pop(conversation.name, None)
        else:
            self._due[partition][conversation.name] = prepare(conversation, now, self._config, self._quality).again_at

    def _counted(self, outcome: str, reason: str = "", count: int = 1) -> None:
        if self._count is not None and count:
            self._count.outcome("assemble", outcome, reason, count)


def _metric(evidence: Sequence[str], event: CleanEvent) -> rollout_events.Metric:
    escalated = "escalation" in evidence or event.kind == "escalated"
    return rollout_events.Metric.ESCALATED if escalated else rollout_events.Metric.NEGATIVE
