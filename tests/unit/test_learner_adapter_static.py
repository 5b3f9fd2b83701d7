from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.adapter import Base, Lora, load_base, new_lora, packed
from learner.adapter.packed import decode_static
from learner.batch import BUCKETS, SLOT, Batch, Document, Drawn, Reply, pack, static_packs
from learner.update import entropy_padded, forward_static
from tests.bases import tiny_base

LONGEST = 96


def runs(bounds: Tensor) -> list[tuple[int, int]]:
    return [(start, stop) for start, stop in pairwise(bounds.tolist()) if stop > start]


def chances(q: Tensor, k: Tensor, *, causal: bool) -> Tensor:
    """Attention (heads, T, T) inside one run; q and k (heads, T, d)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores + torch.full_like(scores, -torch.inf).triu(1) if causal else scores).softmax(-1)


def inside(bounds: Tensor, *parts: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Each run and its tensors as (heads, T, d), the ones that heads share repeated for each."""
    heads = parts[0].shape[1]
    for start, stop in runs(bounds):
        rows = [x[start:stop].transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0) for x in parts]
        yield slice(start, stop), rows


def forward(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel is defined to do: a window of (-1, 0) alone is causal, and no run may pass the longest."""
    _, longest, _, causal, _, window = rest[:6]
    assert all(stop - start <= longest for start, stop in runs(bounds))
    assert causal == (window == [-1, 0])
    mixed = torch.zeros_like(q)
    for run, (query, key, value) in inside(bounds, q, k, v):
        mixed[run] = (chances(query, key, causal=causal) @ value).transpose(0, 1)
    return mixed, q.new_empty(q.shape[1], len(q)), torch.zeros(2, dtype=torch.uint64)


def backward(grad: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `forward` by hand: an operator's kernel runs below autograd."""
    q, k, v, _, _, bounds, _, _, _, causal = rest[:10]
    found = tuple(torch.zeros_like(x) for x in (q, k, v))
    for run, (above, query, key, value) in inside(bounds, grad, q, k, v):
        chance = chances(query, key, causal=causal)
        moved = above @ value.mT
        scores = chance * (moved - (moved * chance).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
        for whole, part in zip(found, (scores @ key, scores.mT @ query, chance.mT @ above), strict=True):
            heads, time, d = whole.shape[1], part.shape[1], part.shape[2]
            whole[run] = part.view(heads, -1, time, d).sum(1).transpose(0, 1)
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def graphs() -> Iterator[list[str]]:
    """The kernel's operators on CPU by their definition, and a compiler that notes what it is asked to compile."""
    torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", forward)
    torch.library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", backward)
    found: list[str] = []

    def note(graph: torch.fx.GraphModule, _inputs: object) -> Any:
        found.append(graph.code)
        return graph.forward

    with pytest.MonkeyPatch.context() as patch:
        traced = torch.compile(decode_static, dynamic=False, fullgraph=True, backend=note)
        patch.setattr(packed, "compiled", lambda: traced)
        yield found


def document(seed: int, length: int, *replies: Reply) -> Document:
    ids = torch.randint(4, 380, (length,), generator=torch.Generator().manual_seed(seed))
    return Document(tuple(ids.tolist()), replies or (Reply(length // 2, length, 1.0),), Drawn("fresh", f"{seed:02x}"))


def noisy(base: Base) -> Lora:
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(5))
    values = torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(5)) * 0.05
    return lora.with_flat(values.requires_grad_())


def padded(base: Base, lora: Lora, chosen: list[Document]) -> tuple[dict[str, list[float]], Tensor]:
    """Cross-entropy of each document's targets by the plain path, and the gradient of their sum."""
    batch = pack(chosen)
    entropy = entropy_padded(base, lora.layers(torch.float32), batch)
    return by_document(batch, entropy), torch.autograd.grad(entropy.sum(), lora.flat)[0]


def by_document(batch: Batch, entropy: Tensor) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for span in batch.spans:
        found.setdefault(batch.examples[span.document].drawn.key, []).extend(entropy[span.start : span.stop].tolist())
    return found


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks, we do not
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_adapter_static_path_equals_padded(tmp_path: Path, graphs: list[str], architecture: str) -> None:
    """What CUDA computes, its kernel taken by its definition: losses and gradients of the plain path, one graph."""
    base = load_base(tiny_base(tmp_path, architecture=architecture))
    graphs.clear()
    for first in (1, 100):
        chosen = [document(first + at, 9 + (7 * at) % 80) for at in range(30)]
        chosen.append(document(first + 50, 70, Reply(4, 9, 1.0), Reply(40, 70, 0.5)))
        lora = noisy(base)
        wanted, gradient = padded(base, lora, chosen)
        found: dict[str, list[float]] = {}
        total = torch.zeros(())
        for batch, entropy, _ in forward_static(base, lora.layers(torch.float32), chosen, LONGEST):
            assert len(batch.tokens) in BUCKETS
            found |= by_document(batch, entropy)
            total = total + entropy.sum()
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-5), key
        ours = torch.autograd.grad(total, lora.flat)[0]
        assert float((ours - gradient).norm() / gradient.norm()) < 1e-5
    assert len(graphs) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(2, LONGEST), st.booleans()), min_size=1, max_size=260))
def test_batch_static_packs_hold_all_in_few_shapes(lengths: list[tuple[int, bool]]) -> None:
    """Each document stands in one pack, draft and final in the same, and as few shapes as buckets come out."""
    chosen: list[Document] = []
    for seed, (length, edited) in enumerate(lengths):
        made = document(seed, length)
        if edited:
            draft = replace(made, replies=tuple(replace(reply, draft=True) for reply in made.replies))
            chosen.append(draft)
        chosen.append(made)
    packs = list(static_packs(chosen, LONGEST))
    told = [document for batch in packs for document in batch.examples]
    assert sorted(map(id, told)) == sorted(map(id, chosen))
    shapes = {(len(batch.tokens), len(batch.bounds)) for batch in packs}
    assert len(shapes) == len({size for size, _ in shapes})
    for batch in packs:
        assert len(batch.tokens) in BUCKETS
        assert len(batch.examples) <= len(batch.tokens) // SLOT
        assert max(stop - start for start, stop in runs(batch.bounds)) <= LONGEST
        assert int(batch.bounds[-1]) == len(batch.tokens)
        assert not batch.examples[-1].replies[-1].draft
    waste = sum(len(batch.tokens) for batch in packs) - sum(len(d.ids) for d in chosen)
    assert waste <= BUCKETS[0] or waste <= 0.3 * sum(len(batch.tokens) for batch in packs) or len(chosen) > SLOT
