"""Guards against poison and spikes: which fresh examples wait apart, and which steps are not taken.

An example waits when its loss lies far above the running median of what its lane accepted: gibberish does. When a
whole lane moves (a new topic), most of its newest examples lie above the band: then the band moves to them and those
that waited come back.
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

HISTORY = 200
"""Accepted losses of a lane that its median looks back on."""

KNOWN = 16
"""Accepted losses before a lane has a band, and newest ones that tell whether a lane has moved."""

CHANCE = 0.95
"""A loss above this share of ln V is no better than guessing."""

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
        self.waiting: dict[str, tuple[str, float]] = {}
        """Key of a document that waits -> its lane and loss."""

    def accepts(self, document: Document, loss: float) -> bool:
        """Whether a document may be trained on; rehearsal and anchors have passed before."""
        if document.drawn.component != "fresh":
            return True
        return loss <= self._band(document.drawn.lane).limit(self._config, self._ceiling)

    def observe(self, judged: Sequence[tuple[Document, float, bool]]) -> list[str]:
        """Learn what was normal from (document, loss, accepted); gives the keys that may come back."""
        moved: set[str] = set()
        for document, loss, accepted in judged:
            if document.drawn.component != "fresh":
                continue
            lane = document.drawn.lane
            band = self._band(lane)
            band.newest.append(loss)
            if accepted:
                band.accepted.append(loss)
            else:
                self.waiting[document.drawn.key] = (lane, loss)
            if self._has_moved(band):
                band.accepted = deque(band.newest, maxlen=HISTORY)
                moved.add(lane)
        return [key for lane in sorted(moved) for key in self._readmit(lane)]

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what is known of erased examples."""
        for key in keys:
            self.waiting.pop(key, None)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        bands = {lane: [list(band.accepted), list(band.newest)] for lane, band in self._bands.items()}
        return {"bands": bands, "waiting": {key: list(value) for key, value in self.waiting.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._bands = {
            lane: Band(deque(accepted, maxlen=HISTORY), deque(newest, maxlen=KNOWN))
            for lane, (accepted, newest) in state["bands"].items()
        }
        self.waiting = {key: (lane, loss) for key, (lane, loss) in state["waiting"].items()}

    def _band(self, lane: str) -> Band:
        return self._bands.setdefault(lane, Band())

    def _has_moved(self, band: Band) -> bool:
        limit = band.limit(self._config, self._ceiling)
        if len(band.newest) < KNOWN or math.isinf(limit):
            return False
        above = [loss for loss in band.newest if limit < loss <= self._ceiling]
        return len(above) > KNOWN / 2

    def _readmit(self, lane: str) -> list[str]:
        limit = self._band(lane).limit(self._config, self._ceiling)
        back = [key for key, (where, loss) in self.waiting.items() if where == lane and loss <= limit]
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
