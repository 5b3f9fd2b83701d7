"""Guards against poison and spikes: which fresh examples wait apart, and which steps are not taken.

An example waits when its loss lies far above the running median of what its lane accepted, when its text is spelled
like none of its lane (`learner.spelling`), or when its words could as well stand in any other order
(`learner.word_order`). When a whole lane moves (a new topic), most of its newest examples lie above the band: then the
band moves to them and those that waited come back.
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
from learner.word_order import Surplus, WordOrder

HISTORY = 200
"""Accepted losses of a lane that its median looks back on."""

KNOWN = 16
"""Accepted losses before a lane has a band, and newest ones that tell whether a lane has moved."""

CHANCE = 0.95
"""A loss above this share of ln V is no better than guessing: odd while most of a learned lane are not."""

WAITING = 4096
"""Examples that may come back when their lane moves; older ones stay with the reviewers."""

NORMS = 50
"""Gradient norms that the running median looks back on, steps."""

WINDOW = 20
"""Steps in which three skips mean that the trajectory is lost."""

SKIPS = 3


@dataclass(frozen=True)
class Waiting:
    """An example that waits: its lane and loss, and the sign that speaks against it, if another one than the loss."""

    lane: str
    loss: float
    density: float = 0.0
    order: Surplus | None = None


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
        self._order = WordOrder(config.quarantine_order)
        self.waiting: dict[str, Waiting] = {}
        """By the key of a document."""

    def look(self, chosen: Sequence[Document]) -> None:
        """See a step's documents before they are judged: what is normal is known from the first batch on."""
        fresh = [one for one in chosen if one.drawn.component == "fresh"]
        self._spelling.look((one.drawn.lane, one.density) for one in fresh)
        self._order.look({one.drawn.key: (one.drawn.lane, one.said) for one in fresh if not self.is_noise(one)})

    def accepts(self, document: Document, loss: float) -> bool:
        """Whether a document may be trained on; rehearsal and anchors have passed before."""
        if document.drawn.component != "fresh":
            return True
        odd = self.is_noise(document) or self.is_salad(document)
        return not odd and loss <= self._limit(document.drawn.lane)

    def is_salad(self, document: Document) -> bool:
        """Whether a document's words might as well stand in another order."""
        found = self._order.found.get(document.drawn.key)
        return found is not None and self._order.is_salad(document.drawn.lane, found)

    def is_noise(self, document: Document) -> bool:
        """Whether a document is spelled like none of its lane."""
        return self._spelling.is_noise(document.drawn.lane, document.density)

    def observe(self, judged: Sequence[tuple[Document, float, bool]]) -> list[str]:
        """Learn what was normal from (document, loss, accepted); gives the keys that may come back."""
        moved = set[str]()
        for document, loss, accepted in judged:
            if document.drawn.component != "fresh":
                continue
            lane = document.drawn.lane
            if self.is_noise(document):
                self._wait(document.drawn.key, Waiting(lane, loss, density=document.density))
                continue
            if self.is_salad(document):
                self._wait(document.drawn.key, Waiting(lane, loss, order=self._order.found[document.drawn.key]))
                continue
            band = self._band(lane)
            band.newest.append(loss)
            if accepted:
                band.accepted.append(loss)
            else:
                self._wait(document.drawn.key, Waiting(lane, loss))
            if self._has_moved(band):
                band.accepted = deque(band.newest, maxlen=HISTORY)
                moved.add(lane)
        return self._readmit(moved)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what is known of erased examples."""
        self._order.forget(keys)
        for key in keys:
            self.waiting.pop(key, None)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        bands = {lane: [list(band.accepted), list(band.newest)] for lane, band in self._bands.items()}
        waiting = {key: [one.lane, one.loss, one.density, one.order] for key, one in self.waiting.items()}
        return {"bands": bands, "waiting": waiting, "spelling": self._spelling.state(), "order": self._order.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._bands = {
            lane: Band(deque(accepted, maxlen=HISTORY), deque(newest, maxlen=KNOWN))
            for lane, (accepted, newest) in state["bands"].items()
        }
        self.waiting = {
            key: Waiting(lane, loss, density, Surplus(*order) if isinstance(order, (list, tuple)) else None)
            for key, (lane, loss, density, order) in state["waiting"].items()
        }
        self._spelling.load(state.get("spelling", {}))
        self._order.load(state.get("order", {}))

    def _band(self, lane: str) -> Band:
        return self._bands.setdefault(lane, Band())

    def _limit(self, lane: str) -> float:
        return self._band(lane).limit(self._config, self._ceiling)

    def _has_moved(self, band: Band) -> bool:
        limit = band.limit(self._config, self._ceiling)
        if len(band.newest) < KNOWN or math.isinf(limit):
            return False
        # a base guesses at first at a topic that is far from its own: noise is told by its letters and its order
        return sum(loss > limit for loss in band.newest) > KNOWN / 2

    def _wait(self, key: str, waiting: Waiting) -> None:
        self.waiting[key] = waiting
        if len(self.waiting) > WAITING:
            del self.waiting[next(iter(self.waiting))]

    def _readmit(self, moved: set[str]) -> list[str]:
        back = [key for key, one in self.waiting.items() if self._may_return(one, moved)]
        for key in back:
            del self.waiting[key]
        return back

    def _may_return(self, one: Waiting, moved: set[str]) -> bool:
        if one.order is not None:
            was, still = True, self._order.is_salad(one.lane, one.order)
        else:
            was, still = one.density > 0, self._spelling.is_noise(one.lane, one.density)
        return (was or one.lane in moved) and not still and one.loss <= self._limit(one.lane)


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
