"""The thread beside the loop that judges candidates: the newest is taken, older ones are dropped, steps go on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Protocol

from learner.gate import Decision
from learner.publish import Judged
from learner.train import BASE, Candidate, Kind, Notice

HARM = ("slice", "golden", "pinned", "tail", "safety", "memorisation", "fairness")
"""Guards whose refusal sends the trajectory back to stable."""


class Judging(Protocol):
    """What judges; learner.publish.Judge is one."""

    def consider(self, candidate: Candidate, against: str, /) -> Judged:
        """Decide and publish."""

    def reconsider(self, version: str, stable: str, /) -> Decision:
        """Decide again about a published version."""

    def promoted(self, version: str) -> None:
        """A version became stable."""

    def forget(self) -> None:
        """Drop what is cached of erased customers."""


class Worker:
    """Runs a judge; `done` hears of every decision, `again` of a published version's second one, `failed` of errors."""

    def __init__(
        self, judge: Judging, notify: Callable[[Notice], None], *, done: Callable[[Judged], None],
        again: Callable[[str, str, Decision], None], failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self._judge = judge
        self._notify = notify
        self._done = done
        self._again = again
        self._failed = failed
        self._changed = Condition()
        self._candidate: Candidate | None = None
        self._stopping = self._erased = False
        self._stable = self._known = BASE
        self._canary: str | None = None
        self._denied: frozenset[str] = frozenset()
        self._published: tuple[str, str] | None = None
        self.judging = False
        """Whether a candidate is being judged, or waits to be."""
        self.dropped = 0
        """Candidates that a newer one replaced before they were judged."""
        self._thread = Thread(target=self._work, name="judge", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, candidate: Candidate) -> None:
        """Hand over a candidate; never waits."""
        with self._changed:
            self.dropped += self._candidate is not None
            self._candidate, self.judging = candidate, True
            self._changed.notify()

    def rollout(self, stable: str, canary: str | None, denied: frozenset[str]) -> None:
        """What customers have, what some of them try, and which versions may never come back."""
        with self._changed:
            self._stable, self._canary, self._denied = stable, canary, denied
            self._changed.notify()

    def erased(self) -> None:
        """Customers were erased: the candidate at hand and every cached score may hold them."""
        with self._changed:
            self._candidate, self._published, self._erased = None, None, True
            self._changed.notify()

    def stop(self, timeout_s: float) -> bool:
        """Decide about what was offered, at most so long. Whether the thread has ended."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self.judging = self._candidate is not None
                self._changed.wait_for(self._due)
                if self._stopping and self._candidate is None:
                    return
                candidate, self._candidate = self._candidate, None
                stable, denied, changed = self._stable, self._denied, self._stable != self._known
                self._known, erased, self._erased = stable, self._erased, False
                # its turn comes when the canary is stable; if that is rolled back, so is what descends from it
                against = self._canary or stable
            try:
                if erased:
                    self._judge.forget()
                if changed:
                    self._stable_changed(stable, denied)
                if candidate is not None and candidate.parent not in denied:
                    self._judged(self._considered(candidate, against))
            except Exception as error:  # noqa: BLE001 - a gate or registry that fails costs versions, not steps
                self._failed(error)

    def _due(self) -> bool:
        return self._stopping or self._erased or self._candidate is not None or self._stable != self._known

    def _considered(self, candidate: Candidate, against: str) -> Judged:
        try:
            return self._judge.consider(candidate, against)
        except Exception:
            self._notify(Notice("failed", candidate.name, candidate.steps[1], candidate.run))
            raise

    def _judged(self, judged: Judged) -> None:
        candidate, decision = judged.candidate, judged.decision
        if judged.version is not None:
            self._published = (judged.version, judged.gated_against)
            kind: Kind = "published"
        elif decision.verdict == "refuse" and _harmful(decision):
            kind = "harmful"
        else:
            kind = "unproven" if decision.looked else "postponed"
        self._notify(Notice(kind, judged.version or candidate.name, candidate.steps[1], candidate.run))
        for entry in judged.decision.evidence:
            if entry.guard == "gauge" and entry.outcome == "abstain":
                self._notify(Notice("drifted", judged.candidate.name))
            elif entry.guard == "gauge" and entry.outcome == "pass" and entry.value < entry.limit / 2:
                self._notify(Notice("settled", judged.candidate.name))
        self._done(judged)

    def _stable_changed(self, stable: str, denied: frozenset[str]) -> None:
        if stable != BASE:
            self._judge.promoted(stable)
        if self._published is None:
            return
        version, against = self._published
        if stable not in {version, against} and version not in denied:
            decision = self._judge.reconsider(version, stable)
            self._published = (version, stable)
            self._again(version, stable, decision)


def _harmful(decision: Decision) -> bool:
    return any(entry.outcome == "refuse" and entry.guard.split()[0] in HARM for entry in decision.evidence)
