"""Whose signatures on versions count, from settings."""

from __future__ import annotations

from learner.registry import Trust, load_signer, trust
from services.serving_config import RegistryConfig


def trusted(config: RegistryConfig) -> Trust:
    """The named public keys, else (on one machine) the one that belongs to the publisher's own key file."""
    if config.trusted:
        return trust(*(bytes.fromhex(public) for public in config.trusted))
    return trust(load_signer(config.key).public)
