from __future__ import annotations

import json
from pathlib import Path

import torch

from learner.adapter import load_base, new_lora, tree_of
from learner.anchors import Gauge, load_anchors
from tests.bases import tiny_base


def test_anchors_that_gauge_never_train(tmp_path: Path) -> None:
    """What the base said twice is one anchor; the next start reads the same ones; the gauge is 0 for the base."""
    base = load_base(tiny_base(tmp_path))
    layout = base.chat.layout
    said = [
        [*layout.begin, *layout.opens["user"], 9, *layout.end, *layout.opens["agent"], 10 + n % 6] for n in range(12)
    ]
    path = tmp_path / f"anchors-{base.digests['weights_sha256'][:16]}-12x24-1.json"
    path.write_text(json.dumps(said))
    found = load_anchors(base, 12, 24, tmp_path)
    training, gauge = ({document.ids for document in part} for part in (found.training, found.gauge))
    assert len(training) == len(gauge) == 3
    assert not training & gauge
    assert all(document.replies for document in (*found.training, *found.gauge))
    assert load_anchors(base, 12, 24, tmp_path) == found
    kl, lora = Gauge(base, found.gauge), new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
    assert kl.of(tree_of(base, lora)) < 1e-6
    assert kl.of(tree_of(base, lora.with_flat(torch.full_like(lora.flat, 0.2)))) > 0.0
