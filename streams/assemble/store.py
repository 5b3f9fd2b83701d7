"""Conversations in Redis under `asm:`: what has arrived, what has been decided, and what has still to be produced.

`asm:c:<conversation>` holds its events, memo and generation; `asm:open:<partition>` names conversations that are not
final; `asm:out:<partition>` holds records that were cut and whose delivery is not yet reported. A conversation is
written by its partition's owner; a former owner that wakes up is stopped by the generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

import msgspec
import redis

from streams import ledger, near_copies, near_copies_store
from streams.assemble.conversation import Conversation, Memo
from streams.assemble.cut import Cut
from streams.config import StreamConfig
from streams.events import CleanEvent, decode_clean, encode_record
from streams.ledger import event_digest
from streams.quality import QualityConfig
from streams.replay import offsets
from streams.topics import EXAMPLES

_FILES = files("streams.assemble")
_pack = msgspec.msgpack.Encoder().encode
_memo = msgspec.json.Decoder(Memo)
_json = msgspec.json.Encoder()


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """A record that was cut: its topic (without prefix), key and value."""

    topic: str
    key: str
    value: bytes


_pending = msgspec.msgpack.Decoder(Pending)


@dataclass(frozen=True)
class Arrival:
    """What became of an event: `status` n new, d duplicate, s seen by offset, l late."""

    status: str
    generation: int = 0
    rejected: Pending | None = None
    """The record of a late one."""


@dataclass(frozen=True)
class Written:
    """What a cut wrote: the new generation, the records to produce by name, and samples above a cap -> reason."""

    generation: int
    records: dict[str, Pending]
    refused: dict[str, str]


class AssembleStore:
    """The assembler's state; every method is one round trip and may be repeated."""

    def __init__(
        self, client: redis.Redis, config: StreamConfig, quality: QualityConfig, key: bytes, epoch: str
    ) -> None:
        self._client = client
        self._config = config
        self._quality = quality
        self._key = key
        self._epoch = epoch
        shared = ledger.SCRIPT + _FILES.joinpath("reject.lua").read_text()
        self._arrive = client.register_script(shared + offsets.SCRIPT + _FILES.joinpath("arrive.lua").read_text())
        self._cut = client.register_script(shared + near_copies_store.SCRIPT + _FILES.joinpath("cut.lua").read_text())

    def arrive(
        self, topic: str, places: Sequence[tuple[int, int]], events: Sequence[CleanEvent], values: Sequence[bytes]
    ) -> list[Arrival]:
        """Take events in; `places` are their partitions and offsets. Raises redis.RedisError; repeat it then."""
        rows = [
            [part, off, e.conversation, e.event_id, self._digest(e.event_id), e.seq, e.type == "message",
             e.customer or ""]
            for (part, off), e in zip(places, events, strict=True)
        ]  # fmt: skip
        request = {
            "epoch": self._epoch, "topic": topic, "ttl": self._config.state_ttl_s, "events": rows,
            "ledger_ttl": self._config.ledger_ttl_s, "retention": self._config.source_retention_s,
        }  # fmt: skip
        answer = self._arrive(args=[_pack(request), *values])
        return [
            Arrival("l", 0, _pending.decode(found)) if status == b"l" else Arrival(status.decode(), int(found))
            for status, found in zip(answer[::2], answer[1::2], strict=True)
        ]

    def load(self, names: Sequence[str]) -> list[Conversation]:
        """The stored conversations, empty where nothing is stored."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(f"asm:c:{name}")
        return [_conversation(name, found) for name, found in zip(names, pipe.execute(), strict=True)]

    def open(self, partition: int) -> list[str]:
        """Conversations of a partition that are not final."""
        return sorted(name.decode() for name in cast("set[bytes]", self._client.smembers(f"asm:open:{partition}")))

    def pending(self, partition: int) -> dict[str, Pending]:
        """Records of a partition that were cut and not yet reported as delivered."""
        found = cast("dict[bytes, bytes]", self._client.hgetall(f"asm:out:{partition}"))
        return {name.decode(): _pending.decode(raw) for name, raw in found.items()}

    def delivered(self, partition: int, names: Sequence[str]) -> None:
        """Forget records whose delivery was reported."""
        if names:
            self._client.hdel(f"asm:out:{partition}", *names)

    def uses(self, units: Sequence[near_copies_store.Unit]) -> list[int]:
        """How often each unit's reply occurred before, whatever its question."""
        pipe = self._client.pipeline(transaction=False)
        for unit in units:
            pipe.pfcount(f"dup:t:{near_copies.reply_key(unit.reply).hex()}")
        return [int(count) for count in pipe.execute()]

    def cut(self, made: Cut, partition: int) -> Written | None:
        """Write what leaves; None if the conversation has changed."""
        conversation, memo = made.conversation, made.memo
        records = self._records(made)
        request = {
            "conversation": conversation.name, "part": partition, "generation": conversation.generation,
            "memo": _json.encode(memo).decode(), "left": memo.left, "final": memo.final,
            "ttl": self._config.state_ttl_s, "ledger_ttl": self._config.ledger_ttl_s,
            "daily": self._quality.customer_daily, "hourly": self._quality.cluster_hourly,
            "samples": self._samples(made),
            "said": [near_copies_store.said(unit, made.copies[unit.member], self._quality) for unit in made.refused],
            "records": [[name, number] for name, number, _ in records],
            "rejected": [[self._digest(e), reason, e, made.scores.get(e, 1.0)] for e, reason in made.rejected.items()],
            "settled": [[self._digest(event), event] for event in made.settled],
            "masked": [[e, encode_record(conversation.events[e]).decode()] for e in sorted(conversation.masked)],
        }  # fmt: skip
        answer = self._cut(args=[_pack(request), *(_pack(pending) for _, _, pending in records)])
        if answer is None:
            return None
        generation, reasons, rejected = int(answer[0]), [reason.decode() for reason in answer[1]], answer[2]
        kept = {name: pending for name, number, pending in records if not number or not reasons[number - 1]}
        kept |= {name.decode(): _pending.decode(raw) for name, raw in zip(rejected[::2], rejected[1::2], strict=True)}
        refused = {sample.sample_id: why for sample, why in zip(made.samples, reasons, strict=True) if why}
        return Written(generation, kept, refused)

    def _samples(self, made: Cut) -> list[list[Any]]:
        held = made.conversation.memo.held
        rows = []
        for sample, units in zip(made.samples, made.units, strict=True):
            specs = [
                near_copies_store.spec(
                    unit, made.copies[unit.member], sample.sample_id, sample.customer, sample.received_at,
                    self._quality,
                )
                for unit in units
            ]  # fmt: skip
            events = [[self._digest(event), event] for event in sample.event_ids if event not in held]
            rows.append([sample.sample_id, specs, events])
        return rows

    def _records(self, made: Cut) -> list[tuple[str, int, Pending]]:
        name = made.conversation.name
        samples = [
            (sample.sample_id, number, Pending(EXAMPLES, name, encode_record(sample)))
            for number, sample in enumerate(made.samples, 1)
        ]
        notes = [
            (f"{note.feedback_id}/note/0", 0, Pending(EXAMPLES, name, encode_record(note))) for note in made.annotations
        ]
        moves = [
            (f"{made.conversation.generation}/move/{name}.{at}", 0, Pending(EXAMPLES, name, encode_record(move)))
            for at, move in enumerate(made.moves)
        ]
        return samples + notes + moves

    def _digest(self, event_id: str) -> str:
        return event_digest(event_id, self._key)


def _conversation(name: str, found: dict[bytes, bytes]) -> Conversation:
    conversation = Conversation(name)
    if b"m" in found:
        conversation.memo = _memo.decode(found[b"m"])
    for field, raw in found.items():
        if field.startswith(b"e:"):
            conversation.add(decode_clean(raw))
    conversation.generation = int(found.get(b"g", 0))
    return conversation
