"""chats.clean -> the assembler's state, and what leaves it when it is due: records for examples and chats.rejected.

An event is done with when its turn, ledger entry and offset bit are stored. What leaves later is cut by one script into
`asm:out:<partition>`, produced, and deleted there after its delivery report; `begin` produces it again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from streams import dead_letters, rollout_events
from streams.assemble.conversation import NEVER, Conversation, is_complete
from streams.assemble.cut import Cut, Prepared, cut, prepare
from streams.assemble.store import Arrival, AssembleStore, Pending, Written
from streams.clock import StreamClock
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

REREAD_TURNS = 50
"""Turns between two looks at what former owners of our partitions may have left: about five seconds."""

Ends = Mapping[int, bool]
"""Partition that this worker owns -> whether it is read to its end."""

Place = tuple[int, str]
"""Partition and name of a record that was cut."""

Produced = dict[Place, Pending]
"""What has to be produced."""


class AssembleStage:
    """The assembler of the partitions that this worker owns."""

    def __init__(
        self, store: AssembleStore, copies: RedisCopies, clock: StreamClock, config: StreamConfig, *,
        quality: QualityConfig, key: bytes, count: Any = None,
        late: Callable[[Sequence[Conversation]], None] | None = None,
    ) -> None:  # fmt: skip
        """`late` masks in ended conversations what became known after their turns had passed."""
        self._clock = clock
        self._late = late
        self._store = store
        self._copies = copies
        self._config = config
        self._quality = quality
        self._key = key
        self._count = count
        self._cache: OrderedDict[str, Conversation] = OrderedDict()
        self._due: dict[int, dict[str, float]] = {}
        self._raw: dict[str, int] = {}
        self._owned: set[int] = set()
        self._unsent: Produced = {}
        self._sent: set[Place] = set()
        self._turns = 0
        self._forgotten: deque[str] = deque()
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
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            entry = event_digest(decode_clean(record.value or b"").event_id, self._key)
        letter = Letter(
            self._config.topic(CHATS_CLEAN), record.partition, record.offset, "assemble", type(error).__name__,
            "bad_value", entry, len(record.key or b""), len(record.value or b""),
        )  # fmt: skip
        made = dead_letters.record(self._config.topic(CHATS_DEAD_LETTER), letter, record, self._key)
        return Output((made,), ((entry, Entry(Outcome.DEAD_LETTERED, "bad_value", 0)),))

    def open(self) -> int:
        """Conversations that wait for something."""
        return sum(len(due) for due in self._due.values())

    def forget(self, conversations: Sequence[str]) -> None:
        """Drop what is cached of these conversations before the next look; from any thread."""
        self._forgotten.extend(conversations)

    def turn(self, raw: Ends, clean: Ends, newest: Mapping[int, float], delivered: Collection[Place]) -> Produced:
        """One look at everything that is due; returns what has to be produced.

        `raw` and `clean` tell the partitions that this worker owns and whether they are read to their end, `newest`
        the newest timestamps read from chats.raw, `delivered` cut records that need not be kept any more.
        """
        for partition in {place[0] for place in delivered}:
            self._store.delivered(partition, [name for p, name in delivered if p == partition])
        self._sent.difference_update(delivered)
        while self._forgotten:
            self._cache.pop(self._forgotten.popleft(), None)
        self._turns += 1
        self._own(clean, again=self._turns % REREAD_TURNS == 0)
        clocks = self._clock.publish(raw, newest)
        for partition, end in clean.items():
            known = clocks if self._clock.settled(partition, end=end) else {}
            self._look(partition, known)
        produced, self._unsent = self._unsent, {}
        self._sent.update(produced)
        return produced

    def _own(self, partitions: Collection[int], *, again: bool) -> None:
        """Take new partitions over, with what a former owner left, and give up those that are gone.

        A former owner may write for a moment longer: what it left is read again from time to time.
        """
        for partition in self._owned - set(partitions):
            self._due.pop(partition, None)
            self._owned.discard(partition)
            self._sent = {place for place in self._sent if place[0] != partition}
            self._cache.clear()
        for partition in sorted(partitions if again else set(partitions) - self._owned):
            pending = self._store.pending(partition)
            # events may have arrived before this first look: theirs are kept, those of the former owner join them
            self._due[partition] = dict.fromkeys(self._store.open(partition), 0.0) | self._due.get(partition, {})
            self._owned.add(partition)
            left = {(partition, name): record for name, record in pending.items()}
            self._unsent.update({place: record for place, record in left.items() if place not in self._sent})

    def _look(self, partition: int, clocks: Mapping[int, float]) -> None:
        """Cut what is due in a partition; `clocks` are those of the partitions of chats.raw."""
        found = {}
        for name, due in self._due[partition].items():
            raw = self._raw.get(name, -1)
            now = max(clocks.get(raw, 0.0), self.newest.get((partition, raw), 0.0))
            if due <= now:
                found[name] = now
                if len(found) == DUE_AT_ONCE:
                    break
        if found:
            self._leave(partition, found, clocks)

    def _arrived(self, record: Incoming, event: CleanEvent, arrival: Arrival) -> Output:
        if arrival.rejected is not None:
            self._counted("rejected", "late")
            self._unsent[record.partition, f"{event.event_id}/rejected/0"] = arrival.rejected
        if arrival.status == "d":
            self._counted("rejected", "duplicate")
        due = self._due.setdefault(record.partition, {})
        if arrival.status != "n":
            # another worker may have taken it in a moment ago: look at what is stored
            self._cache.pop(event.conversation, None)
            due[event.conversation] = 0.0
            return NOTHING
        conversation = self._known(event, arrival.generation)
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

    def _leave(self, partition: int, now_by_name: Mapping[str, float], clocks: Mapping[int, float]) -> None:
        missing = [name for name in now_by_name if name not in self._cache]
        for conversation in self._store.load(missing):
            self._remember(conversation)
        nows = self._nows(partition, now_by_name, clocks)
        if self._late is not None:
            looked = [(self._cache[name], now) for name, now in nows.items()]
            self._late([c for c, now in looked if c.closes() or is_complete(c, now, self._config)])
        prepared = []
        for name, now in nows.items():
            conversation = self._cache[name]
            found = prepare(conversation, now, self._config, self._quality)
            self._due[partition][name] = found.again_at
            if found.due:
                prepared.append((found, now))
            elif conversation.memo.final:
                self._forget(partition, name)
        self._cut(partition, prepared)

    def _nows(
        self, partition: int, now_by_name: Mapping[str, float], clocks: Mapping[int, float]
    ) -> dict[str, float]:  # fmt: skip
        """The time of each conversation on the clock of its partition of chats.raw; none of empty ones."""
        found = {}
        for name, now in now_by_name.items():
            events = self._cache[name].events
            if not events:
                self._due[partition].pop(name, None)
                continue
            raw = max(events.values(), key=lambda event: event.received_at).offset[0]
            if self._raw.setdefault(name, raw) == raw and now:
                found[name] = now
            else:  # first look
                self._raw[name] = raw
                found[name] = max(clocks.get(raw, 0.0), self.newest.get((partition, raw), 0.0))
        return found

    def _cut(self, partition: int, prepared: Sequence[tuple[Prepared, float]]) -> None:
        units = [unit for found, _ in prepared for unit in found.units]
        copies = iter(self._copies.look(units) if units else [])
        uses = iter(self._store.uses(units) if units else [])
        for found, now in prepared:
            n = len(found.units)
            made = cut(found, [next(copies) for _ in range(n)], [next(uses) for _ in range(n)], self._config, self._key)
            answer = self._store.cut(made, partition)
            name = found.conversation.name
            if answer is None:
                self._cache.pop(name, None)
                self._due[partition][name] = 0.0
                continue
            self._unsent.update({(partition, key): pending for key, pending in answer.records.items()})
            self._decided(partition, found.conversation, made.memo, answer.generation, now)
            self._tell(made, answer)

    def _tell(self, made: Cut, written: Written) -> None:
        """Count what became of the events of a cut."""
        for reason in made.rejected.values():
            self._counted("rejected", reason)
        for sample in made.samples:
            if sample.sample_id in written.refused:
                self._counted("rejected", written.refused[sample.sample_id], len(sample.event_ids))
            elif sample.replaces is None:
                self._counted("accepted", count=len(sample.event_ids))

    def _decided(self, partition: int, conversation: Conversation, memo: Any, generation: int, now: float) -> None:
        conversation.memo = memo
        conversation.generation = generation
        conversation.masked.clear()
        if memo.final:
            self._forget(partition, conversation.name)
        else:
            self._due[partition][conversation.name] = prepare(conversation, now, self._config, self._quality).again_at

    def _forget(self, partition: int, name: str) -> None:
        """Nothing more is due of a conversation unless another event arrives."""
        self._due[partition].pop(name, None)
        self._cache.pop(name, None)
        self._raw.pop(name, None)

    def _counted(self, outcome: str, reason: str = "", count: int = 1) -> None:
        if self._count is not None and count:
            self._count.outcome("assemble", outcome, reason, count)


def _metric(evidence: Sequence[str], event: CleanEvent) -> rollout_events.Metric:
    escalated = "escalation" in evidence or event.kind == "escalated"
    return rollout_events.Metric.ESCALATED if escalated else rollout_events.Metric.NEGATIVE
