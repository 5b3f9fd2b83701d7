"""Facts that change: newer replies that state another value of the same thing retire the older ones.

Rehearsal teaches old facts too, so what was contradicted leaves it. A value counts as a fact only if it was settled
before (an order's amount never is). It changes when conversations of three customers and three agents state one new
value that nobody had stated before, too many in a row for chance: an attacker must not delete the truth. Once a change
is proven, any other wording of the same change retires its own older statements, and an operator can name one.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from learner.statements import Statement, alike, read_row, row_of, stated
from streams.events import Sample

SETTLED = 3
"""Earlier statements that make a value a fact."""

AGREED = 0.8
"""Share of the earlier statements that say the old value, and of those since that say the new one."""

SOURCES = 3
"""Different customers, and different agents, that must state the new value."""

CHANCE = 0.02
"""Largest chance of so many new statements in a row if nothing had changed."""

HISTORY = 2_048
"""Statements that are remembered."""

WORDINGS = 64
"""Statements of a change that are kept to know others by."""

CHANGES = 256
"""Changes that are remembered, the oldest leave."""


@dataclass(frozen=True)
class Said:
    """A statement, the sample that holds it, and who was there."""

    key: str
    """Digest of the sample, hex."""
    customer: str
    agent: str
    what: Statement


@dataclass(frozen=True)
class Change:
    """A value that holds no more, and wordings of what it was a value of."""

    kind: str
    old: str
    new: str
    """Empty when an operator named the old value alone."""
    wordings: tuple[tuple[str, Statement], ...]
    """Each with the key of its sample, empty for an operator's."""

    def covers(self, what: Statement) -> bool:
        """Whether a statement states the old value of the same thing."""
        return what.kind == self.kind and what.value == self.old and any(alike(what, one) for _, one in self.wordings)


class FactChanges:
    """Watches one line's fresh samples; `changes` is replaced as a whole, so that other threads may read it."""

    def __init__(self) -> None:
        self._said: deque[Said] = deque(maxlen=HISTORY)
        self.changes: tuple[Change, ...] = ()
        self.named = 0
        """How often an operator has named something: after a restart none of it is heard again."""

    def observe(self, fresh: Iterable[tuple[str, Sample]]) -> list[str]:
        """Take in (key, sample) pairs; gives the keys of the samples that state what holds no more."""
        found: dict[str, None] = {}
        for key, sample in fresh:
            for what in stated(sample, by_people=True):
                self._said.append(Said(key, sample.customer, sample.agent_id or sample.customer, what))
                for old in self._contradicted(what):
                    found |= dict.fromkeys(self._retire(key, what, old, what.value))
            if self.outdated(sample):
                found[key] = None
        return list(found)

    def outdated(self, sample: Sample) -> bool:
        """Whether a sample states something that holds no more."""
        changes = self.changes
        return bool(changes) and any(change.covers(what) for what in stated(sample) for change in changes)

    def name(self, named: Iterable[Statement]) -> list[str]:
        """An operator says that these values hold no more; gives the keys of the samples that state them."""
        self.named += 1
        return list(dict.fromkeys(key for what in named for key in self._retire("", what, what.value, "")))

    def forget(self, keys: Sequence[str]) -> None:
        """Drop the statements of erased samples, those that changes are known by included."""
        gone = set(keys)
        self.changes = tuple(
            replace(one, wordings=tuple(pair for pair in one.wordings if pair[0] not in gone)) for one in self.changes
        )
        self._said = deque((one for one in self._said if one.key not in gone), maxlen=HISTORY)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        return {
            "named": self.named,
            "said": [[one.key, one.customer, one.agent, row_of(one.what)] for one in self._said],
            "changes": [
                [one.kind, one.old, one.new, [[key, row_of(what)] for key, what in one.wordings]]
                for one in self.changes
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.named = state["named"]
        said = (Said(key, customer, agent, read_row(row)) for key, customer, agent, row in state["said"])
        self._said = deque(said, maxlen=HISTORY)
        self.changes = tuple(
            Change(kind, old, new, tuple((key, read_row(row)) for key, row in rows))
            for kind, old, new, rows in state["changes"]
        )

    def _contradicted(self, what: Statement) -> list[str]:
        """The values that a new statement shows to hold no more."""
        about = [one for one in self._said if one.what.kind == what.kind and alike(one.what, what)]
        values = {one.what.value for one in about}
        proven = {one.old for one in self.changes if (one.kind, one.new) == (what.kind, what.value)}
        again = [old for old in proven if values == {old, what.value}]
        changed = _changed(about)
        return again if changed is None or changed in again else [*again, changed]

    def _retire(self, key: str, what: Statement, old: str, new: str) -> list[str]:
        """Book that a statement's old value holds no more; gives the keys of what states it and leaves the memory."""
        known = [one for one in self.changes if (one.kind, one.old, one.new) == (what.kind, old, new)]
        same = [one for one in self._said if one.what.value in {old, new} and alike(one.what, what)]
        wordings = {one: at for change in known for at, one in change.wordings} | {what: key}
        wordings |= {one.what: one.key for one in same}
        change = Change(what.kind, old, new, tuple((at, one) for one, at in wordings.items())[-WORDINGS:])
        # a value that comes back is an old one no longer
        others = [one for one in self.changes if one not in known and not one.covers(replace(what, value=new))]
        self.changes = (*others[-CHANGES + 1 :], change)
        gone = [one for one in self._said if change.covers(one.what)]
        self._said = deque((one for one in self._said if one not in gone), maxlen=HISTORY)
        return [one.key for one in gone]


def _changed(about: Sequence[Said]) -> str | None:
    """The settled value that the newest of these statements, oldest first, contradict together; None if they do not."""
    new = about[-1].what.value
    onset = next(at for at, one in enumerate(about) if one.what.value == new)
    before, since = about[:onset], about[onset:]
    states = [one for one in since if one.what.value == new]
    if len(before) < SETTLED or len(states) < AGREED * len(since):
        return None
    if min(len({one.customer for one in states}), len({one.agent for one in states})) < SOURCES:
        return None
    old, count = Counter(one.what.value for one in before).most_common(1)[0]
    if count < max(SETTLED, AGREED * len(before)):
        return None
    # the chance that all of the new value's places among these statements fall behind the onset (Fisher's exact test)
    chance = math.comb(len(since), len(states)) / math.comb(len(about), len(states))
    return old if chance <= CHANCE else None
