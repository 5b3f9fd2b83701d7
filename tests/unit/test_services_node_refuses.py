"""Every kind of hostile or torn version: refused with its own reason, before any request, while stable serves on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save
from torch import Tensor, full

from learner.registry import BASE, WEIGHTS_FILE, Reason, load_signer
from services.rollout_records import NodeState
from tests.beds import Bed
from tests.fleet import Shop

HEADER = {"format": "pt"}


def weights_of(shop: Shop) -> dict[str, Tensor]:
    """The tensors of the good version."""
    found: dict[str, Tensor] = load((shop.folder / "out-0" / WEIGHTS_FILE).read_bytes())
    return found


def changed(shop: Shop, change: Callable[[dict[str, Tensor]], None]) -> bytes:
    """Its file after a change."""
    tensors = weights_of(shop)
    change(tensors)
    raw: bytes = save(tensors, metadata=HEADER)
    return raw


def first(tensors: dict[str, Tensor]) -> str:
    """A name."""
    return min(tensors)


def smuggle(tensors: dict[str, Tensor]) -> None:
    """A base weight in the adapter file."""
    tensors["base_model.model.lm_head.weight"] = full((4, 4), 1.0)


def rename(tensors: dict[str, Tensor]) -> None:
    """A wrong module prefix: engines load it and answer as the base."""
    for name in list(tensors):
        tensors[name.replace("base_model.model.", "base_model.other.")] = tensors.pop(name)


def shrink(tensors: dict[str, Tensor]) -> None:
    """One tensor of smaller rank."""
    name = first(tensors)
    tensors[name] = tensors[name][:1].contiguous()


def grow(tensors: dict[str, Tensor]) -> None:
    """A number far out of bounds."""
    tensors[first(tensors)][0, 0] = 1e30


def lack(tensors: dict[str, Tensor]) -> None:
    """A layer is missing."""
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


def other_base(body: dict[str, Any]) -> None:
    """Trained on another base."""
    body["base"]["config_sha256"] = "0" * 64


def other_tokenizer(body: dict[str, Any]) -> None:
    """Trained with another tokenizer."""
    body["base"]["tokenizer_sha256"] = "0" * 64


def loud(body: dict[str, Any]) -> None:
    """Alpha times a million: not the alpha of adapter_config.json."""
    body["lora"]["alpha"] = 16_000_000


def wide(body: dict[str, Any]) -> None:
    """A rank above the fleet's maximum."""
    body["lora"]["r"] = 4096


def other_prints(body: dict[str, Any]) -> None:
    """A fingerprint that these weights do not have."""
    body["probe"]["logprobs"] = body["probe"]["base_logprobs"]


FORGED: list[tuple[str, Reason, dict[str, Any]]] = [
    ("smuggled base weight", Reason.KEYS, {"tensors": smuggle}),
    ("wrong prefix", Reason.KEYS, {"tensors": rename}),
    ("smaller rank", Reason.KEYS, {"tensors": shrink}),
    ("missing layer", Reason.KEYS, {"tensors": lack}),
    ("huge number", Reason.NUMBERS, {"tensors": grow}),
    ("other base", Reason.BASE, {"edit": other_base}),
    ("other tokenizer", Reason.BASE, {"edit": other_tokenizer}),
    ("rank above the fleet's", Reason.KEYS, {"edit": wide}),
    ("alpha times a million", Reason.KEYS, {"edit": loud}),
    ("other fingerprint", Reason.PROBE, {"edit": other_prints}),
    ("torn file", Reason.FORMAT, {"cut": 40}),
    ("unknown key", Reason.SIGNATURE, {"stranger": True}),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A base, a stable version, and the store to forge in."""
    found = Shop(tmp_path_factory.mktemp("shop"))
    found.publish(0)
    return found


@pytest.mark.parametrize(("kind", "reason", "how"), FORGED, ids=[kind for kind, _, _ in FORGED])
def test_node_refuses_forged_versions(
    shop: Shop, tmp_path: Path, kind: str, reason: Reason, how: dict[str, Any]
) -> None:
    """The reason is reported, the engine has no trace of it, the door stays shut, and stable answers."""
    good = next(iter(shop.registry.history("a")))
    weights = changed(shop, how["tensors"]) if "tensors" in how else None
    if "cut" in how:
        weights = (shop.folder / "out-0" / WEIGHTS_FILE).read_bytes()[: -how["cut"]]
    signer = load_signer(tmp_path / "stranger") if "stranger" in how else None
    bad = shop.forge(good, weights=weights, edit=how.get("edit", lambda _: None), signer=signer)
    bed = Bed(shop, tmp_path)
    bed.want(1, stable=good, canary=bad)
    status = bed.agent.statuses()[bad]
    assert (status.state, status.reason) == (NodeState.QUARANTINED, reason), kind
    assert set(bed.engine.adapters) == {good}
    assert not bed.agent.enter(bad)
    assert bed.agent.enter(good)
    if reason is not Reason.PROBE:
        assert bad not in {name for _, name in bed.engine.calls}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "README.md", "..hidden"])
def test_node_refuses_folders_with_anything_else_in_them(shop: Shop, tmp_path: Path, name: str) -> None:
    """A file beside the three, or a link in place of one, ends the check before a byte is read."""
    good = next(iter(shop.registry.history("a")))
    bed = Bed(shop, tmp_path)
    target = shop.registry.fetch(good, bed.config.directory)
    (target / name).write_bytes(b"x")
    bed.want(1, stable=BASE, canary=good)
    assert bed.agent.statuses()[good].reason == "extra_file"


def test_node_refuses_a_manifest_that_was_edited(shop: Shop, tmp_path: Path) -> None:
    """One changed word in the store: the digest no longer gives the id, so it is no version at all."""
    good = shop.publish(7)
    path = shop.folder / "store" / "versions" / good / "manifest.json"
    body = json.loads(path.read_bytes())
    body["eval"]["decision"] = "refuse" if body["eval"]["decision"] == "promote" else "promote"
    path.chmod(0o600)
    path.write_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    bed = Bed(shop, tmp_path)
    bed.want(1, stable=BASE, canary=good)
    assert bed.states()[good] is not NodeState.READY
    assert bed.engine.adapters == {}


def test_node_accepts_every_good_version(shop: Shop, tmp_path: Path) -> None:
    """None of twenty good ones is refused."""
    bed = Bed(shop, tmp_path)
    for generation, seed in enumerate(range(100, 120), 1):
        good = shop.publish(seed)
        bed.want(generation, stable=BASE, canary=good)
        assert bed.states()[good] is NodeState.READY
