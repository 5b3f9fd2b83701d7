"""What customers are served while a line learns, with the gate and without: one trajectory, two rules of publishing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean

from learner.adapter import Base, Tree
from learner.anchors import Anchors
from learner.gate import Account, Paired, Scores, decide, demo_limits
from services.simulation.dialogue import conversations
from tests.bench._course import DEMO, Chat, Course, Held, losses_on

CHATS = 280
VAL, TEST = 64, 48
STEP = 8
LOOK = 5
"""Steps between candidates, those between snapshots."""

SLIP = range(20, 25)
"""Steps at a learning rate that somebody got wrong, which neither filter nor guards see."""

TIMES = 20
"""By how much it was too high."""


@dataclass
class Live:
    """The version that customers have under one rule."""

    val: list[float]
    """Its loss on each validation chat, nats a token."""
    test: float
    """Its loss on test chats."""
    seen: list[float] = field(default_factory=list)
    """The test loss after each look."""
    versions: int = 0
    worse: int = 0
    """Versions that were worse on test chats than the one they replaced."""
    account: Account = field(default_factory=Account)

    def replace(self, val: list[float], test: float) -> None:
        """A candidate goes live."""
        self.versions += 1
        self.worse += test > self.test
        self.val, self.test = val, test


def gated(live: Live, val: list[float]) -> bool:
    """Whether the gate promotes a candidate."""
    decision = decide(Scores(Paired(tuple(live.val), tuple(val))), live.account, demo_limits())
    live.account = decision.account
    return decision.verdict == "promote"


def always(_live: Live, _val: list[float]) -> bool:
    """No gate: what was learned goes live."""
    return True


RULES: dict[str, Callable[[Live, list[float]], bool]] = {"with the gate": gated, "without gate": always}


def served(base: Base, anchors: Anchors) -> list[list[str]]:
    """A row for each rule: versions, worse ones, and the loss of what customers had: mean, largest rise, last."""
    told = conversations(11, CHATS + VAL + TEST, shops=("harbour",), personal=0.0)
    chats: list[Chat] = [chat.turns for chat in told]
    train, val, test = chats[:CHATS], chats[CHATS : CHATS + VAL], chats[CHATS + VAL :]
    course = Course(base, anchors, (0.25, 0.5, 0.25))
    before = _each(losses_on(Tree(base), val)), _whole(losses_on(Tree(base), test))
    lives = {name: Live(*before) for name in RULES}
    for at in range(CHATS // STEP):
        rate = DEMO.learning_rate * (TIMES if at in SLIP else 1)
        course.trajectory.config = replace(course.trajectory.config, learning_rate=rate)
        course.learn(train[at * STEP : (at + 1) * STEP])
        if (at + 1) % LOOK:
            continue
        tree = course.tree()
        candidate = _each(losses_on(tree, val)), _whole(losses_on(tree, test))
        for name, live in lives.items():
            if RULES[name](live, candidate[0]):
                live.replace(*candidate)
            live.seen.append(live.test)
    return [[name, *_cells(live)] for name, live in lives.items()]


def _cells(live: Live) -> list[str]:
    rises = [late - early for early, late in zip(live.seen, live.seen[1:], strict=False)]
    return [
        str(live.versions), str(live.worse), f"{fmean(live.seen):.2f}", f"{max(*rises, 0.0):+.2f}",
        f"{live.seen[-1]:.2f}",
    ]  # fmt: skip


def _each(held: list[Held]) -> list[float]:
    return [loss / max(tokens, 1) for loss, tokens in held]


def _whole(held: list[Held]) -> float:
    return sum(loss for loss, _ in held) / max(sum(tokens for _, tokens in held), 1)
