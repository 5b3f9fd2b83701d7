"""Exposures and outcomes of one rollout, in the one order that keeps the tests exact; rollout.md 4.2.

Conversations are fed sorted by (exposure time, id), each when its window has closed for sure, whether its outcome
came early or late: in order of arrival the tests would be void. Each metric has its own window, so its own cursor.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

import msgspec

from learner.evalues import HarmTest, NonInferiority, SampleRatio
from services.serving_config import RolloutConfig
from streams.rollout_events import Arm, Exposure, Metric, Outcome

Key = tuple[float, str]
"""Exposure time and conversation: the order of feeding."""

FIRST: Key = (0.0, "")


@dataclass
class _Open:
    """A conversation whose windows are not all closed."""

    arm: Arm
    p: float
    degraded: bool
    outcomes: dict[Metric, tuple[float, bool]] = field(default_factory=dict)


class Kept(msgspec.Struct):
    """All that a restart needs, besides the records from the oldest open conversation on."""

    rollout_id: str
    harm: dict[str, dict[str, Any]]
    promotion: dict[str, dict[str, Any]]
    srm: dict[str, Any]
    srm_late: dict[str, Any]
    cursors: dict[str, Key]
    last_p: float
    left_out: list[str]
    matured: dict[str, int]


class Evidence:
    """The tests of one rollout and the conversations that are still open."""

    def __init__(self, config: RolloutConfig, rollout_id: str, kept: Kept | None = None) -> None:
        self.rollout_id = rollout_id
        self._config = config
        self._windows = {metric: config.windows_s[metric] for metric in config.metrics}
        self.harm = {metric: HarmTest() for metric in config.metrics}
        self.promotion = {metric: NonInferiority(config.margins[metric]) for metric in config.metrics}
        self.srm = SampleRatio()
        self.srm_late = SampleRatio()
        self.matured: dict[str, int] = {"candidate": 0, "control": 0}
        """Conversations whose every window has closed."""
        self.late: dict[str, int] = {"candidate": 0, "control": 0}
        """Outcomes that came after their window, by arm; counted, never used."""
        self._cursors: dict[Metric, Key] = dict.fromkeys(config.metrics, FIRST)
        self._last_p = -1.0
        self._left_out: set[str] = set()
        self._open: dict[str, _Open] = {}
        self._order: list[Key] = []
        self._early: dict[str, list[Outcome]] = {}
        self._done: dict[str, tuple[float, Arm]] = {}
        self.newest = 0.0
        """Time of the newest exposure."""
        if kept is not None and kept.rollout_id == rollout_id and set(kept.harm) == set(config.metrics):
            self._restore(kept)

    def expose(self, exposure: Exposure, *, replayed: bool = False) -> None:
        """Take in an exposure; the first one of a conversation counts. `replayed`: it was read before a restart."""
        if exposure.rollout_id != self.rollout_id:
            return
        self.newest = max(self.newest, exposure.ts)
        known = self._open.get(exposure.conversation_id)
        if known is not None:
            known.degraded = known.degraded or exposure.degraded
            return
        if exposure.conversation_id in self._done:
            return
        key = (exposure.ts, exposure.conversation_id)
        if exposure.conversation_id in self._left_out or key <= min(self._cursors.values()):
            if not replayed:
                self._leave_out(exposure)
            return
        if not replayed and key <= max(self._cursors.values()):
            self._leave_out(exposure)
            return
        self._open[exposure.conversation_id] = _Open(exposure.arm, exposure.p, exposure.degraded)
        bisect.insort(self._order, key)
        for outcome in self._early.pop(exposure.conversation_id, ()):
            self.observe(outcome)

    def observe(self, outcome: Outcome) -> None:
        """Take in an outcome; the first one of a conversation and metric counts, by its own time."""
        if outcome.metric not in self._windows:
            return
        known = self._open.get(outcome.conversation_id)
        if outcome.conversation_id in self._done:
            ts, arm = self._done[outcome.conversation_id]
            self.late[arm] += outcome.bad and outcome.event_ts > ts + self._windows[outcome.metric]
            return
        if known is None:
            self._early.setdefault(outcome.conversation_id, []).append(outcome)
            return
        earlier = known.outcomes.get(outcome.metric)
        if earlier is None or outcome.event_ts < earlier[0]:
            known.outcomes[outcome.metric] = (outcome.event_ts, outcome.bad)

    def advance(self, watermark: float) -> None:
        """Feed every conversation whose window has closed by `watermark`, in order."""
        shortest = min(self._windows, key=lambda metric: self._windows[metric])
        longest = max(self._windows, key=lambda metric: self._windows[metric])
        for metric, window in self._windows.items():
            closed = bisect.bisect_left(self._order, (watermark - window - self._config.grace_s, ""))
            start = bisect.bisect_right(self._order, self._cursors[metric])
            for key in self._order[start:closed]:
                self._feed(metric, key, srm=metric is shortest, last=metric is longest)
                self._cursors[metric] = key
        self._forget(watermark)

    def oldest_open(self) -> float | None:
        """Exposure time of the oldest conversation that a restart must read again; None when there is none."""
        return self._order[0][0] if self._order else None

    def harmed(self) -> Metric | None:
        """A metric on which harm is proven."""
        found = (m for m, test in self.harm.items() if test.alarm(len(self.harm), self._config.alpha))
        return next(found, None)

    def uneasy(self, threshold: float) -> bool:
        """Some harm e-value is at least `threshold`: no reason to blame, but none to go on."""
        return any(test.alarm(1, 1 / threshold) for test in self.harm.values())

    def proven(self) -> bool:
        """Every metric is non-inferior at its margin."""
        return all(test.proven(self._config.alpha) for test in self.promotion.values())

    def skewed(self) -> bool:
        """The split cannot be the one that was drawn: some conversations of an arm are missing."""
        return self.srm.alarm(self._config.srm_alarm) or self.srm_late.alarm(self._config.srm_alarm)

    def keep(self) -> Kept:
        """The state for a checkpoint."""
        return Kept(
            rollout_id=self.rollout_id,
            harm={metric: _fields(test) for metric, test in self.harm.items()},
            promotion={metric: _fields(test) for metric, test in self.promotion.items()},
            srm=_fields(self.srm),
            srm_late=_fields(self.srm_late),
            cursors={str(metric): key for metric, key in self._cursors.items()},
            last_p=self._last_p,
            left_out=sorted(self._left_out),
            matured=dict(self.matured),
        )

    def _restore(self, kept: Kept) -> None:
        self.harm = {metric: HarmTest(**kept.harm[metric]) for metric in self._windows}
        self.promotion = {metric: NonInferiority(**kept.promotion[metric]) for metric in self._windows}
        self.srm, self.srm_late = SampleRatio(**kept.srm), SampleRatio(**kept.srm_late)
        self._cursors = {metric: kept.cursors[metric] for metric in self._windows}
        self._last_p, self._left_out, self.matured = kept.last_p, set(kept.left_out), dict(kept.matured)

    def _leave_out(self, exposure: Exposure) -> None:
        """Too late for its slot: out of the tests, but not out of sight."""
        self._left_out.add(exposure.conversation_id)
        if not exposure.degraded:
            self.srm_late.update(candidate=exposure.arm == "candidate", p=exposure.p)

    def _feed(self, metric: Metric, key: Key, *, srm: bool, last: bool) -> None:
        found = self._open[key[1]]
        if found.degraded:
            return
        candidate = found.arm == "candidate"
        if srm:
            if found.p != self._last_p:
                self._last_p = found.p
                self.srm.restart()
            self.srm.update(candidate=candidate, p=found.p)
        when, bad = found.outcomes.get(metric, (0.0, False))
        if bad and when > key[0] + self._windows[metric]:
            self.late[found.arm] += 1
            bad = False
        self.harm[metric].update(candidate=candidate, bad=bad, p=found.p)
        self.promotion[metric].update(candidate=candidate, bad=bad, p=found.p)
        if last:
            self.matured[found.arm] += 1

    def _forget(self, watermark: float) -> None:
        """Drop what every metric has seen, and outcomes of conversations that are none of ours."""
        done = bisect.bisect_right(self._order, min(self._cursors.values()))
        for ts, conversation in self._order[:done]:
            self._done[conversation] = (ts, self._open.pop(conversation).arm)
        del self._order[:done]
        horizon = watermark - max(self._windows.values()) - 2 * self._config.grace_s
        for conversation in [c for c, found in self._early.items() if found[-1].event_ts < horizon]:
            del self._early[conversation]


def _fields(test: HarmTest | NonInferiority | SampleRatio) -> dict[str, Any]:
    return {name: getattr(test, name) for name in test.__dataclass_fields__}
