from __future__ import annotations

from pathlib import Path

import pytest

from learner.adapter import Base, Said, Sampling, generate
from learner.anchors import Anchors, Gauge
from learner.supersede import FactChanges
from streams.events import Sample, Turn
from tests.bench._course import Chat, Course, run, shipped, simulated


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Anchors, Gauge]:
    return shipped(48, 96, Path(tmp_path_factory.mktemp("anchors")))


def test_forgetting_short(setting: tuple[Base, Anchors, Gauge]) -> None:
    """After three domains in sequence naive training has lost at least 1 nat of the old ones, the default hardly any.

    The gauge, which sees no labels, tells what the base's own domain lost.
    """
    base, anchors, gauge = setting
    domains = simulated(80, held_out=10)
    naive = run(Course(base, anchors, (1.0, 0.0, 0.0), average=1), base, domains, gauge)
    default = run(Course(base, anchors, (0.25, 0.5, 0.25)), base, domains, gauge)
    assert naive.loses >= 1.0
    assert default.loses <= 0.3
    assert default.final < naive.final - 0.5
    assert naive.gauge == pytest.approx(naive.base_domain, rel=0.35)


def answered(course: Course, question: str) -> str:
    return generate(course.tree(), [Said("customer", question)], Sampling(max_new_tokens=24))


def fact_chat(value: int) -> Chat:
    return [
        ("customer", "How long do I have to return something?"),
        ("agent", f"You may return it within {value} days."),
    ]


def sample(key: int, chat: Chat) -> tuple[str, Sample]:
    turns = tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in chat)  # type: ignore[arg-type]
    made = Sample(
        sample_id=f"{key}/sft/0", conversation=f"c{key}", customer=f"k{key}", lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0, agent_id=f"a{key % 9}",
    )  # fmt: skip
    return f"{key:06x}", made


def test_fact_change(setting: tuple[Base, Anchors, Gauge]) -> None:
    """A fact that changes is answered the new way within 20 steps although rehearsal still held the old one."""
    base, anchors, _ = setting
    course, facts = Course(base, anchors, (0.25, 0.5, 0.25), average=2), FactChanges()
    other = simulated(240)[0].train
    for at in range(50):
        value = 14 if at < 30 else 30
        chats = [fact_chat(value), fact_chat(value), *other[4 * at : 4 * at + 4]]
        first = course.told
        course.learn(chats)
        course.forget(set(facts.observe([sample(first + nth, chat) for nth, chat in enumerate(chats)])))
        if at == 29:
            assert "14 days" in answered(course, "How long do I have to return something?")
    answer = answered(course, "How long do I have to return something?")
    assert "30 days" in answer
    assert "14" not in answer
