"""Lane by channel, topic by a vote of words."""

from __future__ import annotations

import pytest

from streams.assemble.source import CHAT, OTHER, lane_of, topic_of


@pytest.mark.parametrize(
    ("channel", "lane"),
    [("email", "email"), ("FAQ", "faq"), ("bitext", "faq"), ("docs", "documents"), ("web_chat", CHAT), (None, CHAT)],
)
def test_source_lane_follows_the_channel(channel: str | None, lane: str) -> None:
    """What is not mail, FAQ or a document is live chat."""
    assert lane_of(channel) == lane


@pytest.mark.parametrize(
    ("said", "topic"),
    [
        (["My parcel has not arrived", "the courier said it was delivered"], "delivery"),
        (["I want a refund, the lamp is broken"], "refund"),
        (["I cannot log in, my password is not accepted"], "account"),
        (["hello", "thanks a lot"], OTHER),
        (["my card was charged", "and the hotel room is gone"], OTHER),
        ([], OTHER),
    ],
)
def test_source_topic_needs_a_clear_majority(said: list[str], topic: str) -> None:
    """Words vote once a turn; a tie is no topic."""
    assert topic_of(said) == topic
