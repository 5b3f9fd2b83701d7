"""How a sample is put together from the replies of a conversation, and made again when its words are masked late. Pure.

A sample that has left is remembered without its text: which messages each of its turns joins. When something is found
late in one of them, `replacements` builds it anew from the conversation's corrected events, under the next number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from streams.assemble.conversation import KEPT, Conversation, Left, Memo, Reply, View
from streams.assemble.source import customer_of, lane_of, topic_of
from streams.config import StreamConfig
from streams.events import CleanEvent, Pair, Sample, Split, Turn, timestamp
from streams.replay.codec import sample_digest


def turns_of(
    memo: Memo, seen: View, targets: Sequence[Reply], config: StreamConfig
) -> list[tuple[Turn, tuple[CleanEvent, ...]]]:
    """The turns of a sample, replies as one turn each, with the messages that they hold; old context is cut off."""
    reply_by_message = {m.event_id: r for r in seen.replies for m in r.messages}
    names = {r.name for r in targets}
    end = targets[-1].messages[-1]
    rows: list[tuple[Turn, tuple[CleanEvent, ...]]] = []
    first_target = -1
    for message in seen.messages:
        if (message.seq, message.event_id) > (end.seq, end.event_id):
            break
        reply = reply_by_message.get(message.event_id)
        if reply is None:
            if message.event_id not in memo.dropped and message.role is not None:
                rows.append((Turn(role=message.role, text=message.text or ""), (message,)))
            continue
        if message is not reply.messages[-1]:
            continue
        role = message.role or "agent"
        if reply.name in names:
            first_target = len(rows) if first_target < 0 else first_target
            rows.append((Turn(role=role, text=reply.text, is_target=True, event_id=reply.name), reply.messages))
        elif memo.targets.get(reply.name, KEPT) == KEPT:
            rows.append((Turn(role=role, text=reply.text), reply.messages))
    start, chars = first_target, 0
    while start > 0 and first_target - start < config.context_turns:
        chars += len(rows[start - 1][0].text)
        if chars > config.context_chars:
            break
        start -= 1
    return rows[start:]


def build(  # noqa: PLR0917 - a sample is all of this
    conversation: Conversation, memo: Memo, sample_id: str, turns: tuple[Turn, ...], last: Reply,
    held: Sequence[CleanEvent], *, notes: Sequence[str], tags: tuple[str, ...] = (),
) -> Sample:  # fmt: skip
    """A sample with its provenance; `held` are the messages of its turns, `notes` the feedback that it answers."""
    end = last.messages[-1]
    spans: dict[str, tuple[int, int]] = {}
    for message in held:
        partition, offset = message.offset
        low, high = spans.get(f"chats.raw-{partition}", (offset, offset))
        spans[f"chats.raw-{partition}"] = (min(low, offset), max(high, offset))
    completed_at = max([last.completed_at or end.received_at, *(m.received_at for m in held)])
    return Sample(
        sample_id=sample_id, conversation=conversation.name, customer=customer_of(conversation.ordered()),
        lane=lane_of(end.channel), split=cast(Split, memo.split), turns=turns, received_at=end.received_at,
        completed_at=completed_at, happened_at=timestamp(end.ts), tenant=end.tenant, line=end.line,
        adapter=end.adapter, arm=end.arm, p=end.p, agent_id=end.agent_id,
        lang=next((m.lang for m in held if m.lang), "und"), tags=tags,
        topic=topic_of(turn.text for turn in turns if turn.role == "customer"), source=end.channel or "chat",
        event_ids=(*(m.event_id for m in held), *notes), offsets=spans,
    )  # fmt: skip


def remember(memo: Memo, sample: Sample, rows: Sequence[Sequence[CleanEvent]]) -> None:
    """File a sample that leaves, without its text; `rows` are the messages of its turns."""
    _file(memo, sample, tuple(map(len, rows)))


def replacements(conversation: Conversation, memo: Memo, key: bytes) -> list[Sample]:
    """Samples that have left and hold what was masked since, made again; each names the one that it replaces.

    `key` is the ledger's, under which the replay buffer knows samples.
    """
    found = []
    for sample_id, left in list(memo.samples.items()):
        if conversation.masked.isdisjoint(left.sample.event_ids):
            continue
        again = _again(conversation, memo, left, key)
        del memo.samples[sample_id]
        _file(memo, again, left.joins)
        found.append(again)
    return found


def _file(memo: Memo, sample: Sample, joins: tuple[int, ...]) -> None:
    turns = tuple(msgspec.structs.replace(turn, text="") for turn in sample.turns)
    memo.samples[sample.sample_id] = Left(msgspec.structs.replace(sample, turns=turns, pair=None), joins)


def _again(conversation: Conversation, memo: Memo, left: Left, key: bytes) -> Sample:
    old = left.sample
    said = [conversation.events[event_id] for event_id in old.event_ids]
    texts, at = [], 0
    for count in left.joins:
        texts.append("\n".join(event.text or "" for event in said[at : at + count]))
        at += count
    name, kind, number = old.sample_id.rsplit("/", 2)
    following, pair = int(number) + 1, None
    if kind == "edit":
        following = memo.edits[name]
        memo.edits[name] += 1
        pair = Pair(texts[-1], said[-1].corrected_text or "")
        texts[-1] = pair.final
    turns = (msgspec.structs.replace(turn, text=text) for turn, text in zip(old.turns, texts, strict=True))
    return msgspec.structs.replace(
        old, sample_id=f"{name}/{kind}/{following}", turns=tuple(turns), pair=pair,
        replaces=sample_digest(old, key).hex(),
    )  # fmt: skip
