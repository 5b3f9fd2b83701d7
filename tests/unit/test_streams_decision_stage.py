"""Reviewers' decisions become annotations, and their better texts go to the assembler scrubbed."""

from __future__ import annotations

import pytest
import redis

from streams import review
from streams.assemble.store import AssembleStore
from streams.config import StreamConfig
from streams.decision_stage import DecisionStage
from streams.events import Annotation, Relane, decode_clean, decode_example, encode_record
from streams.lanes import Incoming
from streams.quality import QualityConfig
from streams.review import Decision
from streams.scrub import Keys, ScrubConfig
from streams.scrub_stage import ScrubStore
from streams.topics import CHATS_CLEAN, EXAMPLES
from tests.conversations import conversation

KEYS = Keys("k1", {"k1": b"r" * 32}, b"f" * 32)
CONFIG = StreamConfig()


@pytest.fixture
def stage(redis_client: redis.Redis) -> DecisionStage:
    """A stage over a Redis that holds one conversation."""
    store = AssembleStore(redis_client, CONFIG, QualityConfig(), b"k" * 32, "e1")
    events = conversation("c", 4)
    store.arrive(CHATS_CLEAN, [(0, n) for n in range(len(events))], events, [encode_record(e) for e in events])
    return DecisionStage(store, ScrubStore(redis_client, CONFIG, "e1", 1_000), KEYS, ScrubConfig(), CONFIG)


def decided(action: str, **more: object) -> Incoming:
    given = {
        "decision_id": "d1",
        "sample_id": "c.3/sft/0",
        "conversation": "c",
        "targets": ("c.3",),
        "at": 1_700_000_000.0,
    }
    decision = Decision(**{**given, "action": action, **more})  # type: ignore[arg-type] # the fields are the test's
    return Incoming(0, 0, b"c", review.encode(decision), 1_700_000_001.0)


def test_decision_stage_stars_become_an_annotation(stage: DecisionStage) -> None:
    """A rating names its replies on examples, keyed by the conversation."""
    (output,) = stage.run([decided("rate", rating=5.0)])
    (record,) = output.records
    note = decode_example(record.value or b"")
    assert record.topic == EXAMPLES
    assert isinstance(note, Annotation)
    assert (note.targets, note.label) == (("c.3",), "good")


def test_decision_stage_approval_ends_quarantine(stage: DecisionStage) -> None:
    """A sample that waited is let in behind its new label, on the same key."""
    (output,) = stage.run([decided("approve", lane="quarantine")])
    note, moved = (decode_example(record.value or b"") for record in output.records)
    assert isinstance(note, Annotation)
    assert isinstance(moved, Relane)
    assert (moved.lane, moved.targets) == ("chat", ("c.3",))
    assert {record.key for record in output.records} == {b"c"}


def test_decision_stage_edit_is_scrubbed_feedback(stage: DecisionStage) -> None:
    """A better text reaches the assembler as feedback on the reply, without the personal data that was typed."""
    (output,) = stage.run([decided("edit", text="write to jane.miller@example.com for that")])
    (record,) = output.records
    event = decode_clean(record.value or b"")
    assert record.topic == CHATS_CLEAN
    assert (event.type, event.target_seq, event.event_id) == ("feedback", 3, "d1")
    assert event.corrected_text == "write to <EMAIL_1> for that"


def test_decision_stage_edit_of_a_forgotten_conversation_does_nothing(stage: DecisionStage) -> None:
    """Without the conversation's state there is no context to edit in."""
    (output,) = stage.run([decided("edit", text="better", conversation="gone")])
    assert not output.records


def test_decision_stage_poison_holds_no_text(stage: DecisionStage) -> None:
    """A decision that cannot be read is a dead letter of headers."""
    bad = Incoming(1, 7, b"c", b'{"text": "secret words"', 0.0)
    (record,) = stage.poison(bad, ValueError("secret words")).records
    assert record.value is None
    assert b"secret" not in repr(record).encode()
