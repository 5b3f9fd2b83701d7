"""The acts of the demo, in order; each leaves what it saw in the evidence."""

from __future__ import annotations

import argparse
import time

import httpx
from confluent_kafka import Producer

from services.demo import chats
from services.demo.customers import Answer, Customers
from services.demo.evidence import Evidence
from services.demo.planted import Planter, refusals
from services.demo.run import Run
from services.demo.screen import Screen
from services.local.profile import SPEED
from services.local.stack import Stack
from services.topic_feed import producer_settings

FIRST_RATE = 2.0
"""Conversations a second while only the base answers."""
ASK_RATE = 14.0
"""The same while a canary is compared with stable."""
CALM_RATE = 4.0
"""The same in between: what is rated then comes too late for the last version."""
PLANTED_RATE = 12.0
"""The same once the learner has left its core to the nodes."""
WATCHED = 0.7
"""Share of unsuitable answers that agents correct while bad candidates are planted, and every reaction is told."""
FIRST_VERSION_S = 70.0
NEW_FACT_S = 50.0
LEARNED_S = 8.0
"""What has been judged on chats so long after the change has seen the afternoon's rush, seconds."""
REFUSAL_S = 20.0
ROLLBACK_S = 40.0


class Acts(Run):
    """The simulated shops: a policy changes half-way, and three bad candidates are planted."""

    planting = False
    """Whether the learner has ended, and what is offered now is planted."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
        super().__init__(args, stack, screen, evidence)
        self.fact = chats.changing_fact()
        self.file = stack.directory / "chats.jsonl"
        self.truth = chats.write_chats(self.file, args.seed, self.fact)
        self.personal = {value: kind for kind, value in self.truth.personal}
        producer = Producer(producer_settings(self.settings.kafka.asked_once("demo")))
        self._states_new: dict[str, bool] = {}
        asked = chats.questions(args.seed + 100, ())
        self.customers = Customers(self.door, producer, asked, self.rate, args.seed)

    @property
    def answers(self) -> list[Answer]:
        """What the simulated customers got."""
        return self.customers.answers

    def play(self) -> None:
        """Every act."""
        _, before = self.ask()
        self.screen.say(f"asked {self.question!r}: {before!r} (base model)")
        self.stream(SPEED)
        changes_at = self.screen.seconds + self.truth.change_s / SPEED
        self.customers.start()
        planter = Planter(self.stack, self.settings)
        self.watched("a version is published", lambda: bool(self.watch.versions), FIRST_VERSION_S)
        self.watched("the policy changes in the chats", lambda: self.screen.seconds > changes_at, FIRST_VERSION_S)
        changed = time.clock_gettime(time.CLOCK_REALTIME)
        self.customers.use(chats.questions(self.args.seed + 200, (self.fact,)))
        self.watched("a version is promoted", lambda: bool(self.watch.promoted()), FIRST_VERSION_S)
        self.screen.say(f"asked {self.question!r}: {self.ask()[1]!r} (first version)")
        self.watched("a version answers the changed policy the new way", lambda: self.learned(changed), NEW_FACT_S)
        self.stack.supervisor.end("learn")
        self.screen.say("the learner is stopped: its last version goes its way, what follows is planted")
        self.planting = True
        planter.prepare_regression(self.watch.rollout.stable, self.args.seed)
        self.idle()
        self.customers.voiced, self.customers.edited = 1.0, WATCHED
        _, after = self.ask()
        self.screen.say(f"asked {self.question!r}: {after!r}")
        self.evidence.facts.append(
            {"question": self.question, "answer_before": before, "answer_after": after, "expected": self.fact.new}
        )
        if self.watch.promoted():
            self.unchanged(planter)
            self.refused(planter)
            self.rolled_back(planter)
        else:
            for name in ("gate_refused_unchanged", "bad_adapter_refused", "regression_rolled_back"):
                self.evidence.check(name, "not tried: no version was ever promoted", passed=False)
        self.customers.stop()
        self.watched("every chat is sent", lambda: not self.streaming, 60)

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
        planted = planter.publish_damaged(self.watch.rollout.stable)
        self.planted |= {planted.version}
        self.screen.say(f"planted {planted.version}: one tensor is NaN, signature valid")
        self.watched("the damaged adapter is refused", lambda: planted.version in self.watch.denied(), REFUSAL_S)
        reasons = refusals(self.watch.nodes, planted.version)
        seen = self.watch.denied().get(planted.version)
        why = seen.record.reason if seen else "not refused"
        self.evidence.rollout["refused"].append({"id": planted.version, "why": why})
        answers = sum(answer.version == planted.version for answer in self.answers)
        self.evidence.check(
            "bad_adapter_refused", f"{planted.version}: {why}; nodes {reasons or 'have dropped it'}; {answers} answers",
            passed=seen is not None and "numbers" in f"{why} {reasons}" and not answers,
        )  # fmt: skip

    def rolled_back(self, planter: Planter) -> None:
        """Put an adapter that is worse with customers past the gate."""
        self.idle()
        planted = planter.publish_regression(self.watch.rollout.stable)
        self.planted |= {planted.version}
        self.screen.say(f"planted {planted.version}: trained on shuffled replies, put past the gate")
        self.watched("the regression is rolled back", lambda: planted.version in self.watch.denied(), ROLLBACK_S)
        seen = self.watch.denied().get(planted.version)
        started = next(
            (s.at for s in self.watch.rollouts if s.record.canary == planted.version and s.record.weight), None
        )
        answers = sum(answer.version == planted.version for answer in self.answers)
        took = seen.at - started if seen and started else None
        if seen and took is not None:
            found = {"id": planted.version, "why": seen.record.reason, "seconds": round(took, 1), "answers": answers}
            self.evidence.rollout["rolled_back"].append(found)
        detail = f"after {took:.1f} s and {answers} answers" if took is not None else f"served {answers} answers on"
        suited = {
            role: [a.fits for a in self.answers if a.version == version]
            for role, version in (("it", planted.version), ("stable", self.watch.rollout.stable))
        }
        detail += "".join(f", {sum(fits)} of {len(fits)} answers of {role} suited" for role, fits in suited.items())
        self.evidence.check(
            "regression_rolled_back", f"{planted.version} {detail} ({seen.record.reason if seen else ''})",
            passed=took is not None and took <= ROLLBACK_S and answers > 0,
        )  # fmt: skip

    def rate(self) -> float:
        """Conversations a second that come through the router: more while a canary waits for them."""
        if self.planting:
            return PLANTED_RATE
        if not self.watch.versions:
            return FIRST_RATE
        return ASK_RATE if self.watch.rollout.canary else CALM_RATE

    def idle(self) -> None:
        """Wait until no canary runs and none is about to."""
        self.watched("the rollout is idle", lambda: self.watch.idle, 40)

    @property
    def question(self) -> str:
        """The question whose true answer changes."""
        return self.fact.questions(1)[0]

    def ask(self, model: str = "driftline") -> tuple[str, str]:
        """Who answers it, live or a version, and how; not recorded."""
        return self.door.ask(self.question, f"probe-{self.screen.seconds:.4f}", recorded=False, model=model)[:2]

    def learned(self, moment: float) -> bool:
        """Whether the newest version states the new value, and the afternoon's rush has been learned and judged."""
        newest = max(self.watch.versions.values(), key=lambda version: version.id, default=None)
        if newest is None or self.watch.judged_to(newest.id) <= moment + LEARNED_S:
            return False
        if newest.id not in self._states_new:  # once a version: customers are asking too
            try:
                served, answer = self.ask(newest.id)
            except httpx.HTTPStatusError:
                return False
            if served != newest.id:  # no node has it yet
                return False
            self._states_new[newest.id] = self.fact.states(answer) == "new"
        return self._states_new[newest.id]
