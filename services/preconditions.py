"""What a command that loads models looks at before it does: cheap looks, so that a refusal comes at once. Torch-free.

Each raises what `services.remedies` puts into words.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from learner.registry import load_signer
from learner.shape import Shape, base_folder, sizes_of
from services.local import redis_server
from services.settings import SettingsError
from streams.replay import open_tables
from streams.scrub.identity import ledger_key

if TYPE_CHECKING:
    from services.settings import Settings

BASE_FILES = ("tokenizer.json", "*.safetensors")
"""Besides config.json."""


def able_to_learn(settings: Settings) -> None:
    """Keys, base, folders and signing key of the learner. Raises SettingsError, UnusableKeys."""
    ledger_key(settings.keys.keys())
    train, store = settings.train, settings.registry
    trainable(settings, base_model(base_folder(train.base), "train.base"))
    writable(Path(train.directory), "train.directory")
    writable(store.directory, "registry.directory")
    writable(store.key.parent, "registry.key")
    try:
        load_signer(store.key)
    except (OSError, ValueError) as error:
        raise SettingsError(f"registry.key = {store.key}: {error}; wants a file of 64 hex digits") from None


def trainable(settings: Settings, shape: Shape) -> None:
    """Raises SettingsError for documents that the base cannot read."""
    for name in ("document_tokens", "anchor_tokens"):
        wanted = getattr(settings.train, name)
        if wanted > shape.context:
            raise SettingsError(f"train.{name} = {wanted}: the base reads {shape.context} tokens at most; set it lower")


def given_base(named: Path | None, settings: Settings) -> Shape:
    """The shape of the base on the command line, else of the configured one. Raises SettingsError."""
    return base_model(named or base_folder(settings.train.base), "--base-model" if named else "train.base")


def base_model(folder: Path, key: str) -> Shape:
    """The shape of the base in a folder that `key` names. Raises SettingsError where it holds none."""
    try:
        shape = sizes_of(json.loads((folder / "config.json").read_text()))
        missing = [name for name in BASE_FILES if not any(folder.glob(name))]
    except OSError as error:
        raise SettingsError(f"{key} = {folder}: config.json: {error.strerror}; wants a base model's folder") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise SettingsError(f"{key} = {folder}: config.json is none of a Llama-like model ({error!r})") from None
    if missing:
        raise SettingsError(f"{key} = {folder}: no {missing[0]} in it; wants a base model's folder")
    return shape


def answering(settings: Settings) -> None:
    """Raises redis.RedisError unless Redis answers, and ReplayError unless its replay buffer is ours."""
    client = redis_server.client(settings.redis.url, settings.redis.timeout_s)
    open_tables(client, settings.replay, ledger_key(settings.keys.keys()), settings.kafka.epoch)
    client.close()


def writable(folder: Path, key: str) -> None:
    """Raises SettingsError unless files can be written to the folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        raise SettingsError(f"{key} = {folder}: {error.strerror}; wants a folder that can be written to") from None
