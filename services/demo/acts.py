"""The acts of the demo, in order; each leaves what it saw in the evidence."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable

from confluent_kafka import Producer

from services.demo import chats
from services.demo.customers import Customers, Door, until
from services.demo.evidence import Evidence
from services.demo.figures import Figures
from services.demo.planted import Planted, Planter, refusals
from services.demo.screen import Screen
from services.demo.watch import Watch
from services.local.profile import SPEED
from services.local.stack import Stack
from services.topic_feed import producer_settings

ASK_RATE = 5.0
"""Conversations a second that come through the router."""
FIRST_VERSION_S = 80.0
NEW_FACT_S = 60.0
REFUSAL_S = 20.0
ROLLBACK_S = 40.0


class Acts:
    """One run: its processes, its customers, and what was seen of them."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
        self.args = args
        self.stack = stack
        self.screen = screen
        self.evidence = evidence
        self.settings = settings = stack.settings
        self.fact = chats.changing_fact()
        self.file = stack.directory / "chats.jsonl"
        self.truth = chats.write_chats(self.file, args.seed, self.fact)
        self.door = Door(stack.urls["router"], settings.keys.admin_token)
        self.watch = Watch(settings.kafka.client("demo"), screen.say)
        producer = Producer(producer_settings(settings.kafka.client("demo")))
        asked = chats.questions(args.seed + 100, ())
        self.customers = Customers(self.door, producer, asked, ASK_RATE, args.seed)
        self.damaged: Planted | None = None
        self.regression: Planted | None = None
        self._ingest: subprocess.Popen[bytes] | None = None

    def play(self) -> None:
        """Every act."""
        before = self.ask()
        self.screen.say(f"asked {self.question!r}: {before!r} (base model)")
        log = self.stack.directory / "logs/ingest.log"
        self._ingest = chats.ingest(self.file, SPEED, self.stack.environment(), log)
        changes_at = self.screen.seconds + self.truth.change_s / SPEED
        self.customers.start()
        planter = Planter(self.stack, self.settings)
        self.watched("a version is promoted", lambda: bool(self.watch.promoted()), FIRST_VERSION_S)
        self.watched("the policy changes in the chats", lambda: self.screen.seconds > changes_at, FIRST_VERSION_S)
        self.screen.say(f"asked {self.question!r}: {self.ask()!r} (learned before the policy changed)")
        self.customers.use(chats.questions(self.args.seed + 200, (self.fact,)))
        self.watched("the changed policy is answered the new way", self.knows_new_fact, NEW_FACT_S)
        self.evidence.facts.append(
            {"question": self.question, "answer_before": before, "answer_after": self.ask(), "expected": self.fact.new}
        )
        self.unchanged(planter)
        self.refused(planter)
        self.rolled_back(planter)
        self.customers.stop()
        self.drained()

    def unchanged(self, planter: Planter) -> None:
        """Offer the gate what is live already."""
        stable = self.watch.rollout.stable
        decision = planter.offer_unchanged(stable)
        self.evidence.check(
            "gate_refused_unchanged", f"{stable} against itself: {decision.verdict} ({decision.why})",
            passed=decision.verdict != "promote",
        )  # fmt: skip

    def refused(self, planter: Planter) -> None:
        """Publish a damaged adapter under a valid signature."""
        self.idle()
        self.damaged = planted = planter.publish_damaged(self.watch.rollout.stable)
        self.screen.say(f"planted {planted.version}: one tensor is NaN, signature valid")
        self.watched("the damaged adapter is refused", lambda: planted.version in self.watch.denied(), REFUSAL_S)
        reasons = refusals(self.watch.nodes, planted.version)
        seen = self.watch.denied().get(planted.version)
        why = seen.record.reason if seen else "not refused"
        self.evidence.rollout["refused"].append({"id": planted.version, "why": why})
        answers = sum(answer.version == planted.version for answer in self.customers.answers)
        self.evidence.check(
            "bad_adapter_refused", f"{planted.version}: {why}; nodes {reasons or 'have dropped it'}; {answers} answers",
            passed=seen is not None and "numbers" in f"{why} {reasons}" and not answers,
        )  # fmt: skip

    def rolled_back(self, planter: Planter) -> None:
        """Put an adapter that is worse with customers past the gate."""
        self.idle()
        self.regression = planted = planter.publish_regression(self.watch.rollout.stable, self.args.seed)
        self.screen.say(f"planted {planted.version}: trained on shuffled replies, put past the gate")
        self.watched("the regression is rolled back", lambda: planted.version in self.watch.denied(), ROLLBACK_S)
        seen = self.watch.denied().get(planted.version)
        started = next(
            (s.at for s in self.watch.rollouts if s.record.canary == planted.version and s.record.weight), None
        )
        answers = sum(answer.version == planted.version for answer in self.customers.answers)
        took = seen.at - started if seen and started else None
        if seen and took is not None:
            found = {"id": planted.version, "why": seen.record.reason, "seconds": round(took, 1), "answers": answers}
            self.evidence.rollout["rolled_back"].append(found)
        detail = f"after {took:.1f} s and {answers} answers" if took is not None else "not rolled back"
        self.evidence.check(
            "regression_rolled_back", f"{planted.version} {detail} ({seen.record.reason if seen else ''})",
            passed=took is not None and took <= ROLLBACK_S and answers > 0,
        )  # fmt: skip

    def idle(self) -> None:
        """Wait until no canary runs."""
        self.watched("the rollout is idle", lambda: self.watch.rollout.canary is None, 40)

    @property
    def question(self) -> str:
        """The question whose true answer changes."""
        return self.fact.questions(1)[0]

    def ask(self) -> str:
        """The live answer to it, not recorded."""
        return self.door.ask(self.question, f"probe-{self.screen.seconds:.3f}", recorded=False)[1]

    def knows_new_fact(self) -> bool:
        """Whether stable states the new value and not the old, however it is asked."""
        answers = [
            self.door.ask(q, f"probe-{self.screen.seconds:.4f}", recorded=False)[1] for q in self.fact.questions(3)
        ]
        return all(self.fact.states(answer) == "new" for answer in answers)

    def watched(self, what: str, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something while the figures move; says whether it came."""
        ports = self.stack.supervisor.ports()

        def look() -> bool:
            self.screen.figures(Figures(ports).rows())
            return condition()

        came = until(look, timeout_s, every_s=1.0)
        self.screen.say(what if came else f"not within {timeout_s:.0f} s: {what}", style="green" if came else "red")
        return came

    def drained(self) -> None:
        """Wait until the file is sent."""
        if self._ingest is not None:
            self.watched("every chat is sent", lambda: self._ingest is None or self._ingest.poll() is not None, 60)

    def close(self) -> None:
        """End what the demo itself started."""
        if self._ingest is not None and self._ingest.poll() is None:
            self._ingest.terminate()
            self._ingest.wait(10)
        self.watch.close()
        self.door.close()
