"""chats.raw -> chats.clean over a real Redis: the same output for the same event, dead letters without text."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import redis
from prometheus_client import CollectorRegistry

from streams.config import StreamConfig
from streams.dead_letters import read
from streams.events import decode_clean
from streams.lanes import Incoming
from streams.ledger import Outcome
from streams.metrics import StreamMetrics
from streams.outbox import Output
from streams.replay import Offsets, TopicPartition
from streams.scrub import Keys, Scrubber, ScrubConfig
from streams.scrub.audit import LeakAudit, upper_bound
from streams.scrub_stage import ScrubStage, ScrubStore
from streams.topics import CHATS_RAW
from tests.chat_records import message

KEYS = Keys("k1", {"k1": b"r" * 32}, b"f" * 32)
CONFIG = StreamConfig()


def stage(client: redis.Redis, config: ScrubConfig | None = None) -> ScrubStage:
    return ScrubStage(Scrubber(config or ScrubConfig(), KEYS), ScrubStore(client, CONFIG, "e1", 1_000), KEYS, CONFIG)


def values(outputs: Sequence[Output]) -> list[bytes | None]:
    return [record.value for output in outputs for record in output.records]


def test_scrub_stage_masks_and_renames(redis_client: redis.Redis) -> None:
    """What leaves carries placeholders and pseudonyms, keyed by the conversation's pseudonym."""
    (output,) = stage(redis_client).run([message(0, "write to jane.miller@example.com please")])
    (record,) = output.records
    event = decode_clean(record.value or b"")
    assert event.text == "write to <EMAIL_1> please"
    assert event.offset == (2, 0)
    assert record.key == event.conversation.encode()
    assert b"c-1" not in (record.key or b"")


def test_scrub_stage_same_event_same_output(redis_client: redis.Redis) -> None:
    """A redelivery, in another batch and after other values, is answered from the first one's spans."""
    told = [
        message(0, "i am at jane@example.com"),
        message(1, "or at paul@example.com"),
        message(2, "not jane@example.com"),
    ]
    first = values(stage(redis_client).run(told))
    again = [values(stage(redis_client).run([record])) for record in reversed(told)]
    assert [value for part in reversed(again) for value in part] == first


def test_scrub_stage_marks_every_offset(redis_client: redis.Redis) -> None:
    """Clean events and dead letters alike have had their effect: a reader resumes behind them."""
    batch = [message(0, "hello there"), Incoming(2, 1, b"k", b"{", 0.0), message(2, "thanks")]
    stage(redis_client).run(batch)
    assert Offsets(redis_client, "e1", 1_000).resume_offset(TopicPartition(CHATS_RAW, 2)) == 3


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [(b"k", b'{"event_id":"x1","type', "truncated_json"), (b"k", b"\xff\xfe", "encoding"), (b"k", None, "not_json")],
)
def test_scrub_stage_dead_letter_says_where_not_what(
    redis_client: redis.Redis, key: bytes, value: bytes | None, reason: str
) -> None:
    """A record that cannot be read leaves as headers alone, and its entry follows the delivery."""
    (output,) = stage(redis_client).run([Incoming(3, 9, key, value, 0.0)])
    (record,) = output.records
    assert record.value is None
    assert record.key != key
    letter = read(list(record.headers))
    assert (letter.topic, letter.partition, letter.offset, letter.stage) == (CHATS_RAW, 3, 9, "scrub")
    assert letter.reason == reason
    ((digest, entry),) = output.moves
    assert digest == letter.entry
    assert (entry.outcome, entry.reason, entry.effects) == (Outcome.DEAD_LETTERED, reason, 0)


def test_scrub_stage_quarantine_holds_no_text(redis_client: redis.Redis) -> None:
    """A turn beyond a limit is quarantined: no clean event, and nothing of its text in the letter or in Redis."""
    secret = "marmalade-1234 " * 10
    (output,) = stage(redis_client, ScrubConfig(max_chars=20)).run([message(0, secret)])
    (record,) = output.records
    assert record.value is None
    assert b"marmalade" not in repr(record).encode()
    assert not any(b"marmalade" in (redis_client.dump(key) or b"") for key in redis_client.scan_iter())


def test_scrub_stage_state_of_another_worker_wins(redis_client: redis.Redis) -> None:
    """A state that changed between read and write is read again, so numbers never clash."""
    first, second = stage(redis_client), stage(redis_client)
    first.run([message(0, "mail a@example.com")])
    (output,) = second.run([message(1, "mail b@example.com")])
    assert decode_clean(output.records[0].value or b"").text == "mail <EMAIL_2>"


def test_scrub_stage_reads_cloud_events(redis_client: redis.Redis) -> None:
    """Binary-mode headers fill in the id and the time that the body lacks; traceparent goes on."""
    body = {"type": "message", "conversation_id": "c-1", "seq": 0, "role": "agent", "text": "hi there"}
    headers = (
        ("ce_specversion", b"1.0"), ("ce_id", b"ce-77"), ("ce_time", b"2024-05-01T10:00:00Z"),
        ("traceparent", b"00-ab"),
    )  # fmt: skip
    (output,) = stage(redis_client).run([Incoming(0, 0, b"c-1", json.dumps(body).encode(), 5.0, headers)])
    assert decode_clean(output.records[0].value or b"").event_id == "ce-77"
    assert output.records[0].headers == (("traceparent", b"00-ab"),)


def test_scrub_stage_counts_unknown_fields(redis_client: redis.Redis) -> None:
    """Fields that no event has go no further, whatever they hold, and their number is told."""
    registry = CollectorRegistry()
    store = ScrubStore(redis_client, CONFIG, "e1", 1_000)
    counted = ScrubStage(Scrubber(ScrubConfig(), KEYS), store, KEYS, CONFIG, StreamMetrics(registry))
    plain = message(0, "hello there")
    body = {
        **json.loads(plain.value or b""),
        "schema": 1,
        "shoe": "Ines Okafor",
        "nested": {"mail": "ines@example.org"},
    }
    (output,) = counted.run([plain._replace(value=json.dumps(body).encode())])
    assert b"ines" not in (output.records[0].value or b"").lower()
    assert registry.get_sample_value("driftline_scrub_dropped_fields_total") == 2
    counted.run([message(1, "thanks")])
    assert registry.get_sample_value("driftline_scrub_dropped_fields_total") == 2


def test_scrub_stage_counts_finds_per_label(redis_client: redis.Redis) -> None:
    """Each masked value counts under its label, each refused turn under its reason."""
    registry = CollectorRegistry()
    store = ScrubStore(redis_client, CONFIG, "e1", 1_000)
    config = ScrubConfig(max_chars=60, canaries=("blue heron",))
    counted = ScrubStage(Scrubber(config, KEYS), store, KEYS, CONFIG, StreamMetrics(registry))
    counted.run([message(0, "a@b.org or c@d.org, card 4000 0012 3456 7899"), message(1, "the blue heron sings")])
    found = {e: registry.get_sample_value("driftline_pii_redactions_total", {"entity": e}) for e in ("EMAIL", "CARD")}
    assert found == {"EMAIL": 2, "CARD": 1}
    refused = {"stage": "scrub", "reason": "residual_canary"}
    assert registry.get_sample_value("driftline_rejections_total", refused) == 1


def test_scrub_stage_audits_what_goes_on(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that the scrubber and its second look both miss is counted, with its label and the event's id."""
    monkeypatch.setattr("streams.scrub.masking.detect", lambda *_: [])
    monkeypatch.setattr("streams.scrub.masking.check", lambda *_: None)
    registry, leaks = CollectorRegistry(), list[tuple[str, str]]()
    config = ScrubConfig(audit_share=1.0)
    audit = LeakAudit(config, KEYS, report=lambda event_id, label: leaks.append((event_id, label)))
    store = ScrubStore(redis_client, CONFIG, "e1", 1_000)
    audited = ScrubStage(Scrubber(config, KEYS), store, KEYS, CONFIG, StreamMetrics(registry), audit=audit)
    audited.run([message(0, "write to jane.miller@example.com please"), message(1, "hello there")])
    counted = {
        result: registry.get_sample_value("driftline_pii_audited_turns_total", {"result": result})
        for result in ("clean", "leaking", "failed")
    }
    assert counted == {"clean": 1, "leaking": 1, "failed": 0}
    assert leaks == [("c-1.0", "EMAIL")]
    assert registry.get_sample_value("driftline_pii_leak_rate_bound_ratio") == upper_bound(1, 2)
