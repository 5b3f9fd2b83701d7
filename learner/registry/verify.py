"""The checks that a version must pass before it may be loaded, in order of their cost, each with its reason.

extra_file, format, digest, signature, rollback, base, keys, numbers; `load` and `probe` are the node's. All of
them read files and hashes only: a non-finite number is found before any request could meet it.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from learner.registry import manifest as manifests
from learner.registry import tensors
from learner.registry.manifest import (
    CONFIG_FILE,
    FILES,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Base,
    Lora,
    Malformed,
    Manifest,
    RegistryError,
    Trust,
)


class Reason(StrEnum):
    """Why a version may not be loaded; the closed label set of `adapter_verify_failures_total`."""

    EXTRA_FILE = "extra_file"
    FORMAT = "format"
    DIGEST = "digest"
    SIGNATURE = "signature"
    ROLLBACK = "rollback"
    BASE = "base"
    KEYS = "keys"
    NUMBERS = "numbers"
    LOAD = "load"
    PROBE = "probe"


class Refused(RegistryError):
    """A version failed a check: `reason`, and a detail without any text of the file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Bounds:
    """Limits of an adapter's numbers; the product B A times `max_scale` stays far below what a base can bear."""

    max_abs: float = 64.0
    """Largest magnitude of one number."""
    max_norm: float = 4096.0
    """Largest Frobenius norm of all tensors."""
    max_scale: float = 64.0
    """Largest alpha / r (alpha / sqrt(r) with rsLoRA)."""
    max_rank: int = 64
    """The fleet's largest rank."""
    max_bytes: int = 4 << 30
    """Largest file."""


BOUNDS = Bounds()
"""The shipped limits."""


@dataclass(frozen=True)
class Standing:
    """What a node knows of the rollout: the current signed record, and the highest marks it has seen."""

    generation: int
    seen_generation: int
    named: frozenset[str]
    """Stable, canary, next and previous of the current record."""
    denied: frozenset[str] = frozenset()
    highest_sequence: int = 0
    """Of the versions verified here; a lower one is accepted only while it is named."""


@dataclass(frozen=True)
class Foundation:
    """The base that this node serves: its identity and its config.json."""

    base: Base
    config: Mapping[str, Any]


def verify(
    directory: Path, trust: Trust, foundation: Foundation, standing: Standing | None = None, bounds: Bounds = BOUNDS
) -> Manifest:
    """Check a fetched version directory, named by its id; `standing` None skips `rollback`. Raises Refused."""
    check_names(directory)
    found = check_format(directory, bounds)
    check_digest(directory, found)
    if not trust.accepts(found.digest, found.signature):
        raise Refused(Reason.SIGNATURE, f"{found.id} is not signed by a known key")
    if standing is not None:
        check_rollback(found.id, standing)
    check_base(found, foundation.base)
    check_contents(directory, found, foundation.config, bounds)
    return found


def check_names(directory: Path, names: tuple[str, ...] = (*FILES, MANIFEST_FILE)) -> None:
    """Nothing but the listed regular files: no link, folder or other name. Raises Refused."""
    if not stat.S_ISDIR(directory.lstat().st_mode):
        raise Refused(Reason.EXTRA_FILE, "the version directory is a link or a file")
    for entry in directory.iterdir():
        if entry.name not in names or not stat.S_ISREG(entry.lstat().st_mode):
            raise Refused(Reason.EXTRA_FILE, entry.name[:80])


def check_format(directory: Path, bounds: Bounds) -> Manifest:
    """A canonical manifest of this very id, exactly our two files, a sound safetensors header. Raises Refused."""
    try:
        found = manifests.read((directory / MANIFEST_FILE).read_bytes())
        tensors.open_weights(directory / WEIGHTS_FILE)
        json.loads((directory / CONFIG_FILE).read_bytes())
    except (Malformed, OSError, ValueError, RecursionError) as error:
        raise Refused(Reason.FORMAT, str(error)[:200]) from None
    if found.id != directory.name:
        raise Refused(Reason.FORMAT, f"manifest of {found.id} under another name")
    if sorted(file.path for file in found.files) != sorted(FILES):
        raise Refused(Reason.FORMAT, "the manifest lists other files than " + ", ".join(FILES))
    if any(file.size > bounds.max_bytes for file in found.files):
        raise Refused(Reason.FORMAT, f"a file above {bounds.max_bytes} bytes")
    return found


def check_digest(directory: Path, found: Manifest) -> None:
    """Size and sha256 of each file are those of the manifest. Raises Refused."""
    for file in found.files:
        path = directory / file.path
        if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
            raise Refused(Reason.DIGEST, file.path)


def check_rollback(version: str, standing: Standing) -> None:
    """The version is wanted now: no older record, no denied id, no lower sequence but a named one. Raises Refused."""
    if standing.generation < standing.seen_generation:
        raise Refused(Reason.ROLLBACK, f"generation {standing.generation} after {standing.seen_generation}")
    if version in standing.denied:
        raise Refused(Reason.ROLLBACK, f"{version} is denied")
    if version not in standing.named and manifests.sequence(version) < standing.highest_sequence:
        raise Refused(Reason.ROLLBACK, f"{version} is below sequence {standing.highest_sequence} and not named")


def check_base(found: Manifest, base: Base) -> None:
    """The version belongs to this very base, tokenizer and chat template. Raises Refused."""
    for name in base.__struct_fields__:
        if getattr(found.base, name) != getattr(base, name):
            raise Refused(Reason.BASE, f"{name} differs")


def check_contents(directory: Path, found: Manifest, config: Mapping[str, Any], bounds: Bounds) -> None:
    """Keys and settings as derived, then numbers finite and in bounds. Raises Refused."""
    weights = tensors.open_weights(directory / WEIGHTS_FILE)
    recorded = found.tensors
    check_keys(weights, found.lora, config, bounds)
    if len(weights.entries) != recorded.count or tensors.keyset_digest(weights.shapes) != recorded.keyset_sha256:
        raise Refused(Reason.KEYS, "keyset differs from the manifest's")
    check_config((directory / CONFIG_FILE).read_bytes(), found.base, found.lora)
    numbers = check_numbers(weights, found.lora, bounds)
    if not math.isclose(numbers.fro_norm, recorded.fro_norm, rel_tol=1e-5) or recorded.nonfinite:
        raise Refused(Reason.NUMBERS, "norm differs from the manifest's")


def check_config(raw: bytes, base: Base, lora: Lora) -> None:
    """adapter_config.json is the canonical one of these settings, so nothing else can hide in it. Raises Refused."""
    if raw != tensors.adapter_config(base, lora):
        raise Refused(Reason.KEYS, f"{CONFIG_FILE} is not the one that the LoRA settings give")


def check_keys(weights: tensors.Weights, lora: Lora, config: Mapping[str, Any], bounds: Bounds) -> None:
    """Names, shapes and dtype of the tensors are exactly those derived. Raises Refused."""
    if not all(0 < rank <= bounds.max_rank for rank in (lora.r, *lora.rank_pattern.values())):
        raise Refused(Reason.KEYS, f"rank {lora.r}, the fleet's maximum is {bounds.max_rank}")
    try:
        derived = tensors.derived_keys(config, lora)
    except Malformed as error:
        raise Refused(Reason.KEYS, str(error)) from None
    shapes = weights.shapes
    if shapes != derived:
        wrong = sorted(name for name in shapes.keys() ^ derived.keys())
        raise Refused(Reason.KEYS, f"{len(wrong)} names missing or extra" if wrong else "shapes differ")
    if weights.dtypes != {lora.dtype}:
        raise Refused(Reason.KEYS, f"dtype is not {lora.dtype}")


def check_numbers(weights: tensors.Weights, lora: Lora, bounds: Bounds) -> tensors.Numbers:
    """All numbers finite, norms and alpha within bounds. Raises Refused."""
    if not tensors.scale(lora) <= bounds.max_scale:
        raise Refused(Reason.NUMBERS, f"alpha / r is above {bounds.max_scale}")
    numbers = tensors.scan(weights)
    if numbers.nonfinite:
        raise Refused(Reason.NUMBERS, f"{numbers.nonfinite} numbers are not finite")
    if not (numbers.max_abs <= bounds.max_abs and numbers.fro_norm <= bounds.max_norm):
        raise Refused(Reason.NUMBERS, f"largest {numbers.max_abs:.3g}, norm {numbers.fro_norm:.3g}: out of bounds")
    return numbers


def file_sha256(path: Path) -> str:
    """Sha256 of a file, in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def base_identity(directory: Path, name: str, revision: str | None = None) -> Foundation:
    """The base in a model folder; without `revision`, the digest of its weight files stands for it."""
    config = (directory / "config.json").read_bytes()
    tokenizer_config = json.loads((directory / "tokenizer_config.json").read_bytes())
    template_file = directory / "chat_template.jinja"
    template = template_file.read_text() if template_file.exists() else tokenizer_config.get("chat_template") or ""
    if revision is None:
        digests = [file_sha256(path) for path in sorted(directory.glob("*.safetensors"))]
        revision = digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()
    identity = Base(
        name=name,
        revision=revision,
        config_sha256=sha256(config).hexdigest(),
        tokenizer_sha256=file_sha256(directory / "tokenizer.json"),
        chat_template_sha256=sha256(template.encode()).hexdigest(),
    )
    return Foundation(identity, json.loads(config))
