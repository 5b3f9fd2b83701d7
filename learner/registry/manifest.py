"""manifest.json: what a version is, in canonical bytes, with its digest, its id and its signature.

The digest is the sha256 of the canonical JSON without `id` and `signature`; the id carries its first eight
digits, so a manifest can neither be changed nor moved to another name. No chat text, customer or host name
stands in it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEMA = 1
BASE = "base"
"""Reserved id: the base model alone, parent of a line's first version."""

VERSION = re.compile(r"[a-z](\d{6})-([0-9a-f]{8})")
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""The closed set of files of a version."""

MANIFEST_FILE = "manifest.json"

Decision = Literal["promote", "refuse"]


class RegistryError(Exception):
    """Base of the registry's errors: Malformed, Refused (verify.py), Unknown, Gone and Fenced (store.py)."""


class Malformed(RegistryError):
    """Bytes that are no canonical manifest, or a value that cannot stand in one."""


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base model that an adapter belongs to; digests are sha256 in hex."""

    name: str
    revision: str
    config_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The LoRA settings from which every tensor's name and shape, and adapter_config.json, follow."""

    r: int
    alpha: int
    target_modules: tuple[str, ...]
    dtype: Literal["BF16", "F16", "F32"] = "BF16"
    rslora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, int] = {}


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a version: bytes and sha256 in hex."""

    path: str
    size: int
    sha256: str


class Tensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Facts of the weights, computed from the stored bytes."""

    count: int
    keyset_sha256: str
    nonfinite: int
    fro_norm: float
    max_abs: float
    delta_norm_to_parent: float


class Tolerances(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Largest difference, in nats, that a probe may show: per precision of the engine, and in any case."""

    fp32: float = 1e-4
    bf16: float = 3e-2
    refuse_above: float = 0.2


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Proof of effect: for each prompt of token ids, the log-probabilities of `token_ids` as the first new token."""

    prompts: tuple[tuple[int, ...], ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[float, ...], ...]
    base_logprobs: tuple[tuple[float, ...], ...]
    parent_logprobs: tuple[tuple[float, ...], ...]
    tolerances: Tolerances = Tolerances()


class Eval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the gate measured, nats per reply token, and decided."""

    set_digest: str
    examples: int
    nll_per_token: float
    base_nll_per_token: float
    parent_nll_per_token: float
    decision: Decision
    gated_against: str
    log_e: float = 0.0
    log_threshold: float = 0.0


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lineage: which run, steps, data and code made the weights. Times are Kafka timestamps in seconds."""

    git_commit: str
    seed: int
    run: str
    steps: tuple[int, int]
    fresh_from: float
    fresh_to: float
    offsets: dict[str, tuple[int, int]]
    replay_snapshot: str
    epoch: int


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ed25519 over the digest, with the id of the key."""

    key: str
    value: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version; build it with `sealed`, read it with `read`."""

    id: str
    line: str
    seq: int
    parent: str
    created_at: str
    base: Base
    lora: Lora
    files: tuple[File, ...]
    tensors: Tensors
    probe: Probe
    eval: Eval
    training: Training
    signature: Signature
    schema: Literal[1] = 1

    @property
    def digest(self) -> str:
        """Sha256, in hex, of the canonical manifest without id and signature."""
        return digest(to_object(self))

    def file(self, path: str) -> File:
        """The entry of one file. Raises Malformed when there is none."""
        found = [entry for entry in self.files if entry.path == path]
        if len(found) != 1:
            raise Malformed(f"{self.id}: {len(found)} entries for {path}")
        return found[0]


@dataclass(frozen=True)
class Signer:
    """A private key that signs digests; the repr shows the key's id only."""

    private: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        """First 16 hex digits of the public key's sha256."""
        return key_id(self.public)

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, digest: str) -> Signature:
        """The signature over a digest in hex."""
        return Signature(key=self.key_id, value=self.private.sign(bytes.fromhex(digest)).hex())

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"


@dataclass(frozen=True)
class Trust:
    """Public keys that may sign versions, by key id; none trusts nobody."""

    keys: Mapping[str, bytes]

    def accepts(self, digest: str, signature: Signature) -> bool:
        """Whether a known key signed this digest."""
        key = self.keys.get(signature.key)
        if key is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signature.value), bytes.fromhex(digest))
        except (InvalidSignature, ValueError):
            return False
        return True


def trust(*publics: bytes) -> Trust:
    """Trust in these raw public keys."""
    return Trust({key_id(public): public for public in publics})


def key_id(public: bytes) -> str:
    """The id under which a public key is known."""
    return sha256(public).hexdigest()[:16]


def load_signer(path: Path) -> Signer:
    """The signer in a file of 64 hex digits; where there is none, a new one for the owner's eyes is written."""
    try:
        return Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip())))
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(private.private_bytes_raw().hex())
    return Signer(private)


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, separators `,` and `:`, and no NaN. Raises Malformed."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as error:
        raise Malformed(str(error)) from None


def rounded(value: Any) -> Any:
    """The same JSON value with floats cut to 9 significant digits."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else value
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(item) for item in value]
    return value


def to_object(part: msgspec.Struct) -> dict[str, Any]:
    """A manifest, or a part of one, as plain JSON values."""
    found: dict[str, Any] = msgspec.to_builtins(part)
    return found


def digest(body: Mapping[str, Any]) -> str:
    """Sha256, in hex, of a manifest's object without id and signature."""
    return sha256(canonical({k: v for k, v in body.items() if k not in {"id", "signature"}})).hexdigest()


def version_id(line: str, seq: int, digest: str) -> str:
    """`a000123-9f3ab2c4`. Raises Malformed when the sequence has left six digits: take a new line letter."""
    version = f"{line}{seq:06d}-{digest[:8]}"
    if not VERSION.fullmatch(version) or seq < 1:
        raise Malformed(f"line={line!r}, seq={seq}: a version needs one letter a-z and a sequence of 1 to 999999")
    return version


def sequence(version: str) -> int:
    """The sequence number in an id; 0 for `base`. Raises Malformed."""
    if version == BASE:
        return 0
    found = VERSION.fullmatch(version)
    if found is None:
        raise Malformed(f"{version!r} is no version id")
    return int(found[1])


def sealed(body: Mapping[str, Any], signer: Signer) -> Manifest:
    """Give the object of a manifest its id and signature; floats are cut first. Raises Malformed."""
    cut = rounded({"schema": SCHEMA, **body})
    checked = _convert({**cut, "id": "", "signature": {"key": "", "value": ""}})
    unsigned = to_object(checked)
    found = digest(unsigned)
    unsigned |= {"id": version_id(checked.line, checked.seq, found), "signature": to_object(signer.sign(found))}
    return _convert(unsigned)


def encode(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest."""
    return canonical(to_object(manifest))


def read(raw: bytes) -> Manifest:
    """Read a manifest and check form, canonical bytes and id, not the signature. Raises Malformed."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed("manifest is no JSON") from None
    manifest = _convert(body)
    if encode(manifest) != raw:
        raise Malformed("manifest is not canonical")
    if manifest.id != version_id(manifest.line, manifest.seq, manifest.digest):
        raise Malformed(f"manifest does not have the digest that its id {manifest.id!r} names")
    return manifest


def _convert(body: Any) -> Manifest:
    try:
        return msgspec.convert(body, Manifest)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from None
