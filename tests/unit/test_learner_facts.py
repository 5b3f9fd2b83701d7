from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch

from learner.adapter import Tree
from learner.supersede import FactChanges
from services.simulation.dialogue import Conversation, conversations
from services.simulation.policy import Fact, facts
from streams.events import Sample, Turn
from tests.bench._course import DEMO, Course, loss_on, shipped

STEPS, CHATS = 9, 6


def told(key: str, chat: Conversation) -> tuple[str, Sample]:
    turns = tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in chat.turns)  # type: ignore[arg-type]
    made = Sample(
        sample_id=key, conversation=chat.conversation_id, customer=chat.customer["id"], lane="chat", split="train",
        turns=turns, received_at=0.0, completed_at=0.0, agent_id=chat.customer["id"][-1],
    )  # fmt: skip
    return key, made


def preference(tree: Tree, fact: Fact) -> float:
    """Nats a token by which a version likes the new answer better than the old one."""
    rng = Random(5)
    asked = [(fact.question(rng), rng.randrange(1000)) for _ in range(8)]
    sides = [
        [[("customer", question), ("agent", fact.answer(Random(seed), changed=new))] for question, seed in asked]
        for new in (False, True)
    ]
    return loss_on(tree, sides[0]) - loss_on(tree, sides[1])


@dataclass
class Line:
    """A course that watches for changed facts."""

    course: Course
    known: FactChanges
    superseding: bool = True

    def learn(self, fact: Fact, seed: int, *, changed: bool) -> float:
        """Some steps of chats about a fact; gives the preference afterwards."""
        held = [fact] if changed else []
        chats = conversations(seed, 400, facts=held, shops=("harbour",), fact_share=1.0, personal=0.0)
        about = [chat for chat in chats if chat.intent == fact.name][: STEPS * CHATS]
        for at in range(0, len(about), CHATS):
            part, first = about[at : at + CHATS], self.course.told
            keys = self.known.observe([told(f"{first + nth:06x}", chat) for nth, chat in enumerate(part)])
            self.course.learn([chat.turns for chat in part])
            if self.superseding:
                self.course.forget(set(keys))
        return preference(self.course.tree(), fact)


def test_facts_that_change_are_answered_the_new_way(tmp_path: Path) -> None:
    """However it is asked and answered: the new answer wins with superseding; rehearsal alone keeps the old one."""
    torch.set_num_threads(1)
    fact = next(fact for fact in facts() if fact.name == "refund_days")
    base, anchors, _ = shipped(8, 48, tmp_path)
    config = replace(DEMO, warmup_steps=2, r=32, alpha=64)
    line = Line(Course(base, anchors, (0.25, 0.6, 0.15), average=2, config=config), FactChanges())
    assert line.learn(fact, 1, changed=False) < 0
    rehearsing = replace(deepcopy(line), superseding=False)
    after, rehearsed = line.learn(fact, 2, changed=True), rehearsing.learn(fact, 2, changed=True)
    assert after > 0
    assert after > rehearsed + 0.1
