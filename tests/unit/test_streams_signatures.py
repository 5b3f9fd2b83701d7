"""Webhook signatures: published vectors, every kind of forgery, both ends of the window."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sources.signatures import SOURCES, WINDOW_S, Reason, Refused, check_secret, verify

BODY = b'{"id":"evt_1","text":"hi"}'
NOW = 1767323045.0
WHSEC = "whsec_" + base64.b64encode(b"secret").decode()
GOOD: dict[str, tuple[str, dict[str, str]]] = {
    "zendesk": (
        "secret",
        {
            "X-Zendesk-Webhook-Signature": "cSRT1uTaWBUxMNJl7POky5udrP/NQvz0wzFn+Jrjy3Y=",
            "X-Zendesk-Webhook-Signature-Timestamp": "2026-01-02T03:04:05Z",
        },
    ),
    "slack": (
        "secret",
        {
            "X-Slack-Signature": "v0=7e567ced0e067a28c70028814b66249dd6c1ffea4ca3db74773c8491f6fd0ffe",
            "X-Slack-Request-Timestamp": "1767323045",
        },
    ),
    "intercom": ("secret", {"X-Hub-Signature": "sha1=6c142d178f0f9f88e5e01fe3fd98c02a0ba3d3f1"}),
    "standard": (
        WHSEC,
        {
            "webhook-id": "evt_1",
            "webhook-timestamp": "1767323045",
            "webhook-signature": "v1,97WjwKxaRX9tqo4mKxWA1w8APsaKAurcYJG6PeCP3NQ=",
        },
    ),
}


def refusal(source: str, body: bytes, headers: dict[str, str], secrets: list[str], now: float = NOW) -> Reason:
    with pytest.raises(Refused) as caught:
        verify(source, body, headers, secrets, now)
    return caught.value.reason


@pytest.mark.parametrize("source", SOURCES)
def test_signatures_reproduce_the_vectors(source: str) -> None:
    """The four vectors verify, with headers in any casing and the right secret second in the list."""
    secret, headers = GOOD[source]
    other = "whsec_" + base64.b64encode(b"another").decode() if source == "standard" else "another"
    for names in (headers, {k.lower(): v for k, v in headers.items()}, {k.upper(): v for k, v in headers.items()}):
        ids = verify(source, BODY, names, [other, secret], NOW)
        assert ids.request_id
        assert (ids.signed_at is None) == (source == "intercom")


def test_signatures_reproduce_published_standard_vector() -> None:
    """The example of the Standard Webhooks specification verifies."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,bm9ldHU5eHF5a0lKMjVvdw== v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    ids = verify("standard", b'{"test": 2432232314}', headers, secrets, 1614265330)
    assert ids.request_id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_signatures_reproduce_published_slack_vector() -> None:
    """The example of Slack's documentation verifies."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
        b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    assert verify("slack", body, headers, ["8f742231b10e8888abcd99yyyzzz85a5"], 1531420618).signed_at == 1531420618


@pytest.mark.parametrize("source", SOURCES)
def test_signatures_refuse_every_forgery(source: str) -> None:
    """Wrong secret, edited body, missing or empty header, no secret at all: each has its reason."""
    secret, headers = GOOD[source]
    wrong = "whsec_" + base64.b64encode(b"wrong").decode() if source == "standard" else "wrong"
    assert refusal(source, BODY, headers, [wrong]) == Reason.SIGNATURE
    assert refusal(source, BODY + b" ", headers, [secret]) == Reason.SIGNATURE
    assert refusal(source, b"", headers, [secret]) == Reason.SIGNATURE
    assert refusal(source, BODY, headers, []) == Reason.UNCONFIGURED
    for name in headers:
        assert refusal(source, BODY, {k: v for k, v in headers.items() if k != name}, [secret]) == Reason.MISSING_HEADER
        assert refusal(source, BODY, {**headers, name: ""}, [secret]) == Reason.MISSING_HEADER
        assert refusal(source, BODY, {**headers, name: "é"}, [secret]) == Reason.BAD_HEADER


@pytest.mark.parametrize("source", [s for s in SOURCES if s != "intercom"])
def test_signatures_refuse_times_outside_the_window(source: str) -> None:
    """Within five minutes both ways it passes, a second beyond it does not."""
    secret, headers = GOOD[source]
    for now in (NOW - WINDOW_S, NOW + WINDOW_S):
        assert verify(source, BODY, headers, [secret], now)
    for now in (NOW - WINDOW_S - 1, NOW + WINDOW_S + 1):
        assert refusal(source, BODY, headers, [secret], now) == Reason.TIME


def test_signatures_use_secrets_that_look_like_base64_as_text() -> None:
    """Only `whsec_` is decoded: a Zendesk secret in base64 is used as its letters."""
    secret, headers = GOOD["zendesk"]
    assert refusal("zendesk", BODY, headers, [base64.b64encode(secret.encode()).decode()]) == Reason.SIGNATURE


def test_signatures_refuse_secrets_that_everybody_knows() -> None:
    """Printed, empty and undecodable secrets are refused by the settings, and the message does not repeat them."""
    for source, secret in (("zendesk", "this_secret_is_for_testing_only"), ("slack", ""), ("standard", "whsec_???")):
        with pytest.raises(ValueError, match=source) as caught:
            check_secret(source, secret)
        assert not secret or secret not in str(caught.value)
    with pytest.raises(ValueError, match="16 bytes"):
        check_secret("standard", WHSEC)
    check_secret("intercom", "a proper secret")


@given(
    source=st.sampled_from(SOURCES),
    body=st.binary(max_size=200),
    values=st.lists(st.text(max_size=40), min_size=3, max_size=3),
)
def test_signatures_never_accept_arbitrary_headers(source: str, body: bytes, values: list[str]) -> None:
    """Whatever the headers hold, the answer is `Refused`, never acceptance and never another error."""
    names = [*GOOD[source][1], "x-a", "x-b"][:3]
    with pytest.raises(Refused):
        verify(source, body, dict(zip(names, values, strict=True)), [GOOD[source][0]], NOW)
