"""Fail closed: whatever stage breaks, the turn is quarantined, the rest goes on, and its text is in no trace."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from streams.config import StreamConfig
from streams.events import Message, decode_clean
from streams.lanes import Incoming
from streams.ledger import Outcome
from streams.metrics import StreamMetrics
from streams.outbox import Output
from streams.scrub import ConversationState, Keys, Quarantined, Scrubber, ScrubConfig, masking
from streams.scrub.spans import Overflow
from streams.scrub_stage import ScrubStage, ScrubStore
from tests.chat_records import message

KEYS = Keys("k1", {"k1": b"r" * 32}, b"f" * 32)
CONFIG = StreamConfig()
PLANTED = "Quellmark-4000001234567899"
"""In every error that is raised here, and in the turn on which it is raised."""

STAGES = (
    "streams.scrub.masking.normalise", "streams.scrub.masking.detect", "streams.scrub.detectors.look",
    "streams.scrub.detectors.names.tag", "streams.scrub.detectors.reader.hinted",
    "streams.scrub.detectors.numbers.find_numbers",
    "streams.scrub.masking.find_known", "streams.scrub.masking.find_answers", "streams.scrub.masking.union",
    "streams.scrub.masking.Numbering.place", "streams.scrub.masking.residue", "streams.scrub.masking.learn_metadata",
    "streams.scrub.scrubber.render", "streams.scrub.scrubber.mask_turn", "streams.scrub.scrubber.pseudonym",
    "streams.scrub.scrubber.conversation_pseudonym", "streams.scrub.scrubber.CleanEvent",
)  # fmt: skip
"""Everything that a turn goes through."""

ERRORS: tuple[Callable[[str], BaseException], ...] = (
    KeyError, RuntimeError, Overflow, RecursionError, MemoryError, TimeoutError,
    lambda text: UnicodeEncodeError("ascii", text, 0, 1, text),
)  # fmt: skip


MARK = "zebra"
"""A word that stays in masked text."""


def failing(real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but it raises when the mark is in one of its arguments."""

    def call(*arguments: Any, **named: Any) -> Any:
        if MARK in repr((arguments, named)):
            raise KeyError(PLANTED)
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", STAGES)
def test_closed_scrubber_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, place: str, error: Callable[[str], BaseException]
) -> None:
    """Any error of any stage becomes a reason code; its traceback holds no text, and the state is the old one."""

    def broken(*_: Any, **__: Any) -> NoReturn:
        raise error(PLANTED)

    monkeypatch.setattr(place, broken)
    state = ConversationState()
    event = Message(
        event_id="e1", conversation_id="c", seq=0, ts="2024-05-01T10:00:00Z", role="customer",
        text=f"Call me back, {PLANTED}", customer={"id": "7", "name": "Nora Quellmark"},
    )  # fmt: skip
    with pytest.raises(Quarantined) as caught:
        Scrubber(ScrubConfig(), KEYS).scrub_event(event, state)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "Quellmark" not in told
    assert "4000001" not in told
    assert caught.value.reason in {"scrub_failed", "too_many_values"}
    assert state == ConversationState()


@pytest.mark.parametrize("place", ["detect", "find_answers", "residue", "render", "union"])
def test_closed_stage_loses_one_turn_only(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Of a batch all turns but the broken one go on; nothing of it is in a letter, log, metric or in Redis."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(masking, place, failing(getattr(masking, place)))
    registry = CollectorRegistry()
    store = ScrubStore(redis_client, CONFIG, "e1", 1_000)
    stage = ScrubStage(Scrubber(ScrubConfig(), KEYS), store, KEYS, CONFIG, StreamMetrics(registry))
    outputs = stage.run([message(0, "hello"), message(1, f"my {MARK} is {PLANTED}"), message(2, "thanks", "c-2")])
    letter = outputs.pop(1)
    assert [decode_clean(record.value or b"").text for output in outputs for record in output.records] == [
        "hello",
        "thanks",
    ]
    assert [entry.outcome for _, entry in letter.moves] == [Outcome.DEAD_LETTERED]
    stored = b"".join(redis_client.dump(key) or b"" for key in redis_client.scan_iter())
    traces = [repr(letter), caplog.text, generate_latest(registry).decode(), stored.decode(errors="replace")]
    assert not any("Quellmark" in trace or "4000001" in trace for trace in traces)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=40)), max_size=5), st.text(max_size=20))
def test_closed_stage_reads_any_record(redis_client: redis.Redis, bodies: list[str | bytes], conversation: str) -> None:
    """Any bytes and any text, surrogates included, give one output a record and no exception."""
    stage = ScrubStage(Scrubber(ScrubConfig(), KEYS), ScrubStore(redis_client, CONFIG, "e1", 60), KEYS, CONFIG)
    batch = [
        Incoming(0, n, b"k", body, 0.0) if isinstance(body, bytes) else message(n, body, conversation or "c")
        for n, body in enumerate(bodies)
        if isinstance(body, bytes) or body.isprintable()
    ]
    outputs = stage.run(batch) if batch else list[Output]()
    assert len(outputs) == len(batch)
    assert all(output.records for output in outputs)


def test_closed_turn_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text beyond the limit is quarantined before anything looks at it, with holding on too."""

    def reads(*_: Any) -> NoReturn:
        raise AssertionError

    for place in ("masking.normalise", "masking.detect", "scrubber.normalise"):
        monkeypatch.setattr(f"streams.scrub.{place}", reads)
    event = Message(
        event_id="e1", conversation_id="c", seq=0, ts="2024-05-01T10:00:00Z", role="customer", text="1" * 50
    )
    for config in (ScrubConfig(max_chars=49), ScrubConfig(max_chars=49, hold_s=5)):
        with pytest.raises(Quarantined, match="too_long"):
            Scrubber(config, KEYS).scrub_event(event, ConversationState())


def test_closed_metadata_floods_are_refused() -> None:
    """Thousands of values, or one of many thousand letters, cost no more than a turn; values of a close count too."""
    scrubber = Scrubber(ScrubConfig(max_entities=300), KEYS)
    common: dict[str, Any] = {"conversation_id": "c", "ts": "2024-05-01T10:00:00Z", "role": "customer", "text": "hi"}
    flood = Message(event_id="e0", seq=0, customer={"name": [f"Quell {n}" for n in range(3_000)]}, **common)
    with pytest.raises(Quarantined, match="too_many_values"):
        scrubber.scrub_event(flood, ConversationState())
    notes = Message(event_id="e1", seq=1, customer={"notes": "Nora " * 50_000}, **common)
    (clean,), state = scrubber.scrub_event(notes, ConversationState())
    assert (clean.text, state.entities) == ("hi", [])
    for seq in (2, 3):
        values = {"name": [f"Nora Quell{'abcdefghij'[n % 10]}{chr(97 + n // 10)}{seq}" for n in range(200)]}
        event = Message(event_id=f"e{seq}", seq=seq, customer=values, **common)
        if seq == 2:
            _, state = scrubber.scrub_event(event, state)
        else:
            with pytest.raises(Quarantined, match="conversation_overflow"):
                scrubber.scrub_event(event, state)
