"""Samples -> documents of token ids -> packed batches and padded micro-batches, with labels on replies only.

Documents of a pack never see each other; labels are shifted inside each document, so none predicts the first token
of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch
from msgspec import structs
from torch import Tensor

from learner.adapter.chat import Chat, Encoded
from learner.config import TrainConfig
from learner.labels import Classes, classes_of
from learner.spelling import density
from learner.word_order import spoken
from streams.events import Label, Sample, Turn

Component = Literal["fresh", "rehearsal", "anchor", "copy"]
COMPONENTS: tuple[Component, ...] = ("fresh", "rehearsal", "anchor", "copy")

BUCKETS = (2048, 4096, 8192, 16384)
"""Token counts of packs on CUDA: so few shapes that each is compiled once."""

FULL = 0.75
"""A bucket that would stay emptier than this is left for smaller ones."""

SLOT = 32
"""Tokens of a bucket for which it has room for one document."""

ARM_MIN = 0.25
"""Smallest weight of a reply for the share of its rollout arm."""


@dataclass(frozen=True)
class Drawn:
    """Where a document comes from."""

    component: Component
    key: str
    """Digest of the sample in hex, or the number of a self-made anchor."""
    lane: str = ""
    customer: str = ""
    topic: str = ""
    signal: bool = False
    """Whether a rating or an edit spoke of one of its replies."""
    received_at: float = 0.0
    completed_at: float = 0.0
    seed: int = 0
    """Of an augmented copy: what makes it again from its parent."""


@dataclass(frozen=True)
class Reply:
    """Target tokens of one reply within a document: ids[start:stop] are predicted."""

    start: int
    stop: int
    weight: float
    """Weight of its SFT loss; 0 for a bad one."""
    label: Label = "unknown"
    draft: bool = False
    """True for the text that an agent threw away; the next reply of the batch is what went out."""
    reference: float | None = None
    """Summed log-probability under the reference version, nats."""


@dataclass(frozen=True)
class Heard:
    """A customer's turn: where its end-of-turn token stands, and what the auxiliary heads learn there."""

    at: int
    classes: Classes


@dataclass(frozen=True)
class Document:
    """Token ids that see each other, and the replies in them."""

    ids: tuple[int, ...]
    replies: tuple[Reply, ...]
    drawn: Drawn
    heard: tuple[Heard, ...] = ()
    density: float = 0.0
    """Tokens per byte of its sample's replies, see `learner.spelling`; 0 for what the guard does not judge."""
    said: tuple[str, ...] = ()
    """Words whose order the guard looks at, see `learner.word_order`."""
    human: bool = True
    """Whether people wrote what it teaches: scored on its own answers, a version always gains."""

    @property
    def targets(self) -> int:
        """Number of target tokens."""
        return sum(reply.stop - reply.start for reply in self.replies)


def documents(chat: Chat, sample: Sample, drawn: Drawn, config: TrainConfig) -> list[Document]:
    """A sample as documents of at most `document_tokens`; each reply with a weight or a rating is a target once."""
    made = _pair(chat, sample, drawn, config) if sample.pair is not None else _whole(chat, sample, drawn, config)
    if drawn.component != "fresh":
        return made
    replies = taught(sample)
    found, said = density(chat, replies), spoken(replies)
    human = sample.kind == "edit" or all(turn.role == "agent" for turn in sample.turns if turn.is_target)
    return [
        replace(one, density=found, said=said, human=human and not any(reply.draft for reply in one.replies))
        for one in made
    ]


def taught(sample: Sample) -> list[str]:
    """What a sample teaches to say."""
    return [turn.text for turn in sample.turns if turn.is_target] if sample.pair is None else [sample.pair.final]


def _whole(chat: Chat, sample: Sample, drawn: Drawn, config: TrainConfig) -> list[Document]:
    factor = arm_factor(sample, config.arm_max)
    turns = [replace_target(turn) for turn in sample.turns]
    encoded = chat.encode(turns)
    if chat.conditioned:  # a bad reply is learned for what it is, behind the word that says so
        turns = [structs.replace(turn, label="unknown") if turn.label == "bad" else turn for turn in turns]
    return _windows(encoded, turns, factor, drawn, config, heard_in(encoded, sample) if config.heads else ())


def heard_in(encoded: Encoded, sample: Sample) -> tuple[Heard, ...]:
    """The customer's turns of an encoded sample that have a class."""
    classes = classes_of(sample)
    return tuple(Heard(place, classes[turn]) for turn, place in encoded.heard if classes[turn])


def replace_target(turn: Turn) -> Turn:
    """The turn as a target only if something can be learned from it: a weight above 0, or a bad rating."""
    keep = turn.is_target and (turn.weight > 0 or turn.label == "bad")
    return turn if keep == turn.is_target else Turn(role=turn.role, text=turn.text)


def arm_factor(sample: Sample, most: float) -> float:
    """1 / (probability of the sample's rollout arm) within 0.25 and `most`: the candidate's few chats count in full."""
    if sample.p is None or sample.arm not in {"candidate", "control"} or not 0 < sample.p < 1:
        return 1.0
    chance = sample.p if sample.arm == "candidate" else 1 - sample.p
    return min(max(1 / chance, ARM_MIN), most)


def _pair(chat: Chat, sample: Sample, drawn: Drawn, config: TrainConfig) -> list[Document]:
    """Draft and final in the same context, one behind the other; the loss of each is on the last target."""
    assert sample.pair is not None
    last = max((index for index, turn in enumerate(sample.turns) if turn.is_target), default=None)
    if last is None:
        return []
    found = []
    for text, draft in ((sample.pair.draft, True), (sample.pair.final, False)):
        said = sample.turns[last]
        weight = 0.0 if draft else max(said.weight, config.weight_min)
        turn = Turn(role=said.role, text=text, is_target=True, weight=weight, label="bad" if draft else "unknown")
        context = [Turn(role=t.role, text=t.text) for t in sample.turns[:last]]
        asked = chat.encode([*context, structs.replace(turn, label="unknown")])  # draft and final of the same prompt
        made = _windows(asked, [*context, turn], 1.0, drawn, config)[-1:]
        found += [replace(d, replies=tuple(replace(r, draft=draft) for r in d.replies)) for d in made]
    return found if len(found) == 2 else []  # a pair, or nothing


def _windows(  # noqa: PLR0917 - what a document is made of
    encoded: Encoded, turns: Sequence[Turn], factor: float, drawn: Drawn, config: TrainConfig,
    heard: Sequence[Heard] = (),
) -> list[Document]:  # fmt: skip
    limit = config.document_tokens
    found: list[Document] = []
    group: list[Reply] = []
    listened = 0

    def close() -> None:
        nonlocal listened
        begin, end = max(0, group[-1].stop - limit), group[-1].stop
        moved = tuple(replace(reply, start=reply.start - begin, stop=reply.stop - begin) for reply in group)
        told = tuple(Heard(one.at - begin, one.classes) for one in heard if max(begin, listened) <= one.at < end)
        found.append(Document(encoded.ids[begin:end], moved, drawn, told))
        group.clear()
        listened = end

    for index, start, stop in encoded.targets:
        turn = turns[index]
        bad = turn.label == "bad"
        weight = 0.0 if bad else min(max(turn.weight * factor, config.weight_min), config.weight_max)
        for piece in _pieces(max(start, 1), stop, limit):
            reply = Reply(*piece, weight, turn.label)
            if group and reply.stop - group[0].start >= limit:
                close()
            group.append(reply)
    if group:
        close()
    return found


def _pieces(start: int, stop: int, limit: int) -> list[tuple[int, int]]:
    """A reply longer than three quarters of a document is cut, so that each piece keeps some context."""
    size = max(limit * 3 // 4, 1)
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


@dataclass(frozen=True)
class Span:
    """One reply of a batch: its slice of the target vectors and what its losses need."""

    document: int
    start: int
    stop: int
    weight: float
    label: Label
    draft: bool
    reference: float | None


@dataclass(frozen=True)
class Batch:
    """Packed documents; every shape is static when sizes are given, so that compiled graphs are reused."""

    tokens: Tensor
    """(T,) int64."""
    positions: Tensor
    """(T,) int64, from 0 in each document."""
    bounds: Tensor
    """(D + 1,) int32 cumulative lengths, padded with T; the tail behind the documents is dummy documents."""
    targets_at: Tensor
    """(L,) int64 positions that predict a reply token."""
    targets: Tensor
    """(L,) int64 the tokens that they predict."""
    weights: Tensor
    """(L,) fp32 weight of each token's SFT loss, 0 on padding."""
    spans: tuple[Span, ...]
    examples: tuple[Document, ...]
    heard_at: Tensor
    """(H,) int64 places of the customers' turns that the heads learn from, in the order of the documents."""

    @property
    def real_tokens(self) -> int:
        """Tokens of documents, padding left out."""
        return sum(len(document.ids) for document in self.examples)


def static_packs(chosen: Sequence[Document], longest: int) -> Iterator[Batch]:
    """Packs of all documents in few static shapes (T, D), shortest documents first; pairs stay together.

    `longest` bounds the documents and the dummy ones that fill a pack, tokens.
    """
    units = deque(micro_batches(chosen, 1))
    while units:
        size = max(_bucket(sum(map(_length, units))), _holding(_length(units[0])))
        group = units.popleft()
        while units and _length(group) + _length(units[0]) <= size and len(group) + len(units[0]) <= size // SLOT:
            group = group + units.popleft()
        yield pack(group, size=size, slots=size // SLOT + -(-size // longest), longest=longest)


def _length(group: Sequence[Document]) -> int:
    return sum(len(document.ids) for document in group)


def _bucket(tokens: int) -> int:
    """The bucket that so many tokens fill well, alone or as the first of several."""
    size = _holding(tokens)
    return size if tokens >= FULL * size else max((one for one in BUCKETS if one <= tokens), default=BUCKETS[0])


def _holding(tokens: int) -> int:
    """The smallest bucket that holds so many tokens, else the largest."""
    return min((size for size in BUCKETS if size >= tokens), default=BUCKETS[-1])


def pack(
    chosen: Sequence[Document], *, size: int | None = None, slots: int | None = None, labels: int | None = None,
    longest: int | None = None,
) -> Batch:  # fmt: skip
    """Documents one behind the other; `size`, `slots`, `labels` fix T, D, L. Raises ValueError if they do not fit.

    The tail is one dummy document, or several of at most `longest` tokens.
    """
    tokens = [token for document in chosen for token in document.ids]
    positions = [at for document in chosen for at in range(len(document.ids))]
    ends, at, wanted, heard = [0], list[int](), list[int](), list[int]()
    weights, spans = list[float](), list[Span]()
    for number, document in enumerate(chosen):
        offset = ends[-1]
        for reply in document.replies:
            span = range(offset + reply.start, offset + reply.stop)
            start = len(at)
            at += [i - 1 for i in span]
            wanted += [tokens[i] for i in span]
            weights += [reply.weight] * len(span)
            spans.append(Span(number, start, len(at), reply.weight, reply.label, reply.draft, reply.reference))
        heard += [offset + one.at for one in document.heard]
        ends.append(offset + len(document.ids))
    total, found = size or len(tokens), labels or len(at)
    tail, more = total - len(tokens), found - len(at)
    pieces = [min(longest or tail, tail - start) for start in range(0, tail, longest or tail or 1)]
    needed = len(chosen) + len(pieces)
    if tail < 0 or more < 0 or (slots is not None and slots < needed):
        raise ValueError(f"pack: {len(tokens)} tokens, {needed} documents, {len(at)} labels do not fit")
    ends += list(accumulate(pieces, initial=len(tokens)))[1:]
    ends += [total] * ((slots or needed) + 1 - len(ends))
    return Batch(
        tokens=torch.tensor(tokens + [0] * tail),
        positions=torch.tensor(positions + [at for piece in pieces for at in range(piece)]),
        bounds=torch.tensor(ends, dtype=torch.int32),
        targets_at=torch.tensor(at + [0] * more, dtype=torch.int64),
        targets=torch.tensor(wanted + [0] * more, dtype=torch.int64),
        weights=torch.tensor(weights + [0.0] * more, dtype=torch.float32),
        spans=tuple(spans),
        examples=tuple(chosen),
        heard_at=torch.tensor(heard, dtype=torch.int64),
    )


def micro_batches(chosen: Sequence[Document], rows: int) -> list[list[Document]]:
    """Documents sorted by length, in groups of `rows`; draft and final of a pair stay together."""
    pairs: list[list[Document]] = []
    for document in chosen:
        behind_draft = bool(pairs) and len(pairs[-1]) == 1 and any(r.draft for r in pairs[-1][0].replies)
        if behind_draft:
            pairs[-1].append(document)
        else:
            pairs.append([document])
    pairs.sort(key=lambda unit: max(len(document.ids) for document in unit))
    groups: list[list[Document]] = []
    for unit in pairs:
        if groups and len(groups[-1]) + len(unit) <= rows:
            groups[-1] += unit
        else:
            groups.append(list(unit))
    return groups
