"""From a conversation at one moment to what leaves it: samples, edits, annotations, rejections. Pure.

Two steps, because near copies are looked up in a store between them: `prepare` decides what is due and judges it,
`cut` makes the samples once the store has said what each question and reply is a copy of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import cast

import msgspec

from streams.assemble.conversation import KEPT, NEVER, Conversation, Memo, Reply, View, reply_of, view
from streams.assemble.samples import build, remember, replacements, turns_of
from streams.assemble.source import customer_of, lane_of
from streams.assemble.split import split_of
from streams.claims import Stance
from streams.config import StreamConfig
from streams.events import Annotation, CleanEvent, Relane, Role, Sample, Split, Turn
from streams.near_copies import template_weight
from streams.near_copies_store import Copies, Unit
from streams.quality import QualityConfig, Reason, Tag, Verdict, is_echo, judge_turns
from streams.replay.config import QUARANTINE
from streams.signal_judge import judge_of
from streams.signals import Signal, pair_from_edit, signals

_AGENT: Role = "agent"


@dataclass(frozen=True)
class Candidate:
    """A reply that may be learned: what is known of it, and its unit for near copies."""

    reply: Reply
    signal: Signal
    tags: tuple[str, ...]
    unit: Unit


@dataclass(frozen=True)
class Prepared:
    """What is due of a conversation, judged; `again_at` says when to look again if nothing arrives."""

    conversation: Conversation
    view: View
    split: Split
    candidates: tuple[Candidate, ...]
    rejected: Mapping[str, str]
    """Reply -> reason."""
    dropped: Mapping[str, str]
    """Turns of customers -> reason."""
    scores: Mapping[str, float]
    """Of those replies and turns that the classifier rejected, its score of the reason."""
    waiting: tuple[Reply, ...]
    """Unrated replies of the model."""
    quality: QualityConfig
    """What it was judged by."""
    due: bool
    again_at: float

    @property
    def units(self) -> list[Unit]:
        """The units whose copies `cut` wants to know."""
        return [candidate.unit for candidate in self.candidates]


@dataclass
class Cut:
    """What leaves a conversation in one write."""

    conversation: Conversation
    memo: Memo
    samples: list[Sample] = field(default_factory=list)
    units: list[list[Unit]] = field(default_factory=list)
    """Of each sample, the units that are filed with it."""
    copies: dict[str, Copies] = field(default_factory=dict)
    """Reply -> what it is a copy of and what it contradicts."""
    refused: list[Unit] = field(default_factory=list)
    """Units that are rejected as copies: they were said all the same, and count as evidence."""
    moves: list[Relane] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    """Event -> reason."""
    scores: dict[str, float] = field(default_factory=dict)
    """Event -> score of its reason; 1 where there is none."""
    settled: tuple[str, ...] = ()
    """Closes: accepted if the conversation has any sample, else rejected."""


def prepare(conversation: Conversation, now: float, config: StreamConfig, quality: QualityConfig) -> Prepared:
    """What of a conversation is due at `now` (seconds on the clock of chats.raw)."""
    memo = conversation.memo
    seen = view(conversation, now, config)
    expiry = seen.completed_at + config.rating_wait_s / config.speed if seen.complete else NEVER
    open_ = [r for r in seen.replies if r.completed_at is not None and r.name not in memo.targets]
    known = {r.name: _signal(conversation, r, seen, quality) for r in open_}
    unrated = [r for r in open_ if r.role == "assistant" and known[r.name].label == "unknown"]
    waiting = tuple(r for r in unrated if now < expiry)
    ready = [r for r in open_ if r not in waiting]
    emit_at = min((r.completed_at for r in ready if r.completed_at is not None), default=NEVER) + config.emit_after_s
    due = (seen.complete and (not memo.complete or (not memo.final and not waiting))) or emit_at <= now
    due = due or bool(ready and memo.complete) or bool(conversation.masked) or _has_news(conversation, seen)
    again_at = min(seen.again_at, seen.completed_at if not seen.complete else NEVER, emit_at if ready else NEVER)
    if waiting:
        again_at = min(again_at, expiry)
    if not due or (not seen.complete and emit_at > now):
        ready = []
    split = _split(conversation, config)
    rejected = {r.name: Reason.UNRATED.value for r in ready if r in unrated}
    contexts = _contexts(conversation, seen, ready)
    verdicts = _verdicts(contexts, ready, quality)
    dropped = {m.event_id: verdicts[_said(m)].reasons[0].value for m in contexts if not verdicts[_said(m)].keep}
    noise = {m.event_id: verdicts[_said(m)] for m in contexts if m.event_id in dropped}
    scores = {name: verdict.scores.get(dropped[name], 1.0) for name, verdict in noise.items()}
    candidates = []
    for reply in ready:
        if reply.name in rejected:
            continue
        found = _judged(conversation, reply, known[reply.name], seen, dropped, split, verdicts)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            rejected[reply.name] = found
            scores[reply.name] = verdicts[reply.text, _AGENT].scores.get(found, 1.0)
    return Prepared(
        conversation, seen, split, tuple(candidates), rejected, dropped, scores, waiting, quality, due, again_at
    )


def cut(
    prepared: Prepared, copies: Sequence[Copies], uses: Sequence[int], config: StreamConfig, key: bytes
) -> Cut:  # fmt: skip
    """What leaves; `copies` and `uses` (how often the reply occurred before) belong to `prepared.units`.

    `key` is the ledger's: samples that are replaced are named by their digest under it.
    """
    conversation, seen = prepared.conversation, prepared.view
    memo = msgspec.convert(msgspec.to_builtins(conversation.memo), Memo)
    memo.split = prepared.split
    made = Cut(conversation, memo)
    made.samples += replacements(conversation, memo, key)
    made.units += [[] for _ in made.samples]
    made.rejected.update(prepared.dropped)
    made.scores.update(prepared.scores)
    memo.dropped.update(prepared.dropped)
    refused = dict(prepared.rejected)
    kept: list[tuple[Candidate, Copies, int]] = []
    for candidate, copy, count in zip(prepared.candidates, copies, uses, strict=True):
        made.copies[candidate.reply.name] = copy
        if copy.reason is not None:
            refused[candidate.reply.name] = copy.reason.value
            made.refused.append(candidate.unit)
        elif copy.stance is Stance.FLOOD and prepared.split != "train":
            refused[candidate.reply.name] = Reason.SOURCE_FLOOD.value  # no one draws there, so nothing can wait there
            made.refused.append(candidate.unit)
        else:
            kept.append((candidate, copy, count))
        if copy.moved:
            lane = lane_of(candidate.reply.messages[-1].channel) if copy.stance is Stance.ADMIT else QUARANTINE
            made.moves.append(
                Relane(conversation=conversation.name, targets=copy.moved, lane=lane, received_at=candidate.unit.at)
            )
    memo.targets.update(refused)
    for at in range(0, len(kept), config.max_replies):
        _sample(made, prepared, kept[at : at + config.max_replies], config)
    for reply in (r for r in seen.replies if r.name in refused):
        _refuse(made, reply, refused[reply.name])
    _feedback(made, prepared, config)
    if seen.complete:
        _completion(made, prepared)
    return made


def _signal(conversation: Conversation, reply: Reply, seen: View, quality: QualityConfig) -> Signal:
    """What is known of a reply; the customer has left if nobody closed the chat and nothing followed."""
    left = seen.complete and not conversation.closes() and not reply.following
    about = _about(conversation, reply, seen)
    asked = _question(_before(seen, reply))
    return signals(reply.text, reply.following, about, asked, left=left, judge=judge_of(quality))


def _asked(before: Sequence[CleanEvent]) -> Iterator[CleanEvent]:
    """The customer's turns that a reply answers, newest first."""
    return takewhile(lambda m: m.role == "customer", reversed(before))


def _question(before: Sequence[CleanEvent]) -> str:
    """The customer's newest turn."""
    return next((m.text or "" for m in reversed(before) if m.role == "customer"), "")


def _about(conversation: Conversation, reply: Reply, seen: View) -> list[CleanEvent]:
    return [f for f in conversation.feedback() if reply in reply_of(f, seen.replies)]


def _has_news(conversation: Conversation, seen: View) -> bool:
    """Whether a feedback waits that speaks of a reply which has left."""
    memo = conversation.memo
    return any(
        memo.targets.get(reply.name) == KEPT
        for event in conversation.feedback()
        if event.event_id not in memo.dropped
        for reply in reply_of(event, seen.replies)
    )


def _split(conversation: Conversation, config: StreamConfig) -> Split:
    if conversation.memo.split:
        return cast(Split, conversation.memo.split)
    ordered = sorted(
        conversation.events.values(), key=lambda event: (event.customer is None, event.seq, event.event_id)
    )
    return split_of(ordered[0].split_key, config.salt, config.shares)


def _contexts(conversation: Conversation, seen: View, ready: Sequence[Reply]) -> list[CleanEvent]:
    """Customers' turns before the last ready reply (all of them once complete) that are not decided."""
    memo = conversation.memo
    last = max((r.messages[-1].seq for r in ready), default=-1)
    if seen.complete and seen.messages:
        last = seen.messages[-1].seq
    return [
        m for m in seen.messages
        if m.seq <= last and m.role not in {"agent", "assistant"}
        and m.event_id not in memo.held and m.event_id not in memo.dropped
    ]  # fmt: skip


def _verdicts(
    contexts: Sequence[CleanEvent], ready: Sequence[Reply], quality: QualityConfig
) -> dict[tuple[str, Role], Verdict]:
    """The judgement of every text that is looked at now, in one go."""
    texts = list(dict.fromkeys([*map(_said, contexts), *((r.text, _AGENT) for r in ready)]))
    return dict(zip(texts, judge_turns(texts, quality), strict=True)) if texts else {}


def _said(message: CleanEvent) -> tuple[str, Role]:
    return message.text or "", message.role or "customer"


def _judged(  # noqa: PLR0917 - what a judgement hangs on
    conversation: Conversation, reply: Reply, signal: Signal, seen: View, dropped: Mapping[str, str], split: Split,
    verdicts: Mapping[tuple[str, Role], Verdict],
) -> Candidate | str:  # fmt: skip
    """The reply as candidate, or the reason of its rejection."""
    verdict = verdicts[reply.text, _AGENT]
    if len(_adapters([*_before(seen, reply), *reply.messages])) > 1 and reply.role == "assistant":
        return Reason.VERSION_MIXED.value
    if _torn(conversation, seen, reply):
        return Reason.OUT_OF_ORDER.value
    before = [
        m for m in _before(seen, reply) if m.event_id not in dropped and m.event_id not in conversation.memo.dropped
    ]
    if verdict.keep and is_echo([Turn(role=m.role or "customer", text=m.text or "") for m in before], reply.text):
        return Reason.DUPLICATE.value
    if not verdict.keep:
        return verdict.reasons[0].value
    question = _question(before)
    angry = any(Tag.TONE.value in verdicts[_said(m)].tags for m in _asked(before) if _said(m) in verdicts)
    marks = ((Tag.TONE, angry), (Tag.LOW_SIGNAL, signal.label == "bad"))
    tags = (*verdict.tags, *(tag.value for tag, holds in marks if holds))
    end = reply.messages[-1]
    customer = customer_of(conversation.ordered())
    unit = Unit(reply.name, question, reply.text, split, customer, end.agent_id or "", end.received_at)
    return Candidate(reply, signal, tags, unit)


def _torn(conversation: Conversation, seen: View, reply: Reply) -> bool:
    """Whether nobody knows what a reply answers: a turn before or inside it never came, or two claim one place."""
    before, first, last = _before(seen, reply), reply.messages[0].seq, reply.messages[-1].seq
    since = before[-1].seq if before else first
    known = {event.seq for event in conversation.events.values()}
    others = {m.seq for m in seen.messages if m.role != reply.role}
    return any(at not in known or (at >= first and at in others) for at in range(since, last + 1))


def _before(seen: View, reply: Reply) -> list[CleanEvent]:
    first = reply.messages[0]
    return [m for m in seen.messages if (m.seq, m.event_id) < (first.seq, first.event_id)]


def _adapters(messages: Iterable[CleanEvent]) -> set[str]:
    return {m.adapter for m in messages if m.role == "assistant" and m.adapter}


def _sample(made: Cut, prepared: Prepared, kept: Sequence[tuple[Candidate, Copies, int]], config: StreamConfig) -> None:
    memo, seen = made.memo, prepared.view
    replies = {m.event_id: c for c, _, _ in kept for m in c.reply.messages}
    weights = {c.reply.name: _weight(c.signal) * template_weight(count) for c, _, count in kept}
    rows = turns_of(memo, seen, [c.reply for c, _, _ in kept], config)
    held = [message for _, messages in rows for message in messages]
    labelled = tuple(
        msgspec.structs.replace(turn, label=replies[turn.event_id].signal.label, weight=weights[turn.event_id])
        if turn.event_id is not None
        else turn
        for turn, _ in rows
    )
    last = kept[-1][0].reply
    used = [f for c, _, _ in kept for f in _about(made.conversation, c.reply, seen)]
    notes = list(dict.fromkeys(f.event_id for f in used if f.event_id not in memo.dropped))
    tags = tuple(dict.fromkeys(tag for one in kept for tag in _tags(*one, prepared.quality)))
    sample = build(
        made.conversation, memo, f"{last.name}/sft/0", labelled, last, held, notes=notes, tags=tags
    )  # fmt: skip
    apart = prepared.split == "train" and any(copies.stance is not Stance.ADMIT for _, copies, _ in kept)
    sample = msgspec.structs.replace(sample, lane=QUARANTINE) if apart else sample
    made.samples.append(sample)
    made.units.append([c.unit for c, _, _ in kept])
    remember(memo, sample, [messages for _, messages in rows])
    memo.dropped.update(notes)
    memo.held.update(m.event_id for m in held)
    memo.left = max(memo.left, last.messages[-1].seq)
    for candidate, _, _ in kept:
        memo.targets[candidate.reply.name] = KEPT


def _tags(candidate: Candidate, copies: Copies, uses: int, quality: QualityConfig) -> tuple[str, ...]:
    macro = (Tag.TEMPLATE.value,) if uses >= quality.template_count else ()
    return (*candidate.tags, *copies.tags, *macro)


def _weight(signal: Signal) -> float:
    """A training weight above 0: a bad reply's says how sure that is, for preference learning."""
    return signal.weight if signal.weight > 0 else max(signal.confidence, 0.05)


def _refuse(made: Cut, reply: Reply, reason: str) -> None:
    for message in reply.messages:
        if message.event_id not in made.memo.held:
            made.rejected[message.event_id] = reason
            made.scores[message.event_id] = made.scores.get(reply.name, 1.0)
            made.memo.dropped.add(message.event_id)


def _feedback(made: Cut, prepared: Prepared, config: StreamConfig) -> None:
    """Feedback on replies that have left: annotations and edits; on none that ever will: rejected."""
    seen, memo = prepared.view, made.memo
    for event in made.conversation.feedback():
        new = event.event_id not in made.conversation.memo.dropped
        targets = [r for r in reply_of(event, seen.replies) if memo.targets.get(r.name) == KEPT]
        if not new or not targets:
            if new and _is_final(prepared) and event.event_id not in memo.dropped:
                made.rejected[event.event_id] = Reason.NO_TARGET.value
                memo.dropped.add(event.event_id)
            continue
        if event.corrected_text is not None:
            _edit(made, prepared, event, targets[-1], config)
        if event.event_id in memo.dropped:
            continue
        signal = signals(targets[-1].text, (), [event])
        made.annotations.append(
            Annotation(
                feedback_id=event.event_id, conversation=event.conversation, targets=tuple(r.name for r in targets),
                label=signal.label, weight=_weight(signal), received_at=event.received_at,
            )
        )  # fmt: skip
        memo.dropped.add(event.event_id)


def _edit(made: Cut, prepared: Prepared, event: CleanEvent, reply: Reply, config: StreamConfig) -> None:
    """The agent's better text as a sample of kind `edit` with its preference over the draft."""
    pair = pair_from_edit(reply.text, event.corrected_text or "")
    if pair is None:
        return
    memo = made.memo
    rows = turns_of(memo, prepared.view, [reply], config)
    final = msgspec.structs.replace(rows[-1][0], text=pair.final, label="good", weight=1.0)
    turns = (*(turn for turn, _ in rows[:-1]), final)
    held = [message for _, messages in rows for message in messages]
    n = memo.edits.get(reply.name, 0)
    memo.edits[reply.name] = n + 1
    name = f"{reply.name}/edit/{n}"
    sample = build(made.conversation, memo, name, turns, reply, held, notes=[event.event_id])
    made.samples.append(msgspec.structs.replace(sample, pair=pair))
    made.units.append([])
    remember(memo, sample, [messages for _, messages in rows])


def _is_final(prepared: Prepared) -> bool:
    return prepared.view.complete and not prepared.waiting


def _completion(made: Cut, prepared: Prepared) -> None:
    memo, seen = made.memo, prepared.view
    memo.complete = True
    memo.left = max([memo.left, *(m.seq for m in seen.messages)])
    if not _is_final(prepared):
        return
    memo.final = True
    for message in seen.messages:
        if message.event_id not in memo.held and message.event_id not in memo.dropped:
            made.rejected[message.event_id] = Reason.NO_REPLY.value
            memo.dropped.add(message.event_id)
    closes = [close.event_id for close in made.conversation.closes() if close.event_id not in memo.dropped]
    memo.dropped.update(closes)
    made.settled = tuple(closes)
