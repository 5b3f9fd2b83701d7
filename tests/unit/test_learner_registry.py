"""The registry: stable digests, atomic publish, reads that verify, withdrawal and collection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from learner import registry as registries
from learner.registry import (
    BASE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Fenced,
    Gone,
    Lora,
    Malformed,
    Refused,
    Registry,
    Unknown,
)
from learner.registry import manifest as manifests
from tests import adapters
from tests.adapters import Publisher


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """An empty store."""
    return Publisher(tmp_path)


def test_registry_publishes_and_fetches(publisher: Publisher, tmp_path: Path) -> None:
    """A published version comes back byte for byte, verified, and is the newest of its line."""
    version = publisher.publish(1)
    registry = publisher.registry
    assert manifests.VERSION.fullmatch(version)
    assert registry.newest("a") == version
    found = registry.manifest(version)
    assert (found.seq, found.parent, found.tensors.count, found.tensors.nonfinite) == (1, BASE, 12, 0)
    directory = registry.fetch(version, tmp_path / "node")
    assert sorted(path.name for path in directory.iterdir()) == sorted((*manifests.FILES, MANIFEST_FILE))
    assert registry.fetch(version, tmp_path / "node") == directory
    verified = registries.verify(directory, registries.trust(publisher.signer.public), adapters.FOUNDATION)
    assert verified == found
    with pytest.raises(Unknown):
        registry.manifest("a000099-00000000")


def test_registry_sequence_rises_and_parent_distance_is_recorded(publisher: Publisher) -> None:
    """Each publish takes the next number; the distance to the parent comes from both files' bytes."""
    first = publisher.publish(1)
    second = publisher.publish(2, parent=first)
    third = publisher.publish(2, parent=second)
    registry = publisher.registry
    assert [registries.sequence(version) for version in (first, second, third)] == [1, 2, 3]
    assert registry.manifest(second).tensors.delta_norm_to_parent > 0.1
    assert registry.manifest(third).tensors.delta_norm_to_parent == 0
    assert list(registry.history("a")) == [third, second, first]
    assert second[8:] != third[8:]


def test_registry_refuses_other_bytes_than_those_scored(publisher: Publisher) -> None:
    """What is judged is what is shipped: another digest of the weights is no candidate."""
    with pytest.raises(Refused) as refused:
        publisher.publish(1, weights_sha256="0" * 64)
    assert refused.value.reason == "digest"
    assert publisher.registry.newest("a") is None


def test_registry_fenced_publisher_commits_nothing(publisher: Publisher, tmp_path: Path) -> None:
    """A publisher whose epoch is over is stopped before the commit; its number stays a gap."""
    files = adapters.write_files(tmp_path / "out", adapters.safetensors(adapters.random_tensors(1)))
    facts = adapters.facts(registries.file_sha256(files[WEIGHTS_FILE]))
    with pytest.raises(Fenced):
        publisher.registry.publish(files, facts, still_owner=lambda: False)
    assert publisher.registry.newest("a") is None
    assert registries.sequence(publisher.publish(2)) == 2


def test_registry_withdraws_for_good(publisher: Publisher, tmp_path: Path) -> None:
    """A withdrawn version keeps its manifest as lineage, loses its weights, and cannot be fetched."""
    first, second = publisher.publish(1), publisher.publish(2)
    registry = publisher.registry
    weights = registry.manifest(first).file(WEIGHTS_FILE).sha256
    registry.withdraw(first, "erasure")
    registry.withdraw(first, "again")
    assert registry.gone(first) == "erasure"
    assert registry.manifest(first).id == first
    assert not (tmp_path / "store" / "blobs" / "sha256" / weights).exists()
    with pytest.raises(Gone):
        registry.fetch(first, tmp_path / "node")
    registry.fetch(second, tmp_path / "node")
    for unknown in (BASE, "a000042-00000000"):
        with pytest.raises(Unknown):
            registry.withdraw(unknown, "no")


def test_registry_collects_only_the_unwanted(publisher: Publisher) -> None:
    """Collection frees old versions that nobody names, and blobs that no manifest names after a day."""
    versions = [publisher.publish(seed) for seed in range(5)]
    registry = publisher.registry
    stray = publisher.folder / "store" / "blobs" / "sha256" / "stray"
    stray.write_bytes(b"x")
    publisher.now = stray.stat().st_mtime + 60
    assert registry.collect(keep={versions[0]}, newest=2) == [versions[2], versions[1]]
    assert stray.exists()
    publisher.now += 25 * 3600
    assert registry.collect(keep={versions[0]}, newest=2) == []
    assert not stray.exists()
    assert [registry.gone(version) for version in versions] == [None, "collected", "collected", None, None]


def test_registry_pointer_is_only_a_hint(publisher: Publisher) -> None:
    """A lost or old pointer is found again by walking the claimed numbers, gaps included."""
    versions = [publisher.publish(seed) for seed in range(3)]
    pointer = publisher.folder / "store" / "lines" / "a"
    pointer.write_text(versions[0])
    (publisher.folder / "store" / "seq" / "a000004").touch()
    assert publisher.registry.newest("a") == versions[2]
    assert pointer.read_text() == versions[2]
    pointer.unlink()
    assert publisher.registry.newest("a") == versions[2]


_DIGEST = """
import sys
from pathlib import Path
from learner.registry import adapter_config, Lora
from tests import adapters
lora = Lora(r=2, alpha=4, target_modules=tuple({"q_proj", "down_proj", "k_proj"}))
sys.stdout.write(adapter_config(adapters.IDENTITY, lora).decode())
"""


def test_registry_digest_stable() -> None:
    """Three hash seeds in three processes give the same canonical adapter_config.json."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, check=True,
            capture_output=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(outputs) == 1
    assert json.loads(outputs.pop())["target_modules"] == ["down_proj", "k_proj", "q_proj"]


def test_registry_equal_weights_have_equal_digests(tmp_path: Path) -> None:
    """The same candidate in two stores gets the same id under the same key."""
    ids = set()
    for name in ("one", "two"):
        publisher = Publisher(tmp_path / name)
        publisher.folder.mkdir()
        (publisher.folder / "key").write_text("11" * 32)
        ids.add(publisher.publish(7))
    assert len(ids) == 1


def test_registry_manifest_reads_only_what_was_sealed(publisher: Publisher) -> None:
    """Any changed byte of a manifest is found: in its form, its id or its signature."""
    version = publisher.publish(1)
    path = publisher.folder / "store" / "versions" / version / MANIFEST_FILE
    raw = path.read_bytes()
    for at in range(0, len(raw), 7):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises((Malformed, Refused)):
            publisher.registry.manifest(version)
    path.write_bytes(raw)
    assert publisher.registry.manifest(version).id == version


def test_registry_trusts_known_keys_only(publisher: Publisher, tmp_path: Path) -> None:
    """A store opened with another key, or none, believes nothing."""
    version = publisher.publish(1)
    stranger = registries.load_signer(tmp_path / "stranger")
    for trusted in (registries.trust(), registries.trust(stranger.public)):
        with pytest.raises(Refused) as refused:
            Registry(tmp_path / "store", trusted, lambda: 0.0).manifest(version)
        assert refused.value.reason == "signature"
    assert (tmp_path / "stranger").stat().st_mode & 0o077 == 0
    assert "private" not in repr(stranger)


def test_registry_versions_never_leave_six_digits() -> None:
    """The id's width is fixed, so that none is part of another."""
    assert manifests.version_id("a", 999_999, "ab" * 32) == "a999999-abababab"
    for line, seq in (("a", 1_000_000), ("a", 0), ("A", 1), ("ab", 1)):
        with pytest.raises(Malformed):
            manifests.version_id(line, seq, "ab" * 32)


def test_registry_floats_are_cut() -> None:
    """Floats are cut to nine significant digits before they are hashed, and NaN is refused."""
    assert manifests.rounded({"x": [0.12345678949, 1]}) == {"x": [0.123456789, 1]}
    with pytest.raises(Malformed):
        manifests.canonical({"x": float("nan")})


def test_registry_derived_keys_follow_patterns() -> None:
    """Ranks follow PEFT's suffix rule, and unknown modules or architectures are refused."""
    lora = Lora(r=2, alpha=4, target_modules=("q_proj",), rank_pattern={"layers.1.self_attn.q_proj": 3})
    keys = registries.derived_keys(adapters.CONFIG, lora)
    assert keys["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == (2, 16)
    assert keys["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"] == (16, 3)
    bad: list[tuple[dict[str, Any], Lora]] = [
        (adapters.CONFIG, Lora(r=2, alpha=4, target_modules=("lm_head",))),
        ({**adapters.CONFIG, "model_type": "mixtral"}, lora),
    ]
    for config, wrong in bad:
        with pytest.raises(Malformed):
            registries.derived_keys(config, wrong)


class RegistryMachine(RuleBasedStateMachine):
    """The registry beside a dict: publish, fetch, withdraw and collect in any order."""

    @initialize()
    def start(self) -> None:
        """Begin with an empty store in a folder of its own."""
        self.holder = TemporaryDirectory()
        self.publisher = Publisher(Path(self.holder.name))
        self.alive: dict[str, bytes] = {}
        self.gone: dict[str, str] = {}

    @rule(seed=st.integers(0, 2))
    def publish(self, seed: int) -> None:
        """Publish one of three weights; equal bytes may be published again."""
        version = self.publisher.publish(seed)
        assert version not in self.alive
        assert version not in self.gone
        assert registries.sequence(version) == len(self.alive) + len(self.gone) + 1
        self.alive[version] = adapters.safetensors(adapters.random_tensors(seed))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """Withdraw a living version."""
        version = data.draw(st.sampled_from(sorted(self.alive)))
        self.publisher.registry.withdraw(version, "operator")
        del self.alive[version]
        self.gone[version] = "operator"

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), newest=st.integers(1, 3))
    def collect(self, data: st.DataObject, newest: int) -> None:
        """Collect with one version named."""
        kept = data.draw(st.sampled_from(sorted(self.alive)))
        everything = sorted({*self.alive, *self.gone}, reverse=True)
        expected = {v for v in everything[newest:] if v in self.alive and v != kept}
        assert set(self.publisher.registry.collect({kept}, newest)) == expected
        for version in expected:
            del self.alive[version]
            self.gone[version] = "collected"

    @invariant()
    def reads_agree(self) -> None:
        """Living versions come back whole, others are gone for their reason, the newest is the newest."""
        if not hasattr(self, "publisher"):
            return
        registry = self.publisher.registry
        node = Path(self.holder.name) / "node"
        for version, weights in self.alive.items():
            assert (registry.fetch(version, node) / WEIGHTS_FILE).read_bytes() == weights
        for version, reason in self.gone.items():
            assert registry.gone(version) == reason
            assert registry.manifest(version).id == version
        assert registry.newest("a") == max({*self.alive, *self.gone}, default=None)

    def teardown(self) -> None:
        """Remove the folder."""
        if hasattr(self, "holder"):
            self.holder.cleanup()


test_registry_model_based = RegistryMachine.TestCase
test_registry_model_based.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
