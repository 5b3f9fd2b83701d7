"""Augmentation: lineage, split and replies stay, only customers' words change."""

from __future__ import annotations

import random

import pytest

from streams.augment import AugmentConfig, augment, paraphrase, same_meaning, typing_noise
from streams.events import Sample, Turn


def _sample(split: str = "train") -> Sample:
    turns = (
        Turn(role="customer", text="Hello, can you help me please?"),
        Turn(role="agent", text="Of course, what is it?", is_target=True, event_id="e1"),
        Turn(role="customer", text="Where is my order <ORDER_1>? I would like to change the address to 12 Elm Road."),
        Turn(role="agent", text="It left on Monday.", is_target=True, event_id="e2"),
    )
    return Sample(
        sample_id="e2/sft/0", conversation="c", customer="k", lane="chat", split=split,  # type: ignore[arg-type]
        turns=turns, received_at=1.0, completed_at=2.0, event_ids=("a", "e1", "b", "e2"),
    )  # fmt: skip


def test_augment_is_off_by_default() -> None:
    """No copies unless they are asked for."""
    assert augment(_sample(), AugmentConfig(), random.Random(1)) == []


def test_augment_keeps_lineage_split_and_replies() -> None:
    """Copies name their parent's event, keep its split and customer, and never touch a reply."""
    parent = _sample()
    copies = augment(parent, AugmentConfig(copies=8, typos=0.1), random.Random(4))
    assert copies
    for copy in copies:
        assert copy.kind == "aug"
        assert copy.sample_id.startswith("e2/aug/")
        assert (copy.split, copy.customer, copy.event_ids) == ("train", parent.customer, parent.event_ids)
        assert [t for t in copy.turns if t.is_target] == [t for t in parent.turns if t.is_target]
        assert copy.turns != parent.turns
    assert len({copy.sample_id for copy in copies}) == len(copies)


@pytest.mark.parametrize("split", ["val", "test"])
def test_augment_leaves_heldout_samples_alone(split: str) -> None:
    """Held-out samples and copies have no copies."""
    assert augment(_sample(split), AugmentConfig(copies=3), random.Random(1)) == []
    (copy, *_) = augment(_sample(), AugmentConfig(copies=8), random.Random(1))
    assert augment(copy, AugmentConfig(copies=3), random.Random(1)) == []


def test_augment_noise_spares_numbers_and_placeholders() -> None:
    """Digits and placeholders are facts; letters may slip."""
    text = "order <ORDER_1> of 12.50 euro is missing since yesterday evening"
    noisy = typing_noise(text, 0.2, random.Random(2))
    assert noisy != text
    assert "<ORDER_1>" in noisy
    assert "12.50" in noisy
    assert typing_noise(text, 0.0, random.Random(2)) == text


def test_augment_paraphrases_known_phrases_only() -> None:
    """A template applies where its phrase stands; other text comes back as it was."""
    assert paraphrase("How do I reset it?", random.Random(1)) != "How do I reset it?"
    assert paraphrase("blue, size 42", random.Random(1)) == "blue, size 42"


def test_augment_is_repeatable() -> None:
    """The same seed gives the same copies."""
    config = AugmentConfig(copies=4, typos=0.1)
    assert augment(_sample(), config, random.Random(9)) == augment(_sample(), config, random.Random(9))


@pytest.mark.parametrize("bad", [{"copies": -1}, {"typos": 0.5}, {"token_share": 0.4}])
def test_augment_config_refuses_bad_values(bad: dict[str, float]) -> None:
    """Ranges are checked by name."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentConfig(**bad)  # type: ignore[arg-type]


ASKED = "Can I return the lamp of order 4812 before Friday? <PERSON_1> bought it"


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("<PERSON_1> bought the lamp of order 4812, is a return before Friday possible?", True),
        ("can i return the lamp of ORDER 4812 before Friday? <PERSON_1> bought it!", False),
        ("<PERSON_1> bought the lamp of order 4813, is a return before Friday possible?", False),
        ("<PERSON_1> bought the lamp of order 4812, is a return before Monday possible?", False),
        ("<PERSON_1> bought the lamp of order 4812, is it not possible to return it before Friday?", False),
        ("My wife bought the lamp of order 4812, is a return before Friday possible?", False),
        ("return 4812 Friday <PERSON_1>", False),
        ("<PERSON_1> 4812 Friday WINNER! Claim your FREE prize of cash now, txt WIN or click http://win.top", False),
        ("", False),
    ],
)
def test_augment_takes_other_words_with_the_same_facts(said: str, *, taken: bool) -> None:
    """Numbers, days, names, negations and placeholders stay; the same words, spam and fragments are refused."""
    assert same_meaning(ASKED, said) is taken


def test_augment_lets_a_model_say_the_question_otherwise() -> None:
    """Only the turn before the first reply changes, the seed decides, and a wording that will not do gives no copy."""
    turns = (
        Turn(role="customer", text="Hi there"), Turn(role="agent", text="Hello, how can I help?"),
        Turn(role="customer", text="How long do refunds take?"),
        Turn(role="agent", text="Five days.", is_target=True),
    )  # fmt: skip
    parent = Sample(
        sample_id="e1/sft/0", conversation="c", customer="k", lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0,
    )  # fmt: skip
    config = AugmentConfig(copies=2, generated=1.0)
    told: list[int] = []

    def say(text: str, seed: int) -> str:
        told.append(seed)
        return "What is the usual wait for a refund?" if text == turns[2].text else "?"

    copies = augment(parent, config, random.Random(3), say)
    assert [copy.turns[2].text for copy in copies] == ["What is the usual wait for a refund?"] * 2
    assert all(copy.turns[:2] == turns[:2] and copy.turns[3:] == turns[3:] for copy in copies)
    assert len(set(told)) == len(told)
    assert augment(parent, config, random.Random(3), say) == copies
    assert not augment(parent, config, random.Random(3), lambda _text, _seed: "How long do refunds take")
    plain = AugmentConfig(copies=2)
    assert augment(parent, plain, random.Random(3), say) == augment(parent, plain, random.Random(3))
