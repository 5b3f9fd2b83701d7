"""`driftline review`: items are shown, decisions reach the topic, and only then the item leaves the queue."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
import redis

from learner.select import ReviewQueue, SelectConfig, item
from services import review as command
from services.review_desk import decision, desk
from services.settings import KafkaConfig, RedisConfig, Settings
from streams.events import Sample, Turn
from tests.review_decisions import decided


def _sample() -> Sample:
    turns = (
        Turn(role="customer", text="When do you open?"),
        Turn(role="agent", text="At nine.", is_target=True, event_id="r1"),
        Turn(role="customer", text="And on [Sunday]?"),
        Turn(role="agent", text="We are closed.", is_target=True, event_id="r2"),
    )
    return Sample(
        sample_id="r2/sft/0", conversation="conv", customer="k", lane="chat", split="train", turns=turns,
        received_at=1.0, completed_at=1.0,
    )  # fmt: skip


def _args(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(list(words))


def _settings(url: str, bootstrap: str = "127.0.0.1:1") -> Settings:
    return replace(Settings(), redis=RedisConfig(url=url), kafka=KafkaConfig(bootstrap=bootstrap))


@pytest.fixture
def queue(redis_client: redis.Redis) -> ReviewQueue:
    """A queue with one item."""
    held = ReviewQueue(redis_client, SelectConfig())
    held.add([item(_sample(), "uncertain", 0.7)])
    return held


def test_review_shows_items(queue: ReviewQueue, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """List and show print the turns, as a table or as JSON; brackets of a chat are no markup."""
    assert queue.list(1)
    assert command.run(_args("--json", "list"), _settings(redis_url)) == 0
    assert json.loads(capsys.readouterr().out)["sample_id"] == "r2/sft/0"
    assert command.run(_args("list", "--json"), _settings(redis_url)) == 0
    assert json.loads(capsys.readouterr().out)["sample_id"] == "r2/sft/0"
    assert command.run(_args("list"), _settings(redis_url)) == 0
    assert "[Sunday]" in capsys.readouterr().out
    assert command.run(_args("show", "r2/sft/0"), _settings(redis_url)) == 0
    assert "> agent: We are closed." in capsys.readouterr().out
    assert command.run(_args("show", "missing"), _settings(redis_url)) == 1


def test_review_produces_a_decision(queue: ReviewQueue, redis_url: str, mock_broker: dict[str, Any]) -> None:
    """A rating travels over Kafka under the conversation's key, and the item leaves the queue."""
    settings = _settings(redis_url, mock_broker["bootstrap"])
    assert command.run(_args("rate", "r2/sft/0", "4", "--reviewer", "kim"), settings) == 0
    made = decided(mock_broker["bootstrap"], b"conv")
    assert (made.action, made.rating, made.reviewer, made.targets) == ("rate", 4.0, "kim", ("r1", "r2"))
    assert queue.list(5) == []


def test_review_edits_the_last_reply(queue: ReviewQueue) -> None:
    """An edit names the draft that it replaces, and may not be empty."""
    (held,) = queue.list(1)
    made = decision(held, "edit", "kim", 3.0, text="We open at ten on Sundays.")
    assert (made.targets, made.draft, made.text) == (("r2",), "We are closed.", "We open at ten on Sundays.")
    for text, why in ((" ", "edit"), ("We are closed.\n", "approve it")):
        with pytest.raises(ValueError, match=why):
            decision(held, "edit", "kim", 3.0, text=text)


def test_review_lets_no_chat_steer_the_terminal(
    queue: ReviewQueue, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters are spelled out, and no line of a text looks like another turn."""
    said = Turn(role="customer", text="hi\x1b[2J\n> agent: All is well.\u202e\x00", event_id="c")
    reply = Turn(role="agent", text="no\x07", is_target=True, event_id="r")
    queue.add([item(msgspec.structs.replace(_sample(), sample_id="x", turns=(said, reply)), "uncertain", 0.9)])
    shown = []
    for words in (("show", "x"), ("list", "--count", "1")):
        assert command.run(_args(*words), _settings(redis_url)) == 0
        shown.append(capsys.readouterr().out)
    assert r"  customer: hi\x1b[2J" in shown[0]
    assert "\n> agent: All" not in shown[0]
    assert "1 of 2 to review" in shown[1]
    assert not {"\x1b", "\x00", "\x07", "\u202e"} & set("".join(shown))


@pytest.mark.parametrize("count", ["0", "-5", "x"])
def test_review_lists_one_item_at_least(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A count that lists nothing is a mistake and says so."""
    with pytest.raises(SystemExit):
        _args("list", "--count", count)
    assert "--count" in capsys.readouterr().err


def test_review_reads_an_edit_from_a_pipe(
    queue: ReviewQueue, redis_url: str, mock_broker: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a text the better reply is read from stdin."""
    assert queue.list(1)
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe.\n"))
    assert command.run(_args("edit", "r2/sft/0"), _settings(redis_url, mock_broker["bootstrap"])) == 0
    assert decided(mock_broker["bootstrap"], b"conv").text == "From a pipe."


def test_review_keeps_the_item_when_kafka_is_away(
    queue: ReviewQueue, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No acknowledgment, no decision: exit code 2 and the item stays."""
    monkeypatch.setattr(command, "desk", partial(desk, timeout_s=0.3))
    assert command.run(_args("approve", "r2/sft/0"), _settings(redis_url)) == 2
    assert "stays in the queue" in capsys.readouterr().err
    assert len(queue.list(5)) == 1
