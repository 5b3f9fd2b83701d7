"""The adapter registry: immutable, signed LoRA versions, published atomically and verified byte by byte. Torch-free.

RegistryError is the base of its errors: Malformed, Refused(reason), Unknown, Gone, Fenced.
"""

from learner.registry.manifest import (
    BASE,
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Base,
    Eval,
    Lora,
    Malformed,
    Manifest,
    Probe,
    RegistryError,
    Signer,
    Tolerances,
    Training,
    Trust,
    load_signer,
    sequence,
    trust,
)
from learner.registry.store import Facts, Fenced, Gone, Registry, Unknown
from learner.registry.tensors import adapter_config, derived_keys
from learner.registry.verify import Bounds, Foundation, Reason, Refused, Standing, base_identity, file_sha256, verify

__all__ = [
    "BASE",
    "CONFIG_FILE",
    "MANIFEST_FILE",
    "WEIGHTS_FILE",
    "Base",
    "Bounds",
    "Eval",
    "Facts",
    "Fenced",
    "Foundation",
    "Gone",
    "Lora",
    "Malformed",
    "Manifest",
    "Probe",
    "Reason",
    "Refused",
    "Registry",
    "RegistryError",
    "Signer",
    "Standing",
    "Tolerances",
    "Training",
    "Trust",
    "Unknown",
    "adapter_config",
    "base_identity",
    "derived_keys",
    "file_sha256",
    "load_signer",
    "sequence",
    "trust",
    "verify",
]
