"""The checks before a version may be loaded: every broken artifact is refused for its reason, every good one passes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.registry import (
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Bounds,
    Foundation,
    Lora,
    Malformed,
    Refused,
    Standing,
    adapter_config,
    base_identity,
    file_sha256,
    load_signer,
    trust,
    verify,
)
from learner.registry import manifest as manifests
from learner.registry.tensors import derived_keys, keyset_digest, open_weights, scan
from tests import adapters
from tests.adapters import Publisher, safetensors


@dataclass
class Fetched:
    """A good version in a node's folder, and the key that can sign a worse one."""

    publisher: Publisher
    directory: Path

    def verify(self, standing: Standing | None = None, foundation: Foundation = adapters.FOUNDATION) -> str:
        """Check it as a node does."""
        return verify(self.directory, trust(self.publisher.signer.public), foundation, standing).id

    def change_weights(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Write other tensors over the good ones."""
        tensors = adapters.random_tensors(1)
        change(tensors)
        (self.directory / WEIGHTS_FILE).write_bytes(safetensors(tensors))

    def sign_again(self, **changes: Any) -> None:
        """What an attacker with the key would do: a manifest that fits the files on disk."""
        body = json.loads((self.directory / MANIFEST_FILE).read_bytes())
        body["files"] = [
            {"path": name, "size": path.stat().st_size, "sha256": file_sha256(path)}
            for name in (CONFIG_FILE, WEIGHTS_FILE)
            if (path := self.directory / name).exists()
        ]
        weights = open_weights(self.directory / WEIGHTS_FILE)
        numbers = scan(weights)
        body["tensors"] |= {
            "count": len(weights.entries), "keyset_sha256": keyset_digest(weights.shapes),
            "fro_norm": numbers.fro_norm, "max_abs": numbers.max_abs,
        }  # fmt: skip
        sealed = manifests.sealed(body | changes, self.publisher.signer)
        target = self.directory.with_name(sealed.id)
        self.directory.rename(target)
        self.directory = target
        (target / MANIFEST_FILE).write_bytes(manifests.encode(sealed))


@pytest.fixture
def fetched(tmp_path: Path) -> Fetched:
    """A freshly fetched version."""
    publisher = Publisher(tmp_path)
    return Fetched(publisher, publisher.registry.fetch(publisher.publish(1), tmp_path / "node"))


def _flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(bytes(raw))


def _smuggle(name: str) -> Callable[[Fetched], None]:
    def attack(fetched: Fetched) -> None:
        fetched.change_weights(lambda tensors: tensors.update({name: np.zeros((16, 16), np.float32)}))
        fetched.sign_again()

    return attack


def _number(value: float) -> Callable[[Fetched], None]:
    def attack(fetched: Fetched) -> None:
        def change(tensors: dict[str, Any]) -> None:
            next(iter(tensors.values()))[0, 0] = value

        fetched.change_weights(change)
        if math.isfinite(value):
            fetched.sign_again()
        else:
            numbers = {"nonfinite": 0}
            body = json.loads((fetched.directory / MANIFEST_FILE).read_bytes())
            fetched.sign_again(tensors=body["tensors"] | numbers)

    return attack


def _missing_layer(fetched: Fetched) -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            del tensors[name]

    fetched.change_weights(change)
    fetched.sign_again()


def _wrong_prefix(fetched: Fetched) -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.replace("base_model.model.", "")] = tensors.pop(name)

    fetched.change_weights(change)
    fetched.sign_again()


def _smaller_rank(fetched: Fetched) -> None:
    def change(tensors: dict[str, Any]) -> None:
        name = next(iter(tensors))
        tensors[name] = tensors[name][:1]

    fetched.change_weights(change)
    fetched.sign_again()


def _alpha(fetched: Fetched) -> None:
    lora = Lora(r=2, alpha=4_000_000, target_modules=adapters.LORA.target_modules)
    (fetched.directory / CONFIG_FILE).write_bytes(adapter_config(adapters.IDENTITY, lora))
    fetched.sign_again(lora=manifests.to_object(lora))


def _dora(fetched: Fetched) -> None:
    config = json.loads((fetched.directory / CONFIG_FILE).read_bytes()) | {"use_dora": True}
    (fetched.directory / CONFIG_FILE).write_bytes(manifests.canonical(config))
    fetched.sign_again()


def _config_alpha_only(fetched: Fetched) -> None:
    lora = Lora(r=2, alpha=400, target_modules=adapters.LORA.target_modules)
    (fetched.directory / CONFIG_FILE).write_bytes(adapter_config(adapters.IDENTITY, lora))
    fetched.sign_again()


def _symlink(fetched: Fetched) -> None:
    elsewhere = fetched.directory.parent.parent / "elsewhere"
    (fetched.directory / WEIGHTS_FILE).rename(elsewhere)
    (fetched.directory / WEIGHTS_FILE).symlink_to(elsewhere)


def _outside_name(fetched: Fetched) -> None:
    body = json.loads((fetched.directory / MANIFEST_FILE).read_bytes())
    files = [body["files"][0], body["files"][1] | {"path": f"../{WEIGHTS_FILE}"}]
    sealed = manifests.sealed(body | {"files": files}, fetched.publisher.signer)
    fetched.directory = fetched.directory.rename(fetched.directory.with_name(sealed.id))
    (fetched.directory / MANIFEST_FILE).write_bytes(manifests.encode(sealed))


def _stranger(fetched: Fetched) -> None:
    stranger = load_signer(fetched.publisher.folder / "stranger")
    body = json.loads((fetched.directory / MANIFEST_FILE).read_bytes())
    body["signature"] = manifests.to_object(stranger.sign(manifests.digest(body)))
    (fetched.directory / MANIFEST_FILE).write_bytes(manifests.canonical(body))


def _torn(fetched: Fetched) -> None:
    path = fetched.directory / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-40])


def _other_name(fetched: Fetched) -> None:
    fetched.directory = fetched.directory.rename(fetched.directory.with_name("a000009-00000000"))


ATTACKS: dict[str, tuple[str, Callable[[Fetched], object]]] = {
    "an extra file": ("extra_file", lambda f: (f.directory / "README.md").write_text("hello")),
    "a pickle": ("extra_file", lambda f: (f.directory / "adapter_model.bin").write_bytes(b"\x80")),
    "a link": ("extra_file", _symlink),
    "a name outside": ("format", _outside_name),
    "a torn file": ("format", _torn),
    "a manifest under another name": ("format", _other_name),
    "no manifest": ("format", lambda f: (f.directory / MANIFEST_FILE).unlink()),
    "a manifest of another digest": ("format", lambda f: _flip(f.directory / MANIFEST_FILE, 40)),
    "a flipped bit of a number": ("digest", lambda f: _flip(f.directory / WEIGHTS_FILE, -9)),
    "other weights": ("digest", lambda f: f.change_weights(lambda tensors: tensors.update(adapters.random_tensors(2)))),
    "a stranger's signature": ("signature", _stranger),
    "another base": ("base", lambda f: f.sign_again(base=manifests.to_object(adapters.IDENTITY) | {"revision": "r2"})),
    "another tokenizer": (
        "base", lambda f: f.sign_again(base=manifests.to_object(adapters.IDENTITY) | {"tokenizer_sha256": "x"}),
    ),
    "a smuggled base weight": ("keys", _smuggle("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight")),
    "a smuggled head": ("keys", _smuggle("base_model.model.lm_head.lora_A.weight")),
    "a missing layer": ("keys", _missing_layer),
    "a wrong prefix": ("keys", _wrong_prefix),
    "a smaller rank": ("keys", _smaller_rank),
    "DoRA": ("keys", _dora),
    "another alpha in the config only": ("keys", _config_alpha_only),
    "alpha x 1e6": ("numbers", _alpha),
    "a NaN": ("numbers", _number(math.nan)),
    "an infinity": ("numbers", _number(math.inf)),
    "a huge number": ("numbers", _number(1e5)),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_registry_verify_refuses(fetched: Fetched, attack: str) -> None:
    """Every kind of tampering has its reason, signed again or not."""
    assert fetched.verify() == fetched.directory.name
    reason, apply = ATTACKS[attack]
    apply(fetched)
    with pytest.raises(Refused) as refused:
        fetched.verify()
    assert refused.value.reason == reason


def test_registry_verify_accepts_a_hundred_good_ones(tmp_path: Path) -> None:
    """No good version is refused."""
    publisher = Publisher(tmp_path)
    trusted = trust(publisher.signer.public)
    for seed in range(100):
        directory = publisher.registry.fetch(publisher.publish(seed % 7), tmp_path / "node")
        verify(directory, trusted, adapters.FOUNDATION, Standing(1, 1, frozenset({directory.name})))


def test_registry_verify_rollback(fetched: Fetched) -> None:
    """An old record, a denied id, or a low sequence that nobody names is refused; a named one is welcome."""
    version = fetched.directory.name
    standing = Standing(generation=5, seen_generation=5, named=frozenset({version}), highest_sequence=9)
    assert fetched.verify(standing) == version
    assert fetched.verify(replace(standing, named=frozenset(), highest_sequence=1)) == version
    wrong = (
        replace(standing, seen_generation=6),
        replace(standing, denied=frozenset({version})),
        replace(standing, named=frozenset()),
    )
    for bad in wrong:
        with pytest.raises(Refused) as refused:
            fetched.verify(bad)
        assert refused.value.reason == "rollback"


def test_registry_publish_refuses_what_nodes_would(tmp_path: Path) -> None:
    """Broken candidates never become versions."""
    publisher = Publisher(tmp_path)

    def publish(name: str, weights: bytes, config: bytes | None = None) -> str:
        files = adapters.write_files(tmp_path / name, weights, config)
        return publisher.registry.publish(files, adapters.facts(file_sha256(files[WEIGHTS_FILE])))

    good = adapters.random_tensors(1)
    name = next(iter(good))
    cases: list[tuple[str, bytes, bytes | None]] = [
        ("format", b"not safetensors at all", None),
        ("format", safetensors(good, {"note": "hello"}), None),
        ("keys", safetensors({k: v for k, v in good.items() if k != name}), None),
        ("keys", safetensors(good), b"{}"),
        ("numbers", safetensors(good | {name: np.full_like(good[name], np.nan)}), None),
        ("numbers", safetensors(good | {name: good[name] * 1e4}), None),
    ]
    for at, (reason, weights, config) in enumerate(cases):
        with pytest.raises(Refused) as refused:
            publish(f"case{at}", weights, config)
        assert refused.value.reason == reason
    extra = adapters.write_files(tmp_path / "extra", safetensors(good))
    with pytest.raises(Refused) as refused:
        publisher.registry.publish(extra | {"README.md": extra[CONFIG_FILE]}, adapters.facts("0" * 64))
    assert refused.value.reason == "extra_file"
    assert publisher.registry.newest("a") is None


@pytest.mark.parametrize("bits", ["BF16", "F16", "F32"])
def test_registry_scan_equals_a_plain_one(tmp_path: Path, bits: str) -> None:
    """Counts, norm and magnitude by integer views equal those of float arithmetic, in each dtype, unaligned too."""
    draw = np.random.default_rng(3)
    values = draw.normal(0, 1, 200_001).astype(np.float32)
    values[[5, 70_000, 199_999]] = [np.nan, np.inf, -np.inf]
    short = adapters.bfloat16(values)
    widened = (short.astype(np.uint32) << 16).view(np.float32)
    half = values.astype(np.float16)
    raw, expected = {
        "BF16": (short.tobytes(), widened),
        "F16": (half.tobytes(), half.astype(np.float32)),
        "F32": (values.tobytes(), values),
    }[bits]
    header = json.dumps({"x": {"dtype": bits, "shape": [len(values)], "data_offsets": [0, len(raw)]}}).encode() + b" "
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw)
    numbers = scan(open_weights(path))
    finite = expected[np.isfinite(expected)].astype(np.float64)
    assert numbers.nonfinite == 3
    assert numbers.fro_norm == pytest.approx(float(np.linalg.norm(finite)), rel=1e-5)
    assert numbers.max_abs == float(np.abs(finite).max())


@given(st.binary(max_size=400))
def test_registry_open_weights_survives_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Any bytes are either a sound file or Malformed."""
    path = tmp_path_factory.mktemp("any") / "x"
    for content in (raw, len(raw).to_bytes(8, "little") + raw, (2).to_bytes(8, "little") + b"{}" + raw):
        path.write_bytes(content)
        try:
            open_weights(path)
        except Malformed:
            continue
        assert content[8:10] == b"{}"


HEADERS: list[tuple[str, Any]] = [
    ("overlap", {"a": ["F32", [2], 0, 8], "b": ["F32", [2], 4, 12]}),
    ("gap", {"a": ["F32", [2], 0, 8], "b": ["F32", [1], 8, 16]}),
    ("beyond the file", {"a": ["F32", [9], 0, 36]}),
    ("dtype", {"a": ["I64", [1], 0, 8]}),
    ("negative", {"a": ["F32", [-1, -3], 0, 12]}),
    ("boolean", {"a": ["F32", [True, 3], 0, 12]}),
]


@pytest.mark.parametrize(("name", "entries"), HEADERS)
def test_registry_open_weights_refuses_bad_headers(tmp_path: Path, name: str, entries: dict[str, Any]) -> None:
    """Headers that lie about their data are malformed."""
    assert name
    header = json.dumps({
        key: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        for key, (dtype, shape, begin, end) in entries.items()
    }).encode()  # fmt: skip
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 12)
    with pytest.raises(Malformed):
        open_weights(path)


def test_registry_verify_bounds_are_settings(fetched: Fetched) -> None:
    """Rank and size limits belong to the fleet."""
    trusted = trust(fetched.publisher.signer.public)
    for bounds, reason in ((Bounds(max_rank=1), "keys"), (Bounds(max_bytes=100), "format")):
        with pytest.raises(Refused) as refused:
            verify(fetched.directory, trusted, adapters.FOUNDATION, bounds=bounds)
        assert refused.value.reason == reason


def test_registry_base_identity(tmp_path: Path) -> None:
    """A base is known by its config, tokenizer, chat template and weights."""
    (tmp_path / "config.json").write_text(json.dumps(adapters.CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = base_identity(tmp_path, "tiny")
    assert first.config == adapters.CONFIG
    assert len(first.base.revision) == 64
    assert base_identity(tmp_path, "tiny", "v1").base.revision == "v1"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "y"}))
    assert base_identity(tmp_path, "tiny").base.chat_template_sha256 != first.base.chat_template_sha256
    assert derived_keys(first.config, adapters.LORA)
