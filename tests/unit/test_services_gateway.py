"""The gateway's bounds and its reading of events, without a network."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.intake import events_of, record, refused
from services.gateway.limits import Rates, Refusal, depth, parse, read_body, unpacked
from services.gateway_config import GatewayConfig
from streams.events import BadEvent, decode
from tests.bench._mutations import BREAKS

CONFIG = GatewayConfig(max_body_bytes=1000, max_unpacked_bytes=5000, body_timeout_s=0.05)
EVENT = {
    "event_id": "e",
    "type": "message",
    "conversation_id": "c",
    "seq": 0,
    "role": "customer",
    "text": "hi",
    "ts": "2026-01-02T03:04:05Z",
}


def code(refusal: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    return refusal.value.status, refusal.value.code


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def never() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.Event().wait()


def test_gateway_bodies_are_bounded_in_size_and_time() -> None:
    """Declared or actual size above the limit is 413, a body that does not end is 408."""
    assert asyncio.run(read_body(chunks(b"ab", b"c"), "3", CONFIG)) == b"abc"
    for body, declared in ((chunks(b"x" * 600, b"x" * 600), None), (chunks(b""), "5000")):
        with pytest.raises(Refusal) as caught:
            asyncio.run(read_body(body, declared, CONFIG))
        assert code(caught) == (413, "too_large")
    with pytest.raises(Refusal) as caught:
        asyncio.run(read_body(never(), None, CONFIG))
    assert code(caught) == (408, "too_slow")


def test_gateway_gzip_is_unpacked_up_to_the_limit() -> None:
    """A bomb is 413 before it is unpacked, broken or cut gzip is 400, unknown encodings too."""
    assert unpacked(gzip.compress(b"x" * 5000), "gzip", CONFIG) == b"x" * 5000
    assert unpacked(b"x", "", CONFIG) == b"x"
    with pytest.raises(Refusal) as caught:
        unpacked(gzip.compress(b"0" * 10_000_000), "gzip", CONFIG)
    assert code(caught) == (413, "too_large")
    for body, encoding in ((b"nope", "gzip"), (gzip.compress(b"abc")[:-9], "gzip"), (b"x", "br")):
        with pytest.raises(Refusal) as caught:
            unpacked(body, encoding, CONFIG)
        assert code(caught) == (400, "bad_encoding")


def test_gateway_json_is_bounded_in_depth() -> None:
    """Ten thousand brackets are refused before parsing; brackets inside of strings do not count."""
    with pytest.raises(Refusal) as caught:
        parse(b"[" * 10_000 + b"]" * 10_000, CONFIG)
    assert code(caught) == (400, "too_deep")
    assert parse(json.dumps({"a": "[" * 200}).encode(), CONFIG) == {"a": "[" * 200}
    assert parse(b"[" + b",".join([b"{}"] * 100) + b"]", CONFIG) == [{}] * 100
    with pytest.raises(Refusal) as caught:
        parse(b'{"a":', CONFIG)
    assert code(caught) == (400, "not_json")


_JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\a', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_gateway_depth_is_that_of_the_value(value: Any) -> None:
    """The scan over bytes finds the depth that the parsed value has."""

    def deep(node: Any) -> int:
        if isinstance(node, dict):
            return 1 + max(map(deep, node.values()), default=0)
        return 1 + max(map(deep, node), default=0) if isinstance(node, list) else 0

    assert depth(json.dumps(value).encode()) == deep(value)


@given(st.binary(max_size=200))
def test_gateway_parse_refuses_or_reads_any_bytes(body: bytes) -> None:
    """Any bytes are JSON or a 400, never another error."""
    try:
        parse(body, CONFIG)
    except Refusal as refusal:
        assert refusal.status == 400  # noqa: PT017 - the status is the point


def test_gateway_rates_let_a_burst_through_and_then_the_rate() -> None:
    """A sender may send its burst, then one event a tenth of a second; others are not touched."""
    now = [0.0]
    rates = Rates(rate_per_s=10, burst=5, clock=lambda: now[0], most=2)
    assert rates.take("a", 5) == 0
    assert rates.take("a", 1) == pytest.approx(0.1)
    assert rates.take("b", 1) == 0
    now[0] = 0.1
    assert rates.take("a", 1) == 0
    assert rates.take("big", 500) == 0
    assert rates.take("big", 1) > 40
    assert rates.take("c", 1) == 0


def test_gateway_record_keeps_unknown_fields_and_drops_the_tenant() -> None:
    """What we do not know stays in chats.raw; a tenant or the odds of an answer in the body do not."""
    name, outgoing = record({**EVENT, "tenant": "other", "p": 0.01, "mood": "blue"}, "mine", {})
    assert (name, outgoing.key, outgoing.tenant) == ("e", b"c", "mine")
    assert json.loads(outgoing.value) == {**EVENT, "mood": "blue"}
    assert decode(outgoing.key, outgoing.value).event_id == "e"


def test_gateway_record_takes_ids_from_headers() -> None:
    """CloudEvents headers, else an Idempotency-Key, give the id that a body lacks, the same for the same key."""
    bare = {k: v for k, v in EVENT.items() if k != "event_id"}
    assert record(bare, "", {"ce-id": "h", "ce-specversion": "1.0"})[0] == "h"
    first, again, other, third = (
        record(bare, tenant, {}, "key", place)[0] for tenant, place in (("a", 0), ("a", 0), ("b", 0), ("a", 1))
    )
    assert first == again
    assert len({first, other, third}) == 3
    with pytest.raises(BadEvent):
        record(bare, "", {})


def test_gateway_record_refuses_what_would_be_a_dead_letter() -> None:
    """Each broken event has the reason that its dead letter would have, and is told without its text."""
    cases: list[tuple[Any, str]] = [
        ({**EVENT, "text": " "}, "empty_text"),
        ({**EVENT, "role": "boss"}, "unknown_role"),
        ({**EVENT, "conversation_id": 7}, "wrong_type"),
        ({**EVENT, "text": "x" * 20_000}, "huge_text"),
        ([1], "wrong_type"),
        ({**EVENT, "note": "x" * 1_000_000}, "too_large"),
    ]
    for body, reason in cases:
        with pytest.raises((BadEvent, Refusal)) as caught:
            record(body, "", {})
        assert isinstance(caught.value, BadEvent | Refusal)
        assert refused(caught.value, None)["reason"] == reason


def test_gateway_events_of_a_request() -> None:
    """One object, a list, or an object with `events`; nothing and too many are refused."""
    assert events_of(EVENT, 3) == [EVENT]
    assert events_of([1, 2], 3) == [1, 2]
    assert events_of({"events": [1]}, 3) == [1]
    for body, status in (([], 400), ({"events": 5}, 400), ("x", 400), ([1] * 4, 413)):
        with pytest.raises(Refusal) as caught:
            events_of(body, 3)
        assert caught.value.status == status


def test_gateway_config_refuses_bad_values() -> None:
    """Limits, upstreams and hooks are checked with key and rule; secrets are not repeated."""
    for change in (
        {"max_batch": 0},
        {"rate_per_s": 0},
        {"upstream": "ftp://x"},
        {"webhooks": {"fax/x": "s"}},
        {"webhooks": {"zendesk/x": ""}},
        {"webhooks": {"standard/x": "whsec_abc"}},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(change))}|zendesk|standard"):
            replace(GatewayConfig(), **change)
    assert "secret-key" not in repr(GatewayConfig(api_keys={"secret-key": "t"}, webhooks={"slack/t": "secret-key"}))


@pytest.mark.parametrize("how", BREAKS)
def test_gateway_and_worker_refuse_every_breakage_alike(how: str) -> None:
    """Over HTTP, as a line of a file or as the body alone, and from Kafka: the same reason."""
    reason, damage = BREAKS[how]
    made = damage({**EVENT, "event_id": "broken", "conversation_id": "broken"})
    line = {"key": "broken", "value_raw": made} if isinstance(made, str) else {"key": "broken", "value": made}
    raw = made.encode() if isinstance(made, str) else json.dumps(made).encode()
    with pytest.raises(BadEvent) as over_http:
        record(line, "", {})
    with pytest.raises(BadEvent) as from_kafka:
        decode(b"broken", raw)
    assert {over_http.value.reason, from_kafka.value.reason} == {reason}
