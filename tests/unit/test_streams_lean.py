"""The lean drain replaces what it was written for; security settings reach the worker's consumer too."""

from __future__ import annotations

import pytest
from faust.transport import consumer as stock

from streams import lean
from streams.config import StreamConfig
from streams.security import UnsupportedSecurity, credentials


class App:
    """As much of a Faust app as a transport asks for when it is made."""

    class conf:  # noqa: N801 - Faust's name
        """Its settings."""

        broker_consumer = ("kafka://127.0.0.1:1",)


def chosen(config: StreamConfig) -> list[str]:
    """Names of the consumer's classes."""
    made = lean.transport_with(App(), config, lambda *_: None, {})
    return [kind.__name__ for kind in made.Consumer.__mro__]


def test_lean_drain_matches_the_installed_faust() -> None:
    """Upstream's method still has the shape that the lean drain replaces."""
    assert lean.is_known()
    assert chosen(StreamConfig())[1] == "LeanConsumer"


def test_lean_drain_can_be_turned_off() -> None:
    """The setting gives Faust's own drain back, with the rewinding kept."""
    assert "LeanConsumer" not in chosen(StreamConfig(lean_drain=False))
    assert "RewindingConsumer" in chosen(StreamConfig(lean_drain=False))


def test_lean_drain_falls_back_on_an_unknown_faust(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version of the method the stock way is used."""

    async def other(self: object, fetcher: object) -> None:
        del self, fetcher

    monkeypatch.setattr(stock.Consumer, "_drain_messages", other)
    assert not lean.is_known()
    assert "LeanConsumer" not in chosen(StreamConfig())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_lean_security_follows_librdkafka_settings(mechanism: str) -> None:
    """The same settings serve producer and consumer."""
    found = credentials(
        {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": mechanism, "sasl.username": "u", "sasl.password": "p"}
    )
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", mechanism)
    assert found.ssl_context is None


def test_lean_security_refuses_what_it_cannot_follow() -> None:
    """A mechanism that the consumer does not speak is named, instead of tried in plain."""
    assert credentials({}) is None
    with pytest.raises(UnsupportedSecurity, match=r"GSSAPI"):
        credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"})
    with pytest.raises(UnsupportedSecurity, match=r"security\.protocol"):
        credentials({"security.protocol": "SMOKE"})
