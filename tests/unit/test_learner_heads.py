"""Auxiliary heads: they learn what the features hold, survive their file, and never touch the version."""

from __future__ import annotations

import random

import pytest
import torch

from learner.adapter import Base, Tree, load_base
from learner.heads import HeadConfig, Labelled, features, fit, head_report, read_head
from streams.events import Turn
from tests.bases import tiny_base

WORDS = {
    "refund": ("money", "refund", "back"),
    "device": ("printer", "broken", "light"),
    "other": ("hello", "thank", "you"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny base with random weights."""
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def labelled(count: int, seed: int) -> list[Labelled]:
    """Turns of three classes, each with words of its own."""
    draw = random.Random(seed)
    found = []
    for at in range(count):
        label = sorted(WORDS)[at % 3]
        text = " ".join(draw.choices(WORDS[label], k=4))
        found.append(Labelled((Turn(role="customer", text=text),), label))
    return found


def test_heads_learn_beyond_the_majority(base: Base) -> None:
    """A head on held-out turns beats naming the most frequent class by far, and the report has every measure."""
    report = head_report({"base": Tree(base)}, labelled(150, 1), labelled(60, 2), HeadConfig(steps=150))["base"]
    assert report["accuracy"] > 0.9
    assert report["f1"] > 0.9
    assert report["majority_accuracy"] == pytest.approx(1 / 3)
    assert {"precision", "recall", "majority_f1", "examples"} <= report.keys()


def test_heads_survive_their_file(base: Base) -> None:
    """The same head gives the same bytes, and reads back to the same answers."""
    chats = labelled(60, 3)
    found = features(Tree(base), [one.turns for one in chats])
    first, second = (fit(found, [one.label for one in chats], HeadConfig(steps=50)) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert read_head(first.to_bytes()).predict(found) == first.predict(found)
    with pytest.raises(ValueError, match="1 classes"):
        fit(found, ["a"] * 60, HeadConfig())


def test_heads_features_ignore_padding_and_later_turns(base: Base) -> None:
    """A chat's features do not depend on its neighbours in a batch; they are those of the last end of turn."""
    short, long = (Turn(role="customer", text="hello"),), (Turn(role="customer", text="hello " * 30),)
    alone, together = features(Tree(base), [short]), features(Tree(base), [long, short])
    assert torch.allclose(alone[0], together[1], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)
