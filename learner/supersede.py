"""Facts that change: newer replies that say another number in the same sentence retire the older ones.

Rehearsal teaches old facts too, so what was contradicted leaves it. A sentence counts as a fact only if its numbers
were settled before (an order's amount never is), and it changes only when three conversations in a row, of different
customers and different agents, say the same new numbers: an attacker must not delete the truth.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from streams.events import Sample

SETTLED = 3
"""Earlier statements that make a sentence a fact."""

AGREED = 0.8
"""Share of them that say the same."""

NEWER = 3
"""Newest conversations that must say the new value."""

HISTORY = 64
"""Statements of a sentence that are remembered."""

SENTENCES = 4_096
"""Sentences that are remembered, the least recently said ones leave."""

WORDS = (3, 40)
"""Words of a sentence beside its numbers: shorter ones say nothing by themselves."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.,:]\d[^.!?\n]*)*")


@dataclass(frozen=True)
class Statement:
    """One conversation's version of a sentence."""

    key: str
    """Digest of the sample, hex."""
    value: str
    customer: str
    agent: str


@dataclass(frozen=True)
class Change:
    """A sentence whose numbers have changed, and the samples that say the old ones."""

    sentence: str
    """Digest of its words: no chat text is kept."""
    old: str
    keys: tuple[str, ...]


def sentences(text: str) -> list[tuple[str, str]]:
    """(digest of the words, numbers) of each sentence that holds a number."""
    found = []
    for match in _SENTENCE.finditer(text.casefold()):
        numbers = _NUMBER.findall(match[0])
        words = re.findall(r"[^\W\d]+", _NUMBER.sub(" ", match[0]))
        if numbers and WORDS[0] <= len(words) <= WORDS[1]:
            digest = blake2b(" ".join(words).encode(errors="surrogatepass"), digest_size=8).hexdigest()
            found.append((digest, " ".join(numbers)))
    return found


class FactChanges:
    """Watches one line's fresh samples."""

    def __init__(self) -> None:
        self._said: dict[str, deque[Statement]] = {}
        self.changed: dict[str, set[str]] = {}
        """Sentence -> values that hold no more."""

    def observe(self, fresh: Sequence[tuple[str, Sample]]) -> list[Change]:
        """Take in (key, sample) pairs; gives the changes that they prove."""
        found = []
        for key, sample in fresh:
            for digest, value in _stated(sample):
                said = self._said.pop(digest, deque(maxlen=HISTORY))
                self._said[digest] = said
                said.append(Statement(key, value, sample.customer, sample.agent_id or sample.customer))
                change = _change(digest, said)
                if change is not None:
                    self.changed.setdefault(digest, set()).add(change.old)
                    self.changed[digest].discard(value)
                    self._said[digest] = deque((one for one in said if one.value != change.old), maxlen=HISTORY)
                    found.append(change)
        while len(self._said) > SENTENCES:
            self._said.pop(next(iter(self._said)))
        return found

    def outdated(self, sample: Sample) -> bool:
        """Whether a sample states something that holds no more."""
        return any(value in self.changed.get(digest, ()) for digest, value in _stated(sample))

    def name(self, sentence: str, old: str) -> None:
        """An operator says that a sentence's value holds no more."""
        self.changed.setdefault(sentence, set()).add(old)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop the statements of erased samples."""
        gone = set(keys)
        for digest, said in self._said.items():
            self._said[digest] = deque((one for one in said if one.key not in gone), maxlen=HISTORY)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        said = {
            digest: [[one.key, one.value, one.customer, one.agent] for one in known]
            for digest, known in self._said.items()
        }
        return {"said": said, "changed": {digest: sorted(values) for digest, values in self.changed.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._said = {
            digest: deque((Statement(*row) for row in rows), maxlen=HISTORY) for digest, rows in state["said"].items()
        }
        self.changed = {digest: set(values) for digest, values in state["changed"].items()}


def _stated(sample: Sample) -> list[tuple[str, str]]:
    return [pair for turn in sample.turns if turn.is_target for pair in sentences(turn.text)]


def _change(digest: str, said: Sequence[Statement]) -> Change | None:
    newest, before = list(said)[-NEWER:], list(said)[:-NEWER]
    value = newest[-1].value
    if len(before) < SETTLED or any(one.value != value for one in newest):
        return None
    if len({one.customer for one in newest}) < NEWER or len({one.agent for one in newest}) < NEWER:
        return None
    old, count = Counter(one.value for one in before).most_common(1)[0]
    if old == value or count < SETTLED or count < AGREED * len(before):
        return None
    return Change(digest, old, tuple(dict.fromkeys(one.key for one in before if one.value == old)))
