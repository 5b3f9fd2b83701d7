from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import torch
from msgspec import structs
from safetensors.torch import load_file, save_file

from learner import publish
from learner.account import LineAccount
from learner.adapter import Base, Tree, adapter_files, load_base, new_lora
from learner.anchors import Gauge
from learner.candidate import BASE, Candidate
from learner.config import PublishConfig
from learner.gate import Decision, GateLimits, Paired, Scores, decide
from learner.heldout import SetLimits
from learner.probes import Readings
from learner.publish import Identity, Judge
from learner.registry import WEIGHTS_FILE
from streams.events import Sample, Turn
from tests.bases import tiny_base

CHATS = 48


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


@dataclass(frozen=True)
class Shelf:
    """Validation chats of random words, and what is given as curated."""

    curated: tuple[Sample, ...] = ()

    def val(self) -> list[Sample]:
        """So different that none is a near copy."""
        rng, letters = Random(3), "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(rng.choices(letters, k=6)) for _ in range(400)]
        found = []
        for number in range(CHATS):
            texts = [" ".join(rng.choices(words, k=8)) for _ in range(2)]
            turns = (Turn(role="customer", text=texts[0]), Turn(role="agent", text=texts[1], is_target=True))
            found.append(
                Sample(
                    sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=f"k{number}", lane="chat",
                    split="val", turns=turns, received_at=0.0, completed_at=float(number),
                )
            )  # fmt: skip
        return found

    def golden(self) -> list[Sample]:
        """Those that were given."""
        return list(self.curated)

    def test(self) -> list[Sample]:
        """None."""
        return []

    def train(self) -> list[Sample]:
        """None."""
        return []


def judge(
    base: Base, client: redis.Redis, folder: Path, shelf: Shelf = Shelf(), *, registry: Any = None, keep: bool = False
) -> Judge:
    if not keep:
        client.flushall()
    account = LineAccount(client, "a")
    versions: Any = SimpleNamespace(foundation=None, registry=registry, tree=lambda _version: Tree(base))
    return Judge(
        base, versions, account, shelf, Gauge(base, []), identity=Identity(account.claim(), "none", 1),
        config=PublishConfig(fairness=False), limits=GateLimits(), sets=SetLimits(recent_share=1.0),
        clock=lambda: 0.0, directory=folder,
    )  # fmt: skip


def unchanged(base: Base) -> Candidate:
    """An adapter whose B is zero: it answers like the base."""
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
    return Candidate(lora, "a", 1, (1, 10), BASE, 0.0, 0.0, {}, 8)


def damaged(fill: float) -> Callable[..., dict[str, Path]]:
    """Writes an adapter's files and then changes one tensor in the file alone."""

    def write(*arguments: Any) -> dict[str, Path]:
        paths = adapter_files(*arguments)
        tensors = load_file(paths[WEIGHTS_FILE])
        key = next(key for key in tensors if key.endswith("down_proj.lora_B.weight"))
        save_file(tensors | {key: torch.full_like(tensors[key], fill)}, paths[WEIGHTS_FILE])
        return paths

    return write


@pytest.mark.parametrize(
    ("fill", "verdict", "guard"),
    [(0.0, "abstain", "gain"), (float("nan"), "refuse", "sanity"), (60.0, "refuse", "tail")],
)
def test_gate_scores_shipped_bytes(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *,
    fill: float, verdict: str, guard: str,
) -> None:  # fmt: skip
    """A tensor that is changed in the file, not in memory, changes the decision: what is judged is what is shipped."""
    monkeypatch.setattr(publish, "adapter_files", damaged(fill))
    judged = judge(base, redis_client, tmp_path).consider(unchanged(base), BASE)
    assert judged.decision.verdict == verdict
    assert guard in judged.decision.why
    assert judged.version is None


def test_gate_probes_only_what_would_be_promoted(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate that abstains is asked no prompt; one whose gain is proven is, and what it says can refuse it."""
    asked: list[int] = []

    def ask(*_: Any) -> dict[str, tuple[str, ...]]:
        asked.append(1)
        return {"safety": ("1 new answers are toxic",)}

    made = judge(base, redis_client, tmp_path)
    monkeypatch.setattr(made, "_probed", ask)
    made.consider(unchanged(base), BASE)
    assert not asked

    def convinced(scores: Scores, *rest: Any) -> Decision:
        better = Paired(tuple(loss + 1.0 for loss in scores.recent.candidate), scores.recent.candidate)
        return decide(replace(scores, recent=better), *rest)

    monkeypatch.setattr(publish, "decide", convinced)
    judged = made.consider(unchanged(base), BASE)
    assert asked
    assert judged.decision.verdict == "refuse"
    assert "toxic" in judged.decision.why


def test_gate_asks_a_published_version_once(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that waits is gated again when stable changes, but its prompts are not asked again."""
    asked: list[int] = []

    def ask(*_: Any) -> Readings:
        asked.append(1)
        return Readings()

    def convinced(scores: Scores, *rest: Any) -> Decision:
        better = Paired(tuple(loss + 1.0 for loss in scores.recent.candidate), scores.recent.candidate)
        return decide(replace(scores, recent=better), *rest)

    monkeypatch.setattr(publish, "measure", ask)
    monkeypatch.setattr(publish, "decide", convinced)
    made = judge(base, redis_client, tmp_path)
    assert made.reconsider("a000001", BASE).verdict == "promote"
    assert len(asked) == len(("a000001", BASE))
    assert made.reconsider("a000001", "a000002").verdict == "promote"
    assert len(asked) == len(("a000001", BASE, "a000002"))


def test_gate_golden_examples_stop_what_recent_ones_praise(
    base: Base, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curated examples are scored beside validation chats: a version that is worse on them is refused."""
    seen: list[Scores] = []

    def convinced(scores: Scores, *rest: Any) -> Decision:
        seen.append(scores)
        better = Paired(tuple(loss + 1.0 for loss in scores.recent.candidate), scores.recent.candidate)
        worse = scores.golden and Paired(tuple(loss - 0.2 for loss in scores.golden.candidate), scores.golden.candidate)
        return decide(replace(scores, recent=better, golden=worse), *rest)

    monkeypatch.setattr(publish, "decide", convinced)
    monkeypatch.setattr(publish, "measure", lambda *_: Readings())
    curated = tuple(structs.replace(one, sample_id=f"g-{one.sample_id}", split="test") for one in Shelf().val())
    judged = judge(base, redis_client, tmp_path, Shelf(curated)).consider(unchanged(base), BASE)
    assert seen[0].golden is not None
    assert len(seen[0].golden) == len(curated)
    assert (judged.decision.verdict, judged.version) == ("refuse", None)
    assert "golden" in judged.decision.why


def test_gate_pins_what_was_promoted_before_a_restart(base: Base, redis_client: redis.Redis, tmp_path: Path) -> None:
    """The best version of the last week is compared with although its judge is gone; a withdrawn one is not."""
    manifests = {
        name: SimpleNamespace(eval=SimpleNamespace(nll_per_token=nll))
        for name, nll in (("a000001", 1.0), ("a000002", 2.0), ("a000003", 0.5))
    }
    registry = SimpleNamespace(gone=lambda name: "erasure" if name == "a000003" else None, manifest=manifests.get)
    before = judge(base, redis_client, tmp_path, registry=registry)
    for version in manifests:
        before.promoted(version)
    account = LineAccount(redis_client, "a")
    assert account.promotions(-1.0) == sorted(manifests)
    after = judge(base, redis_client, tmp_path, registry=registry, keep=True)
    assert [after._pinned(stable) for stable in ("a000002", "a000001")] == ["a000001", None]
    assert account.promotions(1.0) == []
