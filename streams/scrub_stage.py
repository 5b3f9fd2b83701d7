"""chats.raw -> chats.clean, or a dead letter: the scrubber with its conversations' states in Redis.

States, offset bits and generations are written by one script a batch, before anything is produced: the same event then
gives the same output wherever it is read again. A turn that may be a piece of a value waits in memory for the next one.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, cast

import msgspec
import redis

from streams import cloudevents, dead_letters
from streams.config import StreamConfig
from streams.dead_letters import Letter
from streams.events import BadEvent, ChatEvent, CleanEvent, DeadLetter, decode, encode_record, from_object
from streams.held_turns import HeldTurns, Kept
from streams.lanes import Incoming
from streams.ledger import Entry, Outcome, event_digest, record_digest
from streams.outbox import Output, Record
from streams.raw_events import FIELDS, parse
from streams.replay import offsets
from streams.scrub import ConversationState, Keys, Quarantined, Scrubber
from streams.scrub.audit import LeakAudit, Turn
from streams.scrub.identity import clean_event_id, conversation_pseudonym, ledger_key
from streams.topics import CHATS_CLEAN, CHATS_DEAD_LETTER, CHATS_RAW

_SCRIPT = offsets.SCRIPT + files("streams").joinpath("scrub_state.lua").read_text()
_pack = msgspec.msgpack.Encoder().encode
_GENERATION = struct.Struct(">Q")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]{1,20})_\d{1,6}>")

_TRIES = 20
"""Times a batch is scrubbed again because another worker changed a state; a zombie loses its partitions before."""

CARRIED = frozenset({"traceparent", "tracestate"})
"""Headers that go on with the event."""


class ScrubStore:
    """Conversation states under `scrub:`, each behind its generation."""

    def __init__(self, client: redis.Redis, config: StreamConfig, epoch: str, ttl_s: int) -> None:
        self._client = client
        self._config = config
        self._epoch = epoch
        self._ttl_s = ttl_s
        self._save = client.register_script(_SCRIPT)

    def load(self, names: Sequence[str]) -> dict[str, tuple[int, ConversationState]]:
        """State and generation of each conversation; new ones at generation 0."""
        if not names:
            return {}
        stored = cast("list[bytes | None]", self._client.mget([f"scrub:{name}" for name in names]))
        return {name: _state(raw) for name, raw in zip(names, stored, strict=True)}

    def save(self, states: Mapping[str, tuple[int, ConversationState]], places: Sequence[tuple[int, int]]) -> bool:
        """Store states with the offsets that led to them; False when another worker was faster."""
        request = {
            "epoch": self._epoch, "topic": CHATS_RAW, "ttl": self._ttl_s, "places": places,
            "retention": self._config.source_retention_s,
            "states": [[name, generation] for name, (generation, _) in states.items()],
        }  # fmt: skip
        return bool(self._save(args=[_pack(request), *(state.encode() for _, state in states.values())]))


def _state(raw: bytes | None) -> tuple[int, ConversationState]:
    if raw is None:
        return 0, ConversationState()
    return _GENERATION.unpack_from(raw)[0], ConversationState.decode(raw[_GENERATION.size :])


class ScrubStage:
    """Decodes, scrubs and passes on; what cannot be read or scrubbed becomes a dead letter."""

    def __init__(
        self, scrubber: Scrubber, store: ScrubStore, keys: Keys, config: StreamConfig, count: Any = None, *,
        audit: LeakAudit | None = None, held: HeldTurns | None = None,
    ) -> None:  # fmt: skip
        self._scrubber = scrubber
        self._store = store
        self._keys = keys
        self._key = ledger_key(keys)
        self._config = config
        self._count = count
        self._audit = audit
        self._held = held or HeldTurns(0.0, lambda: 0.0)
        self._clean = config.topic(CHATS_CLEAN)
        self._letters = config.topic(CHATS_DEAD_LETTER)

    @property
    def holding(self) -> int:
        """Turns that wait for the next one."""
        return self._held.waiting

    def revoke(self, partition: int) -> None:
        """Drop what is held of a partition that another worker reads now."""
        self._held.revoke(partition)

    def run(self, batch: Sequence[Incoming]) -> list[Output]:
        """One output a record: clean events under their conversation's pseudonym, or a dead letter."""
        gone = self._held.gone()
        read = [self._read(record) for record in batch]
        names = [
            None if isinstance(event, Output) else conversation_pseudonym(self._keys, event.conversation_id, tenant)
            for event, tenant in read
        ]
        for _ in range(_TRIES):
            states = self._store.load(sorted({name for name in names if name is not None}))
            changed: dict[str, tuple[int, ConversationState]] = {}
            outputs, turns, kept = [], list[Turn](), dict(self._held.kept)
            for record, (event, tenant), name in zip(batch, read, names, strict=True):
                if isinstance(event, Output) or name is None:
                    outputs.append(event if isinstance(event, Output) else Output())
                    continue
                generation, state = changed.get(name, states[name])
                waiting = kept.get(name)
                output, after = self._next(record, event, tenant, _joined(state, waiting), waiting, turns)
                if after.held and waiting is None:
                    kept[name] = self._held.keep(after.held[0], record)
                    output = output._replace(hold=kept[name].hold)
                elif waiting is not None and not after.held:
                    output = output._replace(frees=(kept.pop(name).hold,))
                if after is not state and not after.held:  # a held turn changes nothing that is stored
                    changed[name] = (generation, after)
                outputs.append(output)
            if self._store.save(changed, [(record.partition, record.offset) for record in batch]):
                self._held.kept = kept
                self._held.told()
                self._audited(turns)
                return [*outputs[:-1], _both(outputs[-1], Output(frees=gone))]
        raise redis.ConnectionError("states change under this worker; it is no longer their owner")

    def release(self, *, everything: bool) -> list[Output]:
        """What becomes of held turns behind which nothing came in time, or of all."""
        gone = self._held.gone()
        names = self._held.due(everything=everything)
        for _ in range(_TRIES):
            states = self._store.load(names)
            changed: dict[str, tuple[int, ConversationState]] = {}
            found, turns = [], list[Turn]()
            for name in names:
                generation, state = states[name]
                kept = self._held.kept[name]
                output, after = self._alone(kept, _joined(state, kept), turns)
                changed[name] = (generation, after)
                found.append(output._replace(frees=(kept.hold,)))
            if not names or self._store.save(changed, []):
                for name in names:
                    del self._held.kept[name]
                self._held.told()
                self._audited(turns)
                return [*found, Output(frees=gone)] if gone else found
        raise redis.ConnectionError("states change under this worker; it is no longer their owner")

    def poison(self, record: Incoming, error: BaseException) -> Output:
        """The dead letter of a record on which the stage itself failed."""
        return self._letter(record, "scrub_failed", type(error).__name__, self._entry(record, None))

    def _read(self, record: Incoming) -> tuple[ChatEvent | Output, str]:
        headers = dict(record.headers)
        tenant = headers.get("tenant", b"").decode(errors="replace")
        try:
            body = _cloud_event(record, headers) if "ce_id" in headers else parse(record.value)
            event = from_object(body, record.key)
        except BadEvent as bad:
            entry = self._entry(record, bad.event_id)
            return self._letter(record, bad.reason.value, "BadEvent", entry), tenant
        if self._count is not None and (unknown := body.keys() - FIELDS):
            self._count.dropped(len(unknown))
        return event, tenant

    def _next(  # noqa: PLR0917 - an event, what it meets, and where its masked text is noted
        self, record: Incoming, event: ChatEvent, tenant: str, state: ConversationState, waiting: Kept | None,
        turns: list[Turn],
    ) -> tuple[Output, ConversationState]:  # fmt: skip
        """What goes on of an event, with the turn that was held for it, and its conversation's state after it."""
        try:
            return self._scrub(record, event, tenant, state, turns)
        except Quarantined as reason:
            quarantined = reason.reason
        if waiting is not None:
            with suppress(Quarantined):  # then the event itself is at fault, and the turn goes on waiting
                output, after = self._scrub(record, event, tenant, _without_held(state), turns)
                return _both(self._refused(waiting.record, quarantined, waiting.turn.event.event_id), output), after
        return self._refused(record, quarantined, event.event_id), state

    def _scrub(
        self, record: Incoming, event: ChatEvent, tenant: str, state: ConversationState, turns: list[Turn]
    ) -> tuple[Output, ConversationState]:
        """As `_next`. Raises `Quarantined`."""
        cleaned, after = self._scrubber.scrub_event(
            event, state, received_at=record.at, offset=(record.partition, record.offset), tenant=tenant
        )
        return self._out(cleaned, record, turns), after

    def _alone(self, kept: Kept, state: ConversationState, turns: list[Turn]) -> tuple[Output, ConversationState]:
        """A held turn as it is, because nothing follows."""
        try:
            cleaned, after = self._scrubber.close(state)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, its message may hold text
            reason = error.reason if isinstance(error, Quarantined) else "scrub_failed"
            return self._refused(kept.record, reason, kept.turn.event.event_id), _without_held(state)
        return self._out(cleaned, kept.record, turns), after

    def _refused(self, record: Incoming, reason: str, event_id: str) -> Output:
        return self._letter(record, reason, "Quarantined", self._entry(record, event_id))

    def _out(self, cleaned: Sequence[CleanEvent], record: Incoming, turns: list[Turn]) -> Output:
        """The records of clean events; their masked texts are added to `turns`."""
        carried = tuple(header for header in record.headers if header[0] in CARRIED)
        records = tuple(
            Record(self._clean, clean.conversation.encode(), encode_record(clean), carried) for clean in cleaned
        )
        turns += [Turn(c.event_id, text) for c in cleaned if (text := c.text or c.corrected_text)]
        if self._count is not None:
            self._count.outcome("scrub", "accepted", count=len(cleaned))
            for entity, count in _masked(cleaned).items():
                self._count.redacted(entity, count)
        return Output(records)

    def _audited(self, turns: Sequence[Turn]) -> None:
        """Search a share of what goes on again, while the raw text can still be read."""
        if self._audit is not None and turns:
            found = self._audit.run(turns)
            if self._count is not None and (found.turns or found.failed):
                self._count.audited(found.turns, len(found.leaking), found.failed, found.labels)

    def _entry(self, record: Incoming, event_id: str | None) -> str:
        """The ledger's digest of a record, under its clean event id where one can be read."""
        if event_id is None:
            return record_digest(record.key, record.value, self._key)
        return event_digest(clean_event_id(self._keys, event_id), self._key)

    def _letter(self, record: Incoming, reason: str, error: str, entry: str) -> Output:
        letter = Letter(
            self._config.topic(CHATS_RAW), record.partition, record.offset, "scrub", error, reason, entry,
            len(record.key or b""), len(record.value or b""),
        )  # fmt: skip
        if self._count is not None:
            self._count.outcome("scrub", "dead_lettered", reason)
        made = dead_letters.record(self._letters, letter, record, self._key)
        return Output((made,), ((entry, Entry(Outcome.DEAD_LETTERED, reason, 0)),))


def _joined(state: ConversationState, kept: Kept | None) -> ConversationState:
    """The state with the turn that is held; Redis never has it."""
    if kept is None or state.held:
        return state
    found = state.copy()
    found.held = [kept.turn]
    return found


def _without_held(state: ConversationState) -> ConversationState:
    found = state.copy()
    found.held = []
    return found


def _both(first: Output, second: Output) -> Output:
    """Two outputs as one; at most one of them holds."""
    return Output(
        first.records + second.records, first.moves + second.moves, first.hold or second.hold,
        first.frees + second.frees,
    )  # fmt: skip


def _masked(cleaned: Sequence[CleanEvent]) -> Counter[str]:
    """How many values of each label these events hide."""
    texts = (text for clean in cleaned for text in (clean.text, clean.corrected_text) if text and "<" in text)
    return Counter(label for text in texts for label in _PLACEHOLDER.findall(text))


def _cloud_event(record: Incoming, headers: Mapping[str, bytes]) -> dict[str, Any]:
    """The body with what CloudEvents' binary mode puts into headers."""
    try:
        body = msgspec.json.decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decode(record.key, record.value)  # names the reason
        raise BadEvent(DeadLetter.NOT_JSON) from None
    if not isinstance(body, dict):
        raise BadEvent(DeadLetter.WRONG_TYPE)
    return cloudevents.completed(body, {name: value.decode(errors="replace") for name, value in headers.items()})
