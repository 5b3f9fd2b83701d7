"""Heads that learn beside a line: their gradient, what reaches the adapter, and what the model card says of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from learner.adapter import Base, Tree, load_base, new_lora, tree_of
from learner.batch import Document, Drawn, Heard, documents
from learner.config import TrainConfig
from learner.gate import Account, Decision
from learner.head_check import check
from learner.heads import read_head
from learner.labels import classes_of, sentiment
from learner.online_heads import MOST, Heads
from learner.records import Records
from learner.update import Trajectory, new_trajectory, step
from streams.events import Label, Sample, Turn
from tests.adapters import Publisher
from tests.bases import tiny_base

CONFIG = TrainConfig(learning_rate=5e-3, warmup_steps=2, r=8, alpha=16)
WORDS = {"refund": ("money", "refund", "back"), "device": ("printer", "broken", "light")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny base with random weights."""
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def sample(number: int, *, label: Label = "unknown") -> Sample:
    """A chat whose first turn holds words of its topic."""
    topic = sorted(WORDS)[number % 2]
    text = " ".join(random.Random(number).choices(WORDS[topic], k=4))
    turns = (
        Turn(role="customer", text=text),
        Turn(role="agent", text="please wait", is_target=True, label=label),
        Turn(role="customer", text="thank you so much" if number % 3 else "that did not help"),
        Turn(role="agent", text="you are welcome", is_target=True),
    )
    return Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=f"k{number}", lane="chat", split="train",
        turns=turns, received_at=0.0, completed_at=0.0, topic=topic,
    )  # fmt: skip


def drawn(base: Base, number: int, config: TrainConfig = CONFIG) -> list[Document]:
    """The sample as documents of a step."""
    return documents(base.chat, sample(number), Drawn("fresh", f"{number:04x}", lane="chat"), config)


def trained(base: Base, steps: int, config: TrainConfig = CONFIG) -> Trajectory:
    """A cold start and so many steps of eight chats."""
    lora = new_lora(base.shape, config.r, config.alpha, torch.Generator().manual_seed(0))
    trajectory = new_trajectory(lora, base.shape.vocab, config)
    for at in range(steps):
        step(base, trajectory, [one for number in range(8 * at, 8 * at + 8) for one in drawn(base, number, config)])
    return trajectory


def test_labels_say_what_the_stream_knows() -> None:
    """A reply's label speaks of the turn behind it, else its own words do; the topic belongs to the first turn."""
    assert classes_of(sample(1)) == [
        (("sentiment", "neutral"), ("intent", "refund")), (), (("sentiment", "positive"),), (),
    ]  # fmt: skip
    assert sentiment(sample(3).turns, 2) == "negative"
    assert sentiment(sample(3, label="good").turns, 2) == "positive"
    assert classes_of(replace_topic(sample(1), "other"))[0] == (("sentiment", "neutral"),)


def replace_topic(found: Sample, topic: str) -> Sample:
    """The sample about something else."""
    return Sample(**{name: getattr(found, name) for name in found.__struct_fields__} | {"topic": topic})


@given(st.lists(st.sampled_from(["customer", "agent"]), min_size=1, max_size=12), st.integers(6, 80))
def test_batch_every_customer_turn_is_heard_at_its_end(base: Base, roles: list[str], limit: int) -> None:
    """Whatever the cuts, a turn is heard at most once and always at an end-of-turn token; uncut, every turn is."""
    turns = tuple(
        Turn(role="customer" if role == "customer" else "agent", text="hello there", is_target=role == "agent")
        for role in roles
    )
    chat = Sample(
        sample_id="e/sft/0", conversation="c", customer="k", lane="chat", split="train", turns=turns, received_at=0.0,
        completed_at=0.0, topic="refund",
    )  # fmt: skip
    made = documents(base.chat, chat, Drawn("fresh", "00"), replace(CONFIG, document_tokens=limit))
    heard = [(document, one) for document in made for one in document.heard]
    assert all(document.ids[one.at] == base.chat.stop_id for document, one in heard)
    last = max((at for at, role in enumerate(roles) if role == "agent"), default=0)
    asked = roles[:last].count("customer")
    assert len(heard) <= asked
    if limit > len(base.chat.encode(turns).ids):
        assert len(heard) == asked


def turn_of(label: str) -> Document:
    """A fresh document with one turn of a class."""
    return Document((1, 2), (), Drawn("fresh", label), (Heard(1, (("intent", label),)),))


def test_online_heads_gradient_is_that_of_cross_entropy() -> None:
    """By hand and by autograd: the same gradient of the heads' rows and of the states, guarded documents left out."""
    generator = torch.Generator().manual_seed(1)
    labels = ["a", "b", "a", "c"]
    made = [turn_of(label) for label in labels]
    heads = Heads(5, CONFIG, torch.device("cpu"))
    heads.enrol(made)
    with torch.no_grad():
        heads.flat.copy_(torch.randn(len(heads.flat), generator=generator))
    states = torch.randn(4, 5, generator=generator, requires_grad=True)
    steer = heads.learn(states, made, [True, True, False, True], {"intent": 4})
    rows = heads.flat.detach().view(2, MOST, 6)[1, :3].clone().requires_grad_()
    kept = [0, 1, 3]
    loss = functional.cross_entropy(
        states[kept] @ rows[:, :-1].T + rows[:, -1], torch.tensor([0, 1, 2]), reduction="sum"
    ) / 4  # fmt: skip
    torch.autograd.backward([loss])
    assert rows.grad is not None
    assert states.grad is not None
    assert steer is not None
    assert torch.allclose(heads.gradient.view(2, MOST, 6)[1, :3], rows.grad, atol=1e-6)
    assert torch.allclose(steer, CONFIG.head_weight * states.grad, atol=1e-6)
    assert not steer[2].any()


def test_online_heads_learn_and_steer_only_when_they_may(base: Base) -> None:
    """They beat the majority class on turns they have not seen; while detached, the adapter's losses stay its own."""
    alone, beside = trained(base, 12, replace(CONFIG, heads=False)), trained(base, 12)
    steered = trained(base, 12, replace(CONFIG, head_detached_steps=0, head_weight=1.0))
    assert not alone.heads.reports()
    assert torch.allclose(alone.lora.flat, beside.lora.flat, atol=1e-3)
    assert not torch.allclose(alone.lora.flat, steered.lora.flat, atol=1e-3)
    reports = trained(base, 40, replace(CONFIG, head_rate=3e-2)).heads.reports()
    assert reports["intent"].f1 > reports["intent"].majority_f1 + 0.2
    assert set(reports) == {"sentiment", "intent"}


def test_online_heads_bound_their_classes() -> None:
    """A stream that invents classes without end takes no more memory than the bound."""
    heads = Heads(4, CONFIG, torch.device("cpu"))
    made = [turn_of(f"t{n}") for n in range(MOST + 9)]
    heads.enrol(made)
    assert len(heads.labels["intent"]) == MOST
    assert heads.learn(torch.ones(len(made), 4), made, [True] * len(made), {"intent": len(made)}) is not None
    assert len(heads.judged["intent"]) == MOST


def test_head_check_reports_beside_majority_and_base(base: Base, tmp_path: Path) -> None:
    """A version's card names each head by its digest, with held-out quality beside the majority and the base's head."""
    trajectory = trained(base, 30)
    found = check(
        trajectory.heads.heads(), tree_of(base, trajectory.lora), [sample(n) for n in range(40)],
        [sample(n) for n in range(1000, 1030)],
    )  # fmt: skip
    assert set(found) == {"sentiment", "intent"}
    assert found["intent"].held_out.examples == 30
    assert found["intent"].base is not None
    assert found["intent"].held_out.f1 > found["intent"].held_out.majority_f1
    assert read_head(found["intent"].blob).labels == tuple(trajectory.heads.labels["intent"])
    assert not check(trajectory.heads.heads(), Tree(base), [], [sample(1)])

    publisher = Publisher(tmp_path)
    manifest = publisher.registry.manifest(publisher.publish(1))
    records = Records(tmp_path / "records")
    records.version(manifest, Decision("promote", (), Account()), {}, found)
    card = (tmp_path / "records" / "versions" / f"{manifest.id}.md").read_text()
    assert f"| intent | 30 | {found['intent'].held_out.accuracy:.3f} |" in card
    assert found["intent"].digest[:16] in card
    blob = tmp_path / "records" / "heads" / f"{found['intent'].digest}.safetensors"
    assert blob.read_bytes() == found["intent"].blob
    records.drop_heads(manifest.id)
    records.drop_heads("nobody")
    assert not blob.exists()
