"""Whose signatures on versions count, and the store of versions that they vouch for, from settings."""

from __future__ import annotations

import threading
from collections.abc import Callable

from learner.registry import Registry, Trust, load_signer, trust
from services.serving_config import RegistryConfig

TRIES = 100
PAUSE_S = 0.02
"""Another process may be writing the key file at this moment."""


def trusted(config: RegistryConfig) -> Trust:
    """The named public keys, else (on one machine) the one that belongs to the publisher's own key file."""
    if config.trusted:
        return trust(*(bytes.fromhex(public) for public in config.trusted))
    pause = threading.Event()
    for _ in range(TRIES):
        try:
            return trust(load_signer(config.key).public)
        except (FileExistsError, ValueError):
            pause.wait(PAUSE_S)
    return trust(load_signer(config.key).public)


def registry_of(config: RegistryConfig, clock: Callable[[], float]) -> Registry:
    """The store of versions, which reads what trusted publishers signed; `clock` gives seconds since the epoch."""
    return Registry(config.directory, trusted(config), clock)
