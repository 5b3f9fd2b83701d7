"""What is known of one conversation, in order: its turns, its replies, and when it is complete. Pure.

Order is `seq`; time is the clock of chats.raw, handed in. Nothing behind a missing seq is readable before the gap has
stood `gap_s`; a conversation is complete when it is closed with all its turns, or waited for long enough.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from streams.config import StreamConfig
from streams.events import CleanEvent, Sample, Turn

NEVER = math.inf

KEPT = "kept"
"""Of a reply: a sample has it as target."""


class Left(msgspec.Struct, frozen=True, array_like=True):
    """A sample that has left, remembered without its text, so that it can be made again."""

    sample: Sample
    joins: tuple[int, ...]
    """Of each turn, how many of the sample's events it joins, in their order; what is left over is feedback."""


class Memo(msgspec.Struct, omit_defaults=True):
    """What has been decided about a conversation; stored beside its events and written by the script that cuts."""

    left: int = -1
    """Highest seq that has left; a turn below it comes too late."""
    targets: dict[str, str] = {}
    """Reply (event id of its last message) -> `kept` as a sample's target, or the reason of its rejection."""
    held: set[str] = set()
    """Messages that a sample holds, as reply or as context."""
    dropped: set[str] = set()
    """Messages that were rejected, and feedback and closes that are settled."""
    edits: dict[str, int] = {}
    """Reply -> samples of kind `edit` made of it."""
    samples: dict[str, Left] = {}
    """Samples that have left, by id; of those that were replaced the newest."""
    split: str = ""
    """Split of all samples, fixed at the first cut."""
    complete: bool = False
    final: bool = False
    """Complete, no reply waits for a rating any more, and all feedback and closes are settled."""


@dataclass
class Conversation:
    """The events of one conversation and the memo; `generation` counts its writes in the store."""

    name: str
    events: dict[str, CleanEvent] = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)
    generation: int = 0
    searched: bool = False
    """Whether the conversation pass has seen all its events."""
    masked: set[str] = field(default_factory=set)
    """Events in which that pass found something, and whose new text is not stored yet."""

    def add(self, event: CleanEvent) -> None:
        """Take an event in; a turn above all that left opens a complete conversation again.

        Feedback and a close that are not settled make it less than final: they postpone its completion, so the cut
        that they cause at once may leave one of them for the moment when that has come.
        """
        self.events[event.event_id] = event
        self.searched = False
        if event.type != "message":
            self.memo.final = self.memo.final and event.event_id in self.memo.dropped
        elif event.seq > self.memo.left:
            self.memo.complete = self.memo.final = False

    def ordered(self) -> list[CleanEvent]:
        """All its events by seq."""
        return sorted(self.events.values(), key=lambda event: (event.seq, event.event_id))

    def messages(self) -> list[CleanEvent]:
        """Its messages by seq; two under one seq by id, so that the order never hangs on their arrival."""
        found = [event for event in self.events.values() if event.type == "message"]
        return sorted(found, key=lambda event: (event.seq, event.event_id))

    def feedback(self) -> list[CleanEvent]:
        """Its feedback by seq."""
        found = [event for event in self.events.values() if event.type == "feedback"]
        return sorted(found, key=lambda event: (event.seq, event.event_id))

    def closes(self) -> list[CleanEvent]:
        """Its closes by seq."""
        found = [event for event in self.events.values() if event.type == "conversation_closed"]
        return sorted(found, key=lambda event: (event.seq, event.event_id))


@dataclass(frozen=True)
class Reply:
    """Consecutive messages of an agent or of the model; `completed_at` is None while more may follow."""

    messages: tuple[CleanEvent, ...]
    completed_at: float | None
    following: tuple[Turn, ...] = ()
    """Readable turns after it."""

    @property
    def name(self) -> str:
        """Event id of its last message."""
        return self.messages[-1].event_id

    @property
    def role(self) -> str:
        """agent or assistant."""
        return str(self.messages[-1].role)

    @property
    def text(self) -> str:
        """Its messages, one a line."""
        return "\n".join(message.text or "" for message in self.messages)


@dataclass(frozen=True)
class View:
    """A conversation at one moment: its readable messages, its replies, and when to look again."""

    messages: tuple[CleanEvent, ...]
    replies: tuple[Reply, ...]
    complete: bool
    completed_at: float
    """When it was complete; while it is not, when it will be."""
    again_at: float
    """Moment at which more becomes readable without a further event."""


def view(conversation: Conversation, now: float, config: StreamConfig) -> View:
    """What may be read of a conversation at `now`, seconds on the clock of chats.raw."""
    messages = conversation.messages()
    completed_at = _completion(conversation, messages, config)
    complete = completed_at <= now
    if complete:
        replies = _replies(messages, completed_at, conversation.memo.targets)
        return View(tuple(messages), replies, complete, completed_at, NEVER)
    limit, again_at = _readable(conversation, now, config)
    readable = [message for message in messages if message.seq <= limit]
    return View(tuple(readable), _replies(readable, None, conversation.memo.targets), complete, completed_at, again_at)


def reply_of(event: CleanEvent, replies: Sequence[Reply]) -> list[Reply]:
    """The replies that a feedback speaks of: by answer id, by seq, or all."""
    if event.answer_id is not None:
        return [r for r in replies if any(m.answer_id == event.answer_id for m in r.messages)]
    if event.target_seq is not None:
        return [r for r in replies if any(m.seq == event.target_seq for m in r.messages)]
    return list(replies)


def is_complete(conversation: Conversation, now: float, config: StreamConfig) -> bool:
    """Whether a conversation is closed with all its turns, or was waited for long enough."""
    return _completion(conversation, conversation.messages(), config) <= now


def _completion(conversation: Conversation, messages: Sequence[CleanEvent], config: StreamConfig) -> float:
    """When the conversation is complete if nothing more arrives."""
    if not conversation.events:
        return NEVER
    last_at = max(event.received_at for event in conversation.events.values())
    closes = conversation.closes()
    seen = {message.seq for message in messages}
    if not closes or any(seq > closes[-1].seq for seq in seen):
        return last_at + config.idle_s / config.speed
    close = closes[-1]
    turns = close.turns or 0
    if len({seq for seq in seen if seq < turns}) == turns:
        return max([close.received_at, *(message.received_at for message in messages)])
    return close.received_at + config.gap_s / config.speed


def _readable(conversation: Conversation, now: float, config: StreamConfig) -> tuple[int, float]:
    """The highest seq before a gap that still may close, and when the wait for that gap ends."""
    ordered = sorted(conversation.events.values(), key=lambda event: event.seq)
    limit = conversation.memo.left
    for index, event in enumerate(ordered):
        if event.seq > limit + 1:
            stands = min(later.received_at for later in ordered[index:])
            over = stands + config.gap_s / config.speed
            if now < over:
                return limit, over
        limit = max(limit, event.seq)
    return limit, NEVER


def _replies(messages: Sequence[CleanEvent], completed_at: float | None, decided: Container[str]) -> tuple[Reply, ...]:
    """Groups of consecutive messages; what follows a decided reply starts another one."""
    found: list[Reply] = []
    group: list[CleanEvent] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if group and (message.role != group[-1].role or group[-1].event_id in decided):
            at = max(message.received_at, group[-1].received_at)
            found.append(Reply(tuple(group), at, _turns(messages[index:])))
            group = []
        if message.role in {"agent", "assistant"}:
            group.append(message)
    if group:
        found.append(Reply(tuple(group), completed_at))
    return tuple(found)


def _turns(messages: Iterable[CleanEvent]) -> tuple[Turn, ...]:
    return tuple(Turn(role=m.role, text=m.text or "") for m in messages if m.role is not None)
