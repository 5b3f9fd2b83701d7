"""Tiny adapters for tests: a base of two layers, random weights in safetensors, and the facts to publish them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.registry import (
    BASE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Base,
    Eval,
    Facts,
    Foundation,
    Lora,
    Probe,
    Registry,
    Signer,
    Training,
    adapter_config,
    derived_keys,
    file_sha256,
    load_signer,
    trust,
)

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
IDENTITY = Base(name="tiny", revision="r1", config_sha256="c", tokenizer_sha256="t", chat_template_sha256="h")
FOUNDATION = Foundation(IDENTITY, CONFIG)
LORA = Lora(r=2, alpha=4, target_modules=("down_proj", "k_proj", "q_proj"))


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32 numbers."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def safetensors(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file in BF16, tensors in the order given."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, values in tensors.items():
        raw = bfloat16(values).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def random_tensors(seed: int, lora: Lora = LORA, config: Mapping[str, Any] = CONFIG) -> dict[str, NDArray[np.float32]]:
    """Normal numbers under the names and shapes that the base and the settings give."""
    draw = np.random.default_rng(seed)
    shapes = derived_keys(config, lora)
    return {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write_files(folder: Path, weights: bytes, config: bytes | None = None) -> dict[str, Path]:
    """Both files of a version in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / CONFIG_FILE).write_bytes(adapter_config(IDENTITY, LORA) if config is None else config)
    return {name: folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)}


def facts(weights_sha256: str, parent: str = BASE) -> Facts:
    """Facts of a version of line `a` that the gate promoted."""
    return Facts(
        line="a", parent=parent, base=IDENTITY, base_config=CONFIG, lora=LORA, weights_sha256=weights_sha256,
        probe=Probe(
            prompts=((1, 2, 3), (4, 5)), token_ids=(7, 8), logprobs=((-1.0, -2.0), (-0.5, -3.0)),
            base_logprobs=((-1.5, -2.5), (-1.0, -2.0)), parent_logprobs=((-1.5, -2.5), (-1.0, -2.0)),
        ),
        eval=Eval(
            set_digest="e", examples=300, nll_per_token=1.0, base_nll_per_token=2.0, parent_nll_per_token=1.1,
            decision="promote", gated_against=parent,
        ),
        training=Training(
            git_commit="0" * 40, seed=1, run="run", steps=(0, 5), fresh_from=1.0, fresh_to=2.0,
            offsets={"chats.raw-0": (0, 9)}, replay_snapshot="s", epoch=1,
        ),
    )  # fmt: skip


@dataclass
class Publisher:
    """A registry in a temporary folder with a key of its own, and a clock that stands still until moved."""

    folder: Path
    now: float = 1_767_225_600.0

    @property
    def signer(self) -> Signer:
        """The key of this store."""
        return load_signer(self.folder / "key")

    @property
    def registry(self) -> Registry:
        """The registry, opened afresh."""
        signer = self.signer
        return Registry(self.folder / "store", trust(signer.public), lambda: self.now, signer=signer)

    def publish(self, seed: int, parent: str = BASE, **changes: Any) -> str:
        """Publish random weights and return their id."""
        files = write_files(self.folder / f"out{seed}", safetensors(random_tensors(seed)))
        return self.registry.publish(files, replace(facts(file_sha256(files[WEIGHTS_FILE]), parent), **changes))
