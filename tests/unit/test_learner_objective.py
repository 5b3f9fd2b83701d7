from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from learner.adapter import Base, Lora, load_base, new_lora, tree_of
from learner.batch import Document, Drawn, Reply, documents, pack
from learner.config import TrainConfig
from learner.objective import Norms, kl_to_base, losses, norms
from learner.update import entropy_packed, entropy_padded, new_trajectory, step, with_references
from streams.events import Label, Role, Sample, Turn
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(learning_rate=1e-2, warmup_steps=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def document(seed: int, length: int, *replies: Reply) -> Document:
    ids = torch.randint(4, 380, (length,), generator=torch.Generator().manual_seed(seed))
    return Document(tuple(ids.tolist()), replies or (Reply(length // 2, length, 1.0),), Drawn("fresh", f"{seed:02x}"))


def noisy(base: Base, seed: int = 5) -> Lora:
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(seed))
    return lora.with_flat(torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.05)


def test_update_packed_equals_padded(base: Base) -> None:
    """The packed reference and the padded rows give the same cross-entropy of every target, and the same gradient."""
    chosen = [document(1, 20), document(2, 9), document(3, 33, Reply(4, 9, 1.0), Reply(20, 33, 0.5))]
    batch = pack(chosen, size=80)
    gradients, entropies = [], []
    for forward in (entropy_padded, entropy_packed):
        lora = noisy(base)
        flat = lora.flat.requires_grad_()
        entropy = forward(base, lora.layers(torch.float32), batch)[: sum(d.targets for d in chosen)]
        torch.autograd.backward(entropy.sum())
        assert flat.grad is not None
        gradients.append(flat.grad)
        entropies.append(entropy.detach())
    assert torch.allclose(entropies[0], entropies[1], rtol=1e-5, atol=1e-6)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


def gradient_of(base: Base, groups: list[list[Document]], whole: Norms) -> torch.Tensor:
    lora = noisy(base)
    flat = lora.flat.requires_grad_()
    for group in groups:
        batch = pack(group)
        entropy = entropy_padded(base, lora.layers(torch.float32), batch)
        torch.autograd.backward(losses(batch, entropy, whole, CONFIG).total)
    assert flat.grad is not None
    return flat.grad


def test_objective_split_does_not_matter(base: Base) -> None:
    """Any split into micro-batches and ranks gives the gradient of the whole batch, ratings and edits included."""
    rated = document(4, 30, Reply(5, 15, 1.0, "good", reference=-20.0), Reply(20, 30, 0.0, "bad", reference=-30.0))
    draft = document(5, 14, Reply(6, 14, 0.0, "bad", draft=True, reference=-10.0))
    final = document(6, 16, Reply(6, 16, 1.0, reference=-11.0))
    chosen = [document(1, 20), rated, draft, final, document(2, 50)]
    whole = norms(chosen)
    assert (whole.rated, whole.pairs) == (2, 1)
    one = gradient_of(base, [chosen], whole)
    split = gradient_of(base, [[chosen[4], chosen[0]], [chosen[2], chosen[3]], [chosen[1]]], whole)
    assert float((one - split).norm() / one.norm()) < 1e-5


def test_objective_equals_its_formulas() -> None:
    """Each loss equals a few lines of plain arithmetic."""
    chosen = [
        document(1, 6, Reply(2, 4, 0.5, "good", reference=-3.0), Reply(4, 6, 0.0, "bad", reference=-1.0)),
        document(2, 5, Reply(3, 5, 0.0, "bad", draft=True, reference=-2.0)),
        document(3, 6, Reply(3, 6, 1.0, reference=-4.0)),
    ]
    entropy = torch.tensor([1.0, 2.0, 0.5, 0.25, 1.5, 1.0, 0.2, 0.3, 0.4])
    whole = norms(chosen)
    sft = (0.5 * 3.0 + 1.0 * 0.9) / (0.5 * 2 + 1.0 * 3)

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    good, bad = -3.0 + 3.0, -0.75 + 1.0
    apo = ((1 - sigmoid(0.1 * good)) + sigmoid(0.1 * bad)) / 2
    margin = (-0.9 + 4.0) / 3 - (-2.5 + 2.0) / 2
    dpo = -math.log(sigmoid(2.0 * margin))
    found = losses(pack(chosen), entropy, whole, CONFIG)
    assert found.total.item() == pytest.approx(sft + apo + dpo / 4, rel=1e-5)
    assert found.replies.tolist() == pytest.approx([3.0, 0.75, 2.5, 0.9])
    few = losses(pack(chosen), entropy, whole, replace(CONFIG, signal_share=0.75))  # two rated count as three of four
    assert few.total.item() == pytest.approx(sft + apo * 2 / 3 + dpo / 4, rel=1e-5)


def test_objective_guarded_documents_count_nothing() -> None:
    """A document that a guard has stopped has no part in the loss."""
    chosen = [document(1, 6), document(2, 6)]
    entropy = torch.ones(6)
    kept = losses(pack(chosen), entropy, norms(chosen), CONFIG, keep=[True, False]).total.item()
    assert kept == pytest.approx(0.5)


def test_objective_references_are_cached(base: Base) -> None:
    """Rated and edited replies get their reference once; others need none."""
    tree = tree_of(base, noisy(base))
    plain, rated = document(1, 12), document(2, 12, Reply(6, 12, 1.0, "good"))
    found = with_references(tree, [plain, rated])
    assert found[0].replies[0].reference is None
    reference = found[1].replies[0].reference
    assert reference is not None
    assert reference < 0
    kept = replace(found[1], replies=(replace(found[1].replies[0], reference=-1.25),))
    assert with_references(tree, [kept])[0].replies[0].reference == -1.25


def test_objective_kl_is_zero_for_the_base_and_positive_else() -> None:
    """KL(base || version) against the sum over the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(5, 11, generator=generator), torch.randn(5, 11, generator=generator)
    p, q = one.softmax(-1), two.softmax(-1)
    assert torch.allclose(kl_to_base(two, one), (p * (p / q).log()).sum(-1), atol=1e-6)
    assert torch.allclose(kl_to_base(one, one), torch.zeros(5), atol=1e-6)


def test_update_learns_and_ratings_move_both_ways(base: Base) -> None:
    """Steps lower the loss of good replies and raise that of bad ones."""
    good = document(7, 16, Reply(8, 16, 1.0, "good"))
    bad = document(8, 16, Reply(8, 16, 0.0, "bad"))
    trajectory = new_trajectory(new_lora(base.shape, 8, 16, torch.Generator().manual_seed(0)), 400, CONFIG)
    chosen = with_references(tree_of(base, trajectory.lora), [good, bad])
    first = step(base, trajectory, chosen)
    for _ in range(12):
        last = step(base, trajectory, chosen)
    assert last.losses["07"] < first.losses["07"] - 0.5
    assert last.losses["08"] > first.losses["08"]
    assert last.tokens["fresh"] == 32


def test_update_skips_a_batch_without_signal(base: Base) -> None:
    """Weights that sum to 0 are skipped and said so, never a silent zero step."""
    trajectory = new_trajectory(noisy(base), 400, CONFIG)
    before = trajectory.lora.flat.detach().clone()
    report = step(base, trajectory, [document(1, 8, Reply(4, 8, 0.0, "bad"))])
    assert report.outcome == "skipped"
    assert torch.equal(trajectory.lora.flat, before)


def test_update_prequential_loss_is_of_what_people_wrote(base: Base) -> None:
    """An adapter's own answers do not count where people write any; else those rated good do, never the bad ones."""

    def made(role: Role, label: Label = "unknown", kind: str = "sft") -> Document:
        turns = (Turn(role="customer", text="hello"), Turn(role=role, text=TEXTS[3], is_target=True, label=label))
        sample = Sample(
            sample_id=f"{role}-{label}/{kind}/0", conversation="c", customer="k", lane="chat", split="train",
            turns=turns, received_at=0.0, completed_at=0.0,
        )  # fmt: skip
        return documents(base.chat, sample, Drawn("fresh", f"{role}-{label}-{kind}"), CONFIG)[0]

    person, edit = made("agent"), made("assistant", kind="edit")
    good, bad = made("assistant", "good"), made("assistant", "bad")
    assert [one.human for one in (person, edit, good, bad)] == [True, True, False, False]
    for chosen, counted in (([person, good, bad], [person]), ([good, bad], [good]), ([bad, edit], [edit])):
        trajectory = new_trajectory(noisy(base), 400, CONFIG)
        report = step(base, trajectory, chosen)
        assert report.fresh_loss == pytest.approx(report.losses[counted[0].drawn.key])
