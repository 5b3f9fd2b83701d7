"""Guards against poison and spikes: which fresh examples wait apart, and which steps are not taken.

An example waits when its loss lies far above the running median of what its lane accepted, or when its text is spelled
like none of its lane (`learner.spelling`). When a whole lane moves (a new topic), most of its newest examples lie above
the band: then the band moves to them and those that waited come back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from learner.batch import Document
from learner.config import TrainConfig
from learner.spelling import Spelling

HISTORY = 200
"""Accepted losses of a lane that its median looks back on."""

KNOWN = 16
"""Accepted losses before a lane has a band, and newest ones that tell whether a lane has moved."""

CHANCE = 0.95
"""A loss above this share of ln V is no better than guessing."""

WAITING = 4096
"""Examples that may come back when their lane moves; older ones stay with the reviewers."""

NORMS = 50
"""Gradient norms that the running median looks back on, steps."""

WINDOW = 20
"""Steps in which three skips mean that the trajectory is lost."""

SKIPS = 3


@dataclass
class Band:
    """What is normal in one lane."""

    accepted: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    newest: deque[float] = field(default_factory=lambda: deque(maxlen=KNOWN))

    def limit(self, config: TrainConfig, ceiling: float) -> float:
        """The highest loss that is accepted, nats; infinite while the lane is unknown."""
        if len(self.accepted) < KNOWN:
            return math.inf
        middle = median(self.accepted)
        spread = median(abs(loss - middle) for loss in self.accepted)
        limit = middle + max(config.quarantine_nats, config.quarantine_mads * spread)
        # a base that has never seen such chats guesses at first: the ceiling holds once it has learned the lane
        return min(limit, ceiling) if middle < ceiling / 2 else limit


class Guard:
    """Judges fresh examples by the loss of the training forward itself, before its backward."""

    def __init__(self, vocab: int, config: TrainConfig) -> None:
        self._config = config
        self._ceiling = CHANCE * math.log(vocab)
        self._bands: dict[str, Band] = {}
        self._spelling = Spelling(config.quarantine_density)
        self.waiting: dict[str, tuple[str, float, float]] = {}
        """Key of a document that waits -> its lane, loss, and density if that is why."""

    def look(self, chosen: Sequence[Document]) -> None:
        """See a step's documents before they are judged: what is normal is known from the first batch on."""
        self._spelling.look((one.drawn.lane, one.density) for one in chosen if one.drawn.component == "fresh")

    def accepts(self, document: Document, loss: float) -> bool:
        """Whether a document may be trained on; rehearsal and anchors have passed before."""
        if document.drawn.component != "fresh":
            return True
        return not self.is_noise(document) and loss <= self._limit(document.drawn.lane)

    def is_noise(self, document: Document) -> bool:
        """Whether a document is spelled like none of its lane."""
        return self._spelling.is_noise(document.drawn.lane, document.density)

    def observe(self, judged: Sequence[tuple[Document, float, bool]]) -> list[str]:
        """Learn what was normal from (document, loss, accepted); gives the keys that may come back."""
        moved: set[str] = set()
        for document, loss, accepted in judged:
            if document.drawn.component != "fresh":
                continue
            lane = document.drawn.lane
            if self.is_noise(document):
                self._wait(document.drawn.key, lane, loss, document.density)
                continue
            band = self._band(lane)
            band.newest.append(loss)
            if accepted:
                band.accepted.append(loss)
            else:
                self._wait(document.drawn.key, lane, loss, 0.0)
            if self._has_moved(band):
                band.accepted = deque(band.newest, maxlen=HISTORY)
                moved.add(lane)
        return self._readmit(moved)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what is known of erased examples."""
        for key in keys:
            self.waiting.pop(key, None)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        bands = {lane: [list(band.accepted), list(band.newest)] for lane, band in self._bands.items()}
        waiting = {key: list(value) for key, value in self.waiting.items()}
        return {"bands": bands, "waiting": waiting, "spelling": self._spelling.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._bands = {
            lane: Band(deque(accepted, maxlen=HISTORY), deque(newest, maxlen=KNOWN))
            for lane, (accepted, newest) in state["bands"].items()
        }
        self.waiting = {key: (row[0], row[1], row[2] if row[2:] else 0.0) for key, row in state["waiting"].items()}
        self._spelling.load(state.get("spelling", {}))

    def _band(self, lane: str) -> Band:
        return self._bands.setdefault(lane, Band())

    def _limit(self, lane: str) -> float:
        return self._band(lane).limit(self._config, self._ceiling)

    def _has_moved(self, band: Band) -> bool:
        limit = band.limit(self._config, self._ceiling)
        if len(band.newest) < KNOWN or math.isinf(limit):
            return False
        above = [loss for loss in band.newest if limit < loss <= self._ceiling]
        return len(above) > KNOWN / 2

    def _wait(self, key: str, lane: str, loss: float, found: float) -> None:
        self.waiting[key] = (lane, loss, found)
        if len(self.waiting) > WAITING:
            del self.waiting[next(iter(self.waiting))]

    def _readmit(self, moved: set[str]) -> list[str]:
        back = [
            key
            for key, (lane, loss, found) in self.waiting.items()
            if (found or lane in moved) and not self._spelling.is_noise(lane, found) and loss <= self._limit(lane)
        ]
        for key in back:
            del self.waiting[key]
        return back


@dataclass
class Spikes:
    """Tells a gradient that may be applied from one that may not."""

    factor: float
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=NORMS))
    skipped: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def accepts(self, norm: float) -> bool:
        """Whether a gradient of this norm is applied; remembers the answer."""
        known = len(self.norms) >= KNOWN
        good = math.isfinite(norm) and not (known and norm > self.factor * median(self.norms))
        if good:
            self.norms.append(norm)
        self.skipped.append(not good)
        return good

    @property
    def lost(self) -> bool:
        """Three skips in twenty steps: back to the last published version."""
        return sum(self.skipped) >= SKIPS

    def clear(self) -> None:
        """Start again after a rollback."""
        self.norms.clear()
        self.skipped.clear()
