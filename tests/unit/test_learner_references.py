from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learner.adapter import Base, Tree, load_base, new_lora, tree_of
from learner.batch import Document, Drawn, Reply
from learner.references import References
from tests.bases import tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def rated(key: str) -> Document:
    return Document(tuple(range(4, 40)), (Reply(10, 30, 1.0, "good"),), Drawn("fresh", key))


def other(base: Base) -> Tree:
    """Another version than the base."""
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(3))
    return tree_of(base, lora.with_flat(torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(3)) * 0.1))


def test_references_stay_as_first_drawn(base: Base) -> None:
    """A document keeps the reference of the version that was current when it was first drawn, over a checkpoint too."""
    references = References(Tree(base))
    (first,) = references.of([rated("a")])
    references.tree = other(base)
    (again, new) = references.of([rated("a"), rated("b")])
    assert again.replies[0].reference == first.replies[0].reference is not None
    assert new.replies[0].reference != first.replies[0].reference
    restored = References(Tree(base))
    restored.load(references.state())
    assert restored.of([rated("b")]) == (new,)


def test_references_of_windows_are_their_own(base: Base) -> None:
    """Two windows of one sample have a reference each."""
    references = References(Tree(base))
    second = replace(rated("a"), ids=tuple(range(40, 76)))
    one, two = references.of([rated("a"), second])
    assert one.replies[0].reference != two.replies[0].reference
    assert references.of([rated("a"), second]) == (one, two)


def test_references_forget_erased_samples(base: Base) -> None:
    """Nothing of an erased sample stays, and a restart compares with its own start."""
    references = References(Tree(base))
    references.of([rated("a"), rated("b")])
    references.forget({"a"})
    assert list(references.state()) == ["b/0"]
    references.restart(other(base))
    assert references.state() == {}
