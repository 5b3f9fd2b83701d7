"""Search: halving keeps the best, weights never move, rates follow layers, and a tuned base is no adapter."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learner import search
from learner.adapter import load_base
from learner.config import TrainConfig
from learner.full import FullConfig, fine_tune, held_loss, layer_rates
from learner.gate import Account, Decision, Evidence
from learner.heldout import HeldChat
from learner.records import Records, flattened
from learner.registry import Refused, Registry, base_identity, file_sha256, trust, verify
from learner.search import Choice, EarlyStop, Halving, Range, Schedule
from learner.tune import Budget, Population, as_documents, configured, exhaust, halve
from services import cli
from streams.events import Turn
from tests.adapters import Publisher, facts
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(r=8, alpha=16, learning_rate=5e-3, warmup_steps=2, fresh_batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with random weights."""
    return tiny_base(tmp_path_factory.mktemp("base"))


def chats(count: int) -> list[HeldChat]:
    """Short conversations of our own text."""
    draw = random.Random(1)
    return [
        HeldChat(
            f"c{n}",
            (Turn(role="customer", text=draw.choice(TEXTS)), Turn(role="agent", text=TEXTS[n % 3 + 1], is_target=True)),
        )
        for n in range(count)
    ]


def test_search_grid_and_samples() -> None:
    """A grid is every combination; samples are distinct, seeded and inside their ranges."""
    space = {"learning_rate": Choice((1e-3, 1e-2)), "r": Choice((8, 16))}
    assert len(search.grid(space)) == 4
    wide = {"learning_rate": Range(1e-4, 1e-1, log=True), "clip_norm": Range(0.5, 2)}
    points = search.sample(wide, 50, seed=3)
    assert points == search.sample(wide, 50, seed=3)
    assert all(1e-4 <= point["learning_rate"] <= 1e-1 for point in points)
    assert sum(point["learning_rate"] < 10**-2.5 for point in points) in range(15, 36)
    assert len(search.sample(space, 9, seed=1)) == 4
    with pytest.raises(ValueError, match="a range has no grid"):
        search.grid(wide)
    with pytest.raises(ValueError, match="low must be below high"):
        Range(0, 1, log=True)


def test_tune_halving_keeps_the_best() -> None:
    """With noisy losses the best of eight survives three windows nearly always, and one is left."""
    wins = 0
    for seed in range(100):
        draw = random.Random(seed)
        halving = Halving([f"t{n}" for n in range(8)])
        while len(halving.alive) > 1:
            for name in halving.alive:
                for _ in range(10):
                    halving.record(name, 1 + 0.2 * int(name[1]) + draw.gauss(0, 0.2))
            halving.close()
        wins += halving.best == "t0"
        assert [len(window) for window in halving.history] == [8, 4, 2]
    assert wins >= 95


def test_tune_halving_drops_what_diverged() -> None:
    """A loss that is no number loses; a member without any reading loses too."""
    halving = Halving(["a", "b", "c"], keep=0.3)
    halving.record("a", math.nan)
    halving.record("b", 9.0)
    assert halving.close() == ["a", "c"]
    with pytest.raises(ValueError, match="'keep' has value 1"):
        Halving(["a"], keep=1)


def test_tune_early_stop_and_schedules() -> None:
    """Stop after `patience` readings without a gain; schedules begin at 1 and end at their floor."""
    stop = EarlyStop(patience=2, least=0.01)
    assert [stop.observe(loss) for loss in (1.0, 0.5, 0.499, 0.498, 0.497)] == [False, False, False, True, True]
    ends: dict[Schedule, float] = {"constant": 1.0, "linear": 0.0, "cosine": 0.0}
    for schedule, end in ends.items():
        assert search.rate_factor(schedule, 0.0) == 1.0
        assert search.rate_factor(schedule, 1.0) == pytest.approx(end)


def test_tune_population_finds_a_rate_that_learns(folder: Path) -> None:
    """On the same chats a rate that learns beats one that does not and one that diverges; only settings come out."""
    base = load_base(folder)
    before = {name: value.clone() for name, value in _tensors(folder).items()}
    points = [{"learning_rate": rate} for rate in (1e-6, 1e-2, 30.0)]
    result = halve(base, CONFIG, points, chats(48), Budget(fresh=4, window=4))
    assert result.best == {"learning_rate": 1e-2}
    assert result.history[0]["trial1"] < result.history[0]["trial0"]
    json.dumps(result.to_object())
    assert all(torch.equal(value, before[name]) for name, value in _tensors(folder).items())


def test_tune_population_is_fair_and_repeatable(folder: Path) -> None:
    """Equal points see equal chats and get equal losses; a second run gives the same numbers."""
    base = load_base(folder)

    def run() -> list[dict[str, float]]:
        population = Population(base, CONFIG, [{"r": 8}, {"r": 8}], Budget(fresh=4, window=3))
        made = as_documents(base, chats(12), CONFIG)
        return [population.advance([d for chat in made[at : at + 4] for d in chat]) for at in (0, 4)]

    first, second = run(), run()
    assert first == second
    assert all(losses["trial0"] == losses["trial1"] for losses in first)


def test_tune_objective_stops_early(folder: Path) -> None:
    """A trial that does not improve is cut short; the objective is its mean prequential loss."""
    base = load_base(folder)
    readings: list[float] = []

    class Counting(EarlyStop):
        """Remembers what it was told."""

        def observe(self, loss: float) -> bool:
            """Pass on."""
            readings.append(loss)
            return super().observe(loss)

    loss = exhaust(
        base, CONFIG, {"learning_rate": 1e-9}, chats(80), Budget(fresh=4, window=2), stop=Counting(patience=3)
    )
    assert math.isfinite(loss)
    assert len(readings) < 19


def test_tune_changes_only_what_it_may() -> None:
    """Unknown settings are refused; shares stay a whole."""
    changed = configured(CONFIG, {"rehearsal_share": 0.2})
    assert changed.fresh_share + changed.anchor_share + changed.rehearsal_share == pytest.approx(1)
    with pytest.raises(ValueError, match="'base' is not one of"):
        configured(CONFIG, {"base": "evil"})
    near = search.neighbours({"learning_rate": 1e-2, "r": 16, "alpha": 32})
    assert [point["learning_rate"] for point in near] == [1e-2, 5e-3, 2e-2, 1e-2]
    assert near[-1]["r"] == 32


def test_tune_optuna() -> None:
    """The optional extra finds the bottom of a bowl."""
    pytest.importorskip("optuna")
    best = search.optimise(lambda point: (point["x"] - 3) ** 2, {"x": Range(0, 10)}, trials=30, seed=1)
    assert best["x"] == pytest.approx(3, abs=1)


def test_full_finetune_layer_rates() -> None:
    """Rates fall by the factor with each layer above; embeddings can be frozen."""
    names = [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.3.mlp.up_proj.weight",
        "model.norm.weight",
    ]
    rates = layer_rates(names, 4, FullConfig(learning_rate=1.0, layer_decay=0.5))
    assert list(rates.values()) == [1 / 16, 1 / 8, 1.0, 1.0]
    assert layer_rates(names, 4, FullConfig(freeze_embeddings=True))[names[0]] == 0.0
    with pytest.raises(ValueError, match="'epochs' has value 0"):
        FullConfig(epochs=0)


def test_full_finetune_is_no_adapter(folder: Path, tmp_path: Path) -> None:
    """It learns, leaves its source alone, keeps the best epoch, and gives a base that old adapters do not fit."""
    before = {name: value.clone() for name, value in _tensors(folder).items()}
    config = FullConfig(learning_rate=3e-3, epochs=3, freeze_embeddings=True)
    losses = fine_tune(folder, tmp_path / "tuned", chats(24), chats(6), config)
    assert min(losses) < losses[0] - 0.5
    tuned = load_base(tmp_path / "tuned")
    assert held_loss(tuned, chats(6)) == pytest.approx(min(losses), abs=0.02)
    assert all(torch.equal(value, before[name]) for name, value in _tensors(folder).items())
    assert torch.equal(tuned.embed, load_base(folder).embed)
    old, new = base_identity(folder, "tiny"), base_identity(tmp_path / "tuned", "tiny")
    assert old.base.revision != new.base.revision
    publisher = Publisher(tmp_path)
    registry: Registry = publisher.registry
    directory = registry.fetch(publisher.publish(1), tmp_path / "node")
    with pytest.raises(Refused) as refused:
        verify(directory, trust(publisher.signer.public), new)
    assert refused.value.reason == "base"
    files = dict.fromkeys(
        ("adapter_config.json", "adapter_model.safetensors"), tmp_path / "tuned" / "model.safetensors"
    )
    with pytest.raises(Refused):
        registry.publish(files, facts(file_sha256(tmp_path / "tuned" / "model.safetensors")))


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def test_tune_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the best settings and writes a record; bad input is exit code 2."""
    data = tmp_path / "chats.jsonl"
    rows = [
        {"conversation_id": c.conversation, "turns": [{"role": t.role, "text": t.text} for t in c.turns]}
        for c in chats(24)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["tune", "--data", str(data), "--base-model", str(folder), "--json"]
    space = json.dumps({"learning_rate": [1e-6, 1e-2]})
    code = cli.main(
        [*common, "--search", "grid", "--space", space, "--window", "2", "--record", str(tmp_path / "records")]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["best"] == {"learning_rate": 0.01}
    assert Records(tmp_path / "records").read("runs", "tune-chats-grid")["best"] == found["best"]
    assert cli.main([*common, "--search", "grid"]) == 2
    assert cli.main([*common, "--search", "grid", "--space", '{"seed": [1, 2]}']) == 2
    assert "not one of" in capsys.readouterr().err
    for wrong in ("[1]", '{"r": 8}', '{"r": []}', '{"learning_rate": ["high"]}', '{"learning_rate": {"low": 1}}'):
        assert cli.main([*common, "--search", "grid", "--space", wrong]) == 2
        assert "--space" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*common, "--window", "0"])
    assert "wants at least 1" in capsys.readouterr().err


def test_records_card_shows_the_evidence(tmp_path: Path) -> None:
    """A version's record holds parameters and gate evidence but no probe, and its card shows every guard."""
    publisher = Publisher(tmp_path)
    manifest = publisher.registry.manifest(publisher.publish(1))
    evidence = (Evidence("gain", "pass", 300, 12.0, 9.9, "gain 0.06 nats"), Evidence("tail", "pass", 300, 1, 3))
    decision = Decision("promote", evidence, Account(25, 3), 12.0, 9.9, 0.09, 0.041)
    exported: dict[str, object] = {}

    class Exporter:
        """Remembers what it was given."""

        def export(self, name: str, record: object) -> None:
            """Keep it."""
            exported[name] = record

    records = Records(tmp_path / "records", Exporter())
    records.version(manifest, decision, {"learning_rate": 1e-2})
    record = records.read("versions", manifest.id)
    assert "probe" not in record
    assert record["gate"]["verdict"] == "promote"
    assert flattened(record)["parameters.learning_rate"] == 0.01
    assert set(exported) == {manifest.id}
    card = (tmp_path / "records" / "versions" / f"{manifest.id}.md").read_text()
    for part in (manifest.id, "gain 0.06 nats", "| tail | pass | 300 |", "Decision 25", "0.041 nats", manifest.digest):
        assert part in card
