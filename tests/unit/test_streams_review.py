"""Decisions of reviewers: complete, readable again, and what they change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.review import Decision, annotation, decode, encode, relane


def _decision(action: str, **fields: Any) -> Decision:
    base: dict[str, Any] = {
        "decision_id": "d",
        "sample_id": "e/sft/0",
        "conversation": "c",
        "targets": ("e",),
        "at": 5.0,
    }
    return Decision(action=action, **{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "label", "weight"),
    [
        (_decision("approve"), "good", 1.5),
        (_decision("reject"), "bad", 0.0),
        (_decision("edit", text="better", draft="worse"), "bad", 0.0),
        (_decision("rate", rating=5.0), "good", 1.5),
        (_decision("rate", rating=3.0), "unknown", 1.0),
        (_decision("rate", rating=1.0), "bad", 0.0),
    ],
)
def test_review_decisions_become_annotations(made: Decision, label: str, weight: float) -> None:
    """Each action has its label and weight, and the decision's id makes it idempotent."""
    note = annotation(made)
    assert (note.label, note.weight, note.feedback_id, note.targets) == (label, weight, "d", ("e",))
    assert decode(encode(made)) == made


@pytest.mark.parametrize(
    ("made", "lane"),
    [
        (_decision("approve", lane="quarantine"), "chat"),
        (_decision("rate", rating=4.0, lane="quarantine"), "chat"),
        (_decision("rate", rating=3.0, lane="quarantine"), None),
        (_decision("reject", lane="quarantine"), ""),
        (_decision("reject", lane="chat"), None),
        (_decision("approve"), None),
    ],
)
def test_review_lets_out_of_quarantine_or_deletes(made: Decision, lane: str | None) -> None:
    """Only what waits in quarantine moves: a good reply to its lane, a bad one out of the buffer."""
    moved = relane(made)
    assert (None if moved is None else moved.lane) == lane
    assert moved is None or moved.targets == ("e",)


def test_review_refuses_incomplete_decisions() -> None:
    """A rating without stars and an edit without text are refused, from the wire too."""
    with pytest.raises(ValueError, match="rating"):
        _decision("rate", rating=9.0)
    with pytest.raises(ValueError, match="edit"):
        _decision("edit", text=" ")
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"decision_id":"d","sample_id":"s","conversation":"c","targets":[],"action":"rate","at":1}')


def test_review_shows_no_text_in_logs() -> None:
    """A repr holds ids only."""
    assert "secret" not in repr(_decision("edit", text="secret"))
