"""The stage: clean events, numbering, redelivery, fail closed, allow-list, prompts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.events import Closed, Feedback, Message, encode_record
from streams.scrub import ConversationState, Keys, Quarantined, Scrubber, ScrubConfig, scrub_messages
from streams.scrub.identity import conversation_pseudonym, pseudonym

KEYS = Keys("k1", {"k1": b"1" * 32}, b"f" * 32)
SCRUBBER = Scrubber(ScrubConfig(), KEYS)
CARD = "4000 0012 3456 7899"


def message(seq: int, text: str, role: str = "customer", **fields: Any) -> Message:
    common: dict[str, Any] = {"conversation_id": "+49 170 1234567", "ts": "2025-01-01T00:00:00Z", "role": role}
    return Message(event_id=f"e{seq}", seq=seq, text=text, **common, **fields)


def scrub(
    event: Message | Feedback | Closed, state: ConversationState, scrubber: Scrubber = SCRUBBER
) -> tuple[str, ConversationState]:
    clean, new = scrubber.scrub_event(event, state, received_at=1.0, offset=(0, event.seq))
    return clean[0].text or clean[0].corrected_text or "", new


def test_scrubber_numbers_values_per_conversation() -> None:
    """The same value has the same placeholder in every spelling; another value has another."""
    state = ConversationState()
    first, state = scrub(message(0, f"my card is {CARD} and mail ann.lee@example.org"), state)
    second, state = scrub(message(1, "so 4000-0012-3456-7899, not 4000 0098 7654 3210?", "agent"), state)
    assert first == "my card is <CARD_1> and mail <EMAIL_1>"
    assert second == "so <CARD_1>, not <CARD_2>?"


def test_scrubber_answers_redelivery_from_first_arrival() -> None:
    """A repeated event gives the same output and leaves the state as it is, whatever came between."""
    state = ConversationState()
    early, state = scrub(message(0, "I am Ines Okafor"), state)
    _, state = scrub(message(1, "Thanks Ines, is Tom Okafor with you?", "agent"), state)
    again, after = scrub(message(0, "I am Ines Okafor"), ConversationState.decode(state.encode()))
    assert again == early == "I am <PERSON_1>"
    assert after.encode() == state.encode()


def test_scrubber_state_holds_no_value() -> None:
    """What is persisted are digests, labels and numbers."""
    _, state = scrub(
        message(0, f"I am Ines Okafor, {CARD}, ines@example.org", customer={"id": "C-77", "name": "Ines Okafor"}),
        ConversationState(),
    )
    raw = state.encode().lower()
    for part in (b"ines", b"okafor", b"4000", b"example", b"c-77"):
        assert part not in raw


def test_scrubber_clean_event_is_an_allow_list() -> None:
    """Ids become pseudonyms, odd labels are dropped, and nothing of the customer is left."""
    event = message(
        0,
        "hello",
        customer={"id": "C-77", "name": "Ines Okafor", "shoe": 38},
        agent_id="bob@corp",
        channel="web_chat",
        lang="call 0170 1234567",
    )
    (clean,), _ = SCRUBBER.scrub_event(event, ConversationState(), received_at=1.0, offset=(2, 7), tenant="t")
    body = msgspec.json.decode(encode_record(clean))
    assert body["conversation"] == conversation_pseudonym(KEYS, "+49 170 1234567", "t")
    assert body["customer"] == pseudonym(KEYS, "customer", "C-77", "t")
    assert body["channel"] == "web_chat"
    assert "lang" not in body
    assert not any(part in str(body) for part in ("Ines", "C-77", "bob", "1234567"))


def test_scrubber_feedback_and_close() -> None:
    """Corrected text is scrubbed with the conversation's numbers; close carries no text."""
    _, state = scrub(message(0, "I am Ines Okafor"), ConversationState())
    edit = Feedback(
        event_id="f", conversation_id="c", seq=1, ts="2025-01-01T00:00:00Z", corrected_text="Dear Ines Okafor, done."
    )
    assert scrub(edit, state)[0] == "Dear <PERSON_1>, done."
    (closed,), _ = SCRUBBER.scrub_event(
        Closed(event_id="x", conversation_id="c", seq=2, ts="2025-01-01T00:00:00Z", turns=1),
        state,
        received_at=1.0,
        offset=(0, 2),
    )
    assert closed.type == "conversation_closed"
    assert closed.turns == 1


def test_scrubber_typed_placeholder_is_defused() -> None:
    """A customer who types a placeholder gets a literal; the model's own placeholder stays."""
    _, state = scrub(message(0, "mail ann.lee@example.org"), ConversationState())
    for typed in ("<EMAIL_1>", "\uff1cEMAIL_1\uff1e", "<EMAIL_\u200b1>", "<EMAIL_\u0661>"):
        assert scrub(message(1, f"send it to {typed}"), state)[0] == "send it to <LITERAL_1>"
    assert scrub(message(1, "I wrote to <EMAIL_1>", "assistant"), state)[0] == "I wrote to <EMAIL_1>"
    assert scrub(message(1, "I wrote to <EMAIL_2>", "assistant"), state)[0] == "I wrote to <LITERAL_1>"


def test_scrubber_fails_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of any stage becomes a reason code without text, and the old state stands."""

    def broken(*_: object) -> None:
        raise KeyError(CARD)

    state = ConversationState()
    monkeypatch.setattr("streams.scrub.masking.detect", broken)
    with pytest.raises(Quarantined) as caught:
        scrub(message(0, CARD), state)
    assert caught.value.reason == "scrub_failed"
    assert caught.value.event_id == "e0"
    assert caught.value.__cause__ is None
    assert "4000" not in repr(caught.value)
    assert state == ConversationState()


@pytest.mark.parametrize(
    ("config", "text", "reason"),
    [
        (ScrubConfig(max_chars=3), "long", "too_long"),
        (ScrubConfig(max_spans=1), f"{CARD} or a@b.org", "too_many_values"),
        (ScrubConfig(max_entities=1), f"{CARD} or a@b.org", "conversation_overflow"),
        (ScrubConfig(canaries=("Blue Heron",)), "the blue heron sings", "residual_canary"),
    ],
)
def test_scrubber_limits_quarantine(config: ScrubConfig, text: str, reason: str) -> None:
    """Beyond a limit nothing passes."""
    with pytest.raises(Quarantined, match=reason):
        scrub(message(0, text), ConversationState(), Scrubber(config, KEYS))


@pytest.mark.parametrize(
    ("text", "reason"), [("4000001234567899", "residual_digits"), ("ann@example.org", "residual_at_sign")]
)
def test_scrubber_second_look_catches_misses(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    """With every detector switched off the second look still stops numbers and addresses."""
    monkeypatch.setattr("streams.scrub.masking.detect", lambda *_: [])
    with pytest.raises(Quarantined, match=reason):
        scrub(message(0, f"so {text} then", "agent"), ConversationState())


def test_scrubber_second_look_leaves_error_codes() -> None:
    """A hexadecimal error code of eight digits is no number of a person; a longer run behind 0x stays one."""
    text = "the installer stops with error 0x80070057 every time I try"
    assert scrub(message(0, text), ConversationState())[0] == text
    with pytest.raises(Quarantined, match="residual_digits"):
        scrub(message(0, "what does the long code 0x4000001234567899 mean in the logs", "agent"), ConversationState())


@pytest.mark.parametrize("name", ["messages", "speed"])
def test_scrubber_second_look_never_hits_on_the_labelled_set(pii_dir: Path, name: str) -> None:
    """Every turn of the shared sets passes: a hit of the second look would be a bug of a detector."""
    for line in (pii_dir / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row, state = msgspec.json.decode(line), ConversationState()
        if row.get("prev"):
            _, state = SCRUBBER.scrub_event(message(0, row["prev"], "agent"), state)
        SCRUBBER.scrub_event(message(1, row["text"]), state)


def test_scrubber_takes_an_event_and_a_state_alone() -> None:
    """The contract's shortest call: what a record tells besides has defaults; the state that came in is unchanged."""
    state = ConversationState()
    (clean,), after = SCRUBBER.scrub_event(message(0, "I am Ines Okafor"), state)
    assert (clean.text, state) == ("I am <PERSON_1>", ConversationState())
    assert SCRUBBER.release(after, 9.0) == SCRUBBER.close(after) == ([], after)


def test_scrub_messages_gives_masks_and_originals() -> None:
    """A prompt is masked with one numbering, and the map fills the placeholders of the answer."""
    masked, originals = scrub_messages(
        [{"role": "user", "content": "I am Ines Okafor"}, {"role": "assistant", "content": "Hi Ines"}],
        ScrubConfig(),
        KEYS,
    )
    assert masked == ["I am <PERSON_1>", "Hi <PERSON_1>"]
    assert originals == {"<PERSON_1>": "Ines Okafor"}


def test_scrubber_leaves_public_contacts() -> None:
    """The company's own address and number stay in any spelling, and the second look lets them pass."""
    own = Scrubber(ScrubConfig(public_contacts=("help@shop.example", "+1 800 555 0100")), KEYS)
    text = "write HELP@shop.example or call +1-800-555-0100, not ann@shop.example"
    assert scrub(message(0, text, "agent"), ConversationState(), own)[0] == text.replace(
        "ann@shop.example", "<EMAIL_1>"
    )


def test_scrubber_leaves_public_names() -> None:
    """The company's own names stay where they stand whole; whoever bears a part of one is masked, there too."""
    text = "Marlow & Finch gear desk, Priya Nair here. Our shop in Marlow Vale sends it."
    plain, *_ = scrub(message(0, text, "agent"), ConversationState(), Scrubber(ScrubConfig(), KEYS))
    assert "Marlow & Finch" not in plain
    own = Scrubber(ScrubConfig(public_names=("Marlow & Finch", "marlow vale")), KEYS)
    masked, *_ = scrub(message(0, text, "agent"), ConversationState(), own)
    assert masked == "Marlow & Finch gear desk, <PERSON_1> here. Our shop in Marlow Vale sends it."
    bearer, *_ = scrub(message(0, f"I am Anna Finch. {text}", "agent"), ConversationState(), own)
    assert "Finch" not in bearer


def test_scrubber_recogniser_joins_and_fails_closed() -> None:
    """A configured recogniser's spans are masked; if it fails the turn is quarantined, unless it only advises."""

    class Backend:
        def entities(self, texts: list[str]) -> list[list[tuple[int, int, str]]]:
            if "boom" in texts[0]:
                raise RuntimeError(texts[0])
            return [[(0, 4, "PERSON")]]

    strict = Scrubber(ScrubConfig(), KEYS, Backend())
    assert scrub(message(0, "blue sky"), ConversationState(), strict)[0] == "<PERSON_1> sky"
    with pytest.raises(Quarantined, match="recogniser_failed"):
        scrub(message(0, "boom sky"), ConversationState(), strict)
    lenient = Scrubber(ScrubConfig(ner_required=False), KEYS, Backend())
    assert scrub(message(0, "boom sky"), ConversationState(), lenient)[0] == "boom sky"
