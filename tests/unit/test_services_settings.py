"""Settings: where they come from, and how a bad one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.settings import SettingsError, child_environment, load

HEX = "ab" * 16


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environment=environment)
    return str(caught.value)


def test_settings_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable overrides the same key of the file, and other keys of the file stay."""
    file = tmp_path / "d.toml"
    file.write_text('[kafka]\nbootstrap = "file:1"\nprefix = "p-"\n')
    settings = load(file, {"DRIFTLINE_KAFKA__BOOTSTRAP": "env:2"})
    assert (settings.kafka.bootstrap, settings.kafka.prefix) == ("env:2", "p-")


def test_settings_a_bad_value_names_key_value_and_remedy() -> None:
    """The message says which key, what value, which rule, and where to set it."""
    message = refused({"DRIFTLINE_ADMIN__PORT": "many"})
    assert "admin.port" in message
    assert "'many'" in message
    assert "DRIFTLINE_ADMIN__PORT" in message
    assert "0 to 65535" in refused({"DRIFTLINE_ADMIN__PORT": "70000"})
    assert "redis://" in refused({"DRIFTLINE_REDIS__URL": "localhost"})


def test_settings_unknown_keys_are_refused() -> None:
    """A misspelt section or key is an error that lists the known ones."""
    assert "bootstrap" in refused({"DRIFTLINE_KAFKA__BOOTSTRAPS": "x"})
    assert "kafka" in refused({"DRIFTLINE_KAFAK__BOOTSTRAP": "x"})
    assert "SECTION__KEY" in refused({"DRIFTLINE_PORT": "1"})


def test_settings_a_broken_file_is_named(tmp_path: Path) -> None:
    """A file that is no TOML, or that is not there, is named in the message."""
    broken = tmp_path / "broken.toml"
    broken.write_text("[kafka")
    for file in (broken, tmp_path / "absent.toml"):
        with pytest.raises(SettingsError, match=file.name):
            load(file, {})


def test_settings_secrets_do_not_show() -> None:
    """Keys, tokens and passwords are in no repr."""
    settings = load(
        environment={
            "DRIFTLINE_KEYS__RING": f'{{"k1": "{HEX}"}}',
            "DRIFTLINE_KEYS__FIXED": HEX,
            "DRIFTLINE_KEYS__ADMIN_TOKEN": "hunter2",
            "DRIFTLINE_REDIS__URL": "redis://:hunter2@localhost",
            "DRIFTLINE_KAFKA__EXTRA": '{"sasl.password": "hunter2"}',
        }
    )
    assert HEX not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert "32 to 128 hex" in refused({"DRIFTLINE_KEYS__FIXED": "short"})


def test_settings_travel_to_child_processes() -> None:
    """What a parent gives a child is what the child reads."""
    environment = child_environment({"kafka": {"embedded": True, "extra": {"a": "b"}}, "admin": {"port": 7}})
    settings = load(
        environment={k: v for k, v in environment.items() if k.startswith(("DRIFTLINE_KAFKA", "DRIFTLINE_ADMIN"))}
    )
    assert settings.kafka.embedded
    assert settings.kafka.extra == {"a": "b"}
    assert settings.admin.port == 7


def test_settings_remember_longer_than_kafka_keeps() -> None:
    """Offset bits and tombstones that end before Kafka's records do are refused, by table and by stream."""
    for section in ("replay.train", "replay.val", "stream"):
        name = f"DRIFTLINE_{section.replace('.', '__').upper()}__SOURCE_RETENTION_S"
        with pytest.raises(SettingsError, match=f"{section}.source_retention_s = 604800"):
            load(environment={name: str(7 * 86_400)})
