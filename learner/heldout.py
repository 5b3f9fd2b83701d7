"""Which validation conversations the gate looks at: human replies, no near copies, none that was used up. Torch-free.

`recent` proves the gain and `slices` guard topics; the two never share a conversation, since a hash of the
conversation decides. Training never draws them, and the gate draws nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b, sha256
from typing import Literal

import msgspec

from streams import near_copies
from streams.events import Sample, Turn

Source = Literal["human", "rated"]


@dataclass(frozen=True)
class SetLimits:
    """Sizes of the gate's sets."""

    recent: int = 300
    """Newest conversations that prove a gain."""
    recent_share: float = 0.5
    """Share of validation conversations, by hash, that may enter `recent`; the rest are slices."""
    slice_most: int = 256
    """Newest conversations of one topic."""
    retire_after: int = 30
    """Decisions after which a conversation is used up: its answers have begun to steer the search."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if not getattr(self, setting.name) > 0:
                raise ValueError(
                    f"SetLimits {setting.name!r} has value {getattr(self, setting.name)!r}: must be above 0"
                )
        if self.recent_share > 1:
            raise ValueError(f"SetLimits 'recent_share' has value {self.recent_share!r}: must lie in 0..1")


@dataclass(frozen=True)
class HeldOut:
    """The conversations of one decision, newest first; only scored replies are targets."""

    recent: tuple[Sample, ...]
    slices: Mapping[str, tuple[Sample, ...]]
    source: Source
    """`human` replies, or, on a line where people write none, answers `rated` good."""

    @property
    def everything(self) -> list[Sample]:
        """All conversations of both sets."""
        return [*self.recent, *(sample for name in sorted(self.slices) for sample in self.slices[name])]

    @property
    def digest(self) -> str:
        """Sha256, in hex, of the ids in both sets: names the set in the manifest."""
        ids = sorted(sample.sample_id for sample in self.everything)
        return sha256("\n".join(ids).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, repr=False)
class HeldChat:
    """A conversation to evaluate on: its replies are targets, `topic` is what it is counted under."""

    conversation: str
    turns: tuple[Turn, ...]
    topic: str = "other"


def choose(samples: Iterable[Sample], uses: Mapping[str, int], limits: SetLimits) -> HeldOut:
    """Pick both sets from validation samples; `uses` counts earlier decisions by sample id."""
    fresh = [sample for sample in samples if uses.get(sample.sample_id, 0) < limits.retire_after]
    scored = [found for sample in fresh if (found := human_targets(sample)) is not None]
    source: Source = "human"
    if not scored:
        source = "rated"
        scored = equal_versions([found for sample in fresh if (found := rated_targets(sample)) is not None])
    newest = sorted(scored, key=lambda sample: (sample.completed_at, sample.sample_id), reverse=True)
    recent: list[Sample] = []
    slices: dict[str, list[Sample]] = defaultdict(list)
    copies = Copies()
    for sample in newest:
        for_recent = _share(sample.conversation) < limits.recent_share
        chosen, most = (recent, limits.recent) if for_recent else (slices[sample.topic], limits.slice_most)
        if len(chosen) < most and copies.adds(sample):
            chosen.append(sample)
    return HeldOut(tuple(recent), {topic: tuple(found) for topic, found in slices.items() if found}, source)


def human_targets(sample: Sample) -> Sample | None:
    """The sample with people's replies (agents', or an agent's edit) as its only targets; None without any."""
    return _with_targets(sample, [turn.role == "agent" or sample.kind == "edit" for turn in sample.turns])


def rated_targets(sample: Sample) -> Sample | None:
    """The sample with the replies that were judged good as its only targets; None without any."""
    return _with_targets(sample, [turn.label == "good" for turn in sample.turns])


def equal_versions(samples: Sequence[Sample]) -> list[Sample]:
    """As many newest samples of each version: scored on its own answers, the stable version would always win."""
    by_version: dict[str | None, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.completed_at, reverse=True):
        by_version[sample.adapter].append(sample)
    least = min((len(found) for found in by_version.values()), default=0)
    return [sample for found in by_version.values() for sample in found[:least]]


class Copies:
    """Remembers questions with their replies and tells near copies of them."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, list[bytes]] = defaultdict(list)

    def adds(self, sample: Sample) -> bool:
        """Remember a sample; False when it is a near copy of one before."""
        question, replies = unit(sample)
        signature, keys = near_copies.signature(question, replies), near_copies.bands(question, replies)
        met = {held for key in keys for held in self._buckets[key]}
        if any(near_copies.similar(signature, held) for held in met):
            return False
        for key in keys:
            self._buckets[key].append(signature)
        return True


def unit(sample: Sample) -> tuple[str, str]:
    """The customer's words before the last target, and all targets, as one question and one reply."""
    last = max(at for at, turn in enumerate(sample.turns) if turn.is_target)
    question = " ".join(turn.text for turn in sample.turns[:last] if turn.role == "customer")
    return question, " ".join(turn.text for turn in sample.turns if turn.is_target)


def counted(uses: Mapping[str, int], used: HeldOut) -> dict[str, int]:
    """The use counts after one more decision on these sets."""
    return dict(Counter(uses) + Counter(sample.sample_id for sample in used.everything))


def _with_targets(sample: Sample, chosen: Sequence[bool]) -> Sample | None:
    turns: list[Turn] = []
    for turn, wanted in zip(sample.turns, chosen, strict=True):
        target = turn.is_target and wanted and turn.weight > 0
        turns.append(turn if target == turn.is_target else msgspec.structs.replace(turn, is_target=target))
    if not any(turn.is_target for turn in turns):
        return None
    return msgspec.structs.replace(sample, turns=tuple(turns))


def _share(conversation: str) -> float:
    """A number in 0..1 that stays the same for a conversation."""
    digest = blake2b(conversation.encode(errors="surrogatepass"), digest_size=8, person=b"heldout").digest()
    return int.from_bytes(digest, "big") / 2**64
