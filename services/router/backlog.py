"""Turns that were answered while Redis was away: on disk, numbered and sent when it is back."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from services.answer_ids import job_of
from services.router.pins import Pins, turn_digest
from services.router.record import Chat, Turn, answered, asked, recordable
from services.router.spool import Spool
from services.router.view import Pin
from streams.events import Role
from streams.topics import CHATS_RAW


class Waiting(msgspec.Struct, frozen=True):
    """One answered request that has no numbers yet."""

    chat: Chat
    conversation: str
    roles: list[Role]
    texts: list[str]
    answer: str
    pin: str


class Backlog:
    """First in, first out; a repeat after a crash gives the same numbers and ids."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._items: deque[Waiting] = deque()
        if file.exists():
            for raw in file.read_bytes().split(b"\n")[:-1]:
                self._items.append(msgspec.json.decode(raw, type=Waiting))

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Waiting) -> None:
        """Keep one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as out:
            out.write(msgspec.json.encode(item) + b"\n")
        self._items.append(item)

    async def drain(self, pins: Pins, spool: Spool, key: bytes) -> None:
        """Number and send what waits, oldest first; stops where Redis does."""
        while self._items:
            item = self._items[0]
            turns = [Turn(role, text) for role, text in zip(item.roles, item.texts, strict=True)]
            try:
                await number(pins, spool, key, item, turns)
            except RedisError:
                return
            self._items.popleft()
        self._file.unlink(missing_ok=True)


async def number(pins: Pins, spool: Spool, key: bytes, item: Waiting, turns: list[Turn]) -> None:
    """Number one turn's new messages and its answer, and send them. Raises redis.RedisError."""
    pin, job = Pin.decode(item.pin), job_of(item.chat.answer_id)
    digests = [turn_digest(key, turn.role, turn.text) for turn in turns]
    begun = await pins.begin(item.conversation, pin, job, digests)
    headers = {"tenant": item.chat.tenant.encode()}
    for value in asked(item.chat, turns[begun.skip : begun.skip + begun.count], begun.first):
        spool.put(CHATS_RAW, item.chat.conversation_id, value, headers)
    if recordable(item.answer):
        digest = turn_digest(key, "assistant", item.answer)
        seq = await pins.answered(item.conversation, job, digest)
        spool.put(CHATS_RAW, item.chat.conversation_id, answered(item.chat, item.answer, seq, pin), headers)
