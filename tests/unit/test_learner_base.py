from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from learner.adapter import Said, Sampling, Tree, generate, load_base, score
from learner.base import train_base
from learner.config import BaseConfig, TrainConfig
from tests.bases import TEXTS

SMALL = BaseConfig(layers=2, hidden=64, heads=1, ff=128, vocab=330, context=128, tokens=24_000, window=64, batch=4)
CHATS = [
    [("customer", TEXTS[index % 2 * 3]), ("agent", TEXTS[index % 2 * 3 + 1]), ("customer", f"thanks {index}")]
    for index in range(60)
]


def test_base_learns_its_conversations_reproducibly(tmp_path: Path) -> None:
    """The trained folder loads, predicts the conversations far better than chance, and is rebuilt bit for bit."""
    losses: list[float] = []
    train_base(CHATS, tmp_path / "one", SMALL, lambda _step, _steps, loss: losses.append(loss))
    assert losses[-1] < losses[0] / 3
    base = load_base(tmp_path / "one")
    turns = [Said("customer", TEXTS[0]), Said("agent", TEXTS[1], is_target=True)]
    assert score(Tree(base), [turns])[0].loss < 1.0
    assert generate(Tree(base), turns[:1], Sampling(max_new_tokens=40)) == TEXTS[1]
    train_base(CHATS, tmp_path / "two", SMALL)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all((one[key] == two[key]).all() for key in one)


def test_base_refuses_too_little_text(tmp_path: Path) -> None:
    """Less text than one window is an error, not an endless loop."""
    with pytest.raises(ValueError, match="window"):
        train_base(CHATS[:1], tmp_path / "none", SMALL)


def test_config_names_key_value_and_rule() -> None:
    """Bad values are refused with the key, its value and the rule."""
    with pytest.raises(ValueError, match=r"'hidden' has value 100.*'heads' 3"):
        BaseConfig(hidden=100)
    with pytest.raises(ValueError, match=r"'r' has value 7"):
        TrainConfig(r=7)
    with pytest.raises(ValueError, match=r"sum to 1\.25"):
        TrainConfig(fresh_share=0.5)
    with pytest.raises(ValueError, match=r"'fresh_share' has value 0"):
        TrainConfig(fresh_share=0.0, rehearsal_share=0.75)
    with pytest.raises(ValueError, match=r"'weight_min' 3.*'weight_max'"):
        TrainConfig(weight_min=3.0)
