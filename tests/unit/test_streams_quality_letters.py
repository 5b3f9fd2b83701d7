"""Abuse by letters: words alone, whatever stands beside them, and spellings that no list has."""

from __future__ import annotations

import numpy as np
import pytest

from streams.quality import QualityConfig, Reason, Tag, judge_turn
from streams.quality.letters import letters, ngrams

WEIGHTS = {" idi": 20.0, "diot": 20.0, "hank": -8.0, "ello": 0.5}


def abuse(*texts: str) -> list[float]:
    words = [[b"\x00", *text.encode().split()] for text in texts]
    starts = np.cumsum([0, *map(len, words)])[:-1]
    found: list[float] = letters(WEIGHTS).abuse([word for part in words for word in part], starts).tolist()
    return found


def test_letters_stop_at_the_borders_of_words() -> None:
    """An n-gram knows where its word begins and ends, and none spans two words."""
    assert ngrams(b"ab") == [b" a", b"ab", b"b ", b" ab", b"ab ", b" ab "]
    assert abuse("idiot") == abuse("idiot")
    assert abuse("id iot") == [0.0]


def test_letters_weigh_a_text_by_its_words() -> None:
    """Abuse raises it, spellings that nobody listed too; kind words lower it, function words and numbers do nothing."""
    plain, spelled, kind, padded = abuse("idiot", "idiotttt", "thankful", "you are the idiot 00")
    assert plain > spelled > 0 > kind
    assert padded == pytest.approx(plain)


def test_letters_forget_weights_that_say_nothing() -> None:
    """Faint weights have no row of the table."""
    assert abuse("hello") == [0.0]


@pytest.mark.parametrize("text", ["what a moronic idiott you are, shut up", "you dumbasss idioot"])
def test_letters_reject_insults_in_replies_and_tag_them_of_customers(text: str) -> None:
    """The second opinion counts for what is learned; a customer's insult stays a tag."""
    assert Reason.TOXIC in judge_turn(text, "agent", QualityConfig()).reasons
    verdict = judge_turn(text, "customer", QualityConfig())
    assert verdict.keep
    assert Tag.TONE in verdict.tags
