"""Conversations: numbering, people, restarts, pieces of values, late and held turns."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import CleanEvent, Message
from streams.scrub import ConversationState, Keys, Quarantined, Scrubber, ScrubConfig, scrub_conversation
from streams.scrub.conversation import Numbering
from streams.scrub.late import MaskedTurn, late_finds
from streams.scrub.masking import mask_turn, render

KEYS = Keys("k1", {"k1": b"1" * 32}, b"f" * 32)


def turns(*texts: tuple[str, str], **metadata: object) -> list[str]:
    return scrub_conversation({"metadata": metadata, "turns": [{"role": r, "text": t} for r, t in texts]})


def test_conversation_names_people_apart() -> None:
    """A first name alone is the one person who bears it; with two bearers it is somebody of its own."""
    assert turns(
        ("customer", "my name is Ines Okafor, I ordered for Tomasz Wilk"),
        ("agent", "Thanks Ines. Is Tomasz Wilk there?"),
        ("customer", "yes, Tomasz is here"),
    ) == [
        "my name is <PERSON_1>, I ordered for <PERSON_2>",
        "Thanks <PERSON_1>. Is <PERSON_2> there?",
        "yes, <PERSON_2> is here",
    ]
    masked = turns(
        ("customer", "my name is Ines Okafor"), ("customer", "and Ines Wilk pays"), ("agent", "Thanks Ines.")
    )
    assert masked[1:] == ["and <PERSON_2> pays", "Thanks <PERSON_3>."]


def test_conversation_knows_the_metadata() -> None:
    """Values of the event itself are found in any spelling, common words and guests excepted."""
    masked = turns(
        ("agent", "Hi Wanda, your account C-471122?"),
        ("customer", "yes, or just 471122. phone is 0049 170 1234567, mail WANDA@EXAMPLE.ORG"),
        ("customer", "I am a guest here"),
        customer_name="Wanda Date", account_id="C-471122", phone="+49 170 1234567", email="wanda@example.org",
        nick="guest",
    )  # fmt: skip
    assert masked == [
        "Hi <PERSON_1>, your account <ACCOUNT_ID_1>?",
        "yes, or just <ACCOUNT_ID_1>. phone is <PHONE_1>, mail <EMAIL_1>",
        "I am a guest here",
    ]


SPELLINGS = [
    ("my card is 4000 0012 3456 7899", "4000-0012-3456-7899", "４０００００１２３４５６７８９９",
     "4000\u200b0012/3456/7899", "four zero zero zero double zero one two three four five six seven eight nine nine"),
    ("mail ines.okafor@gmail.com", "INES.OKAFOR@GMAIL.COM", "ines dot okafor at gmail dot com",
     "ines.okafor [at] gmail [dot] com", "ines . okafor @ gmail . com"),
    ("call +49 170 1234567", "0170/1234567", "0049 (170) 123 45 67",
     "oh one seven oh one two three four five six seven"),
    ("my ssn is 123-45-6789", "123 45 6789", "my ssn is 123456789", "١٢٣-٤٥-٦٧٨٩"),
    ("my name is Ines Okafor", "this is INES OKAFOR", "Okafor, Ines", "Inés Okafor's parcel",
     "I\u200bnes O\u00adkafor"),
    ("order ORD-2026-1234", "ord 2026 1234", "ORDER ORD/2026/1234"),
]  # fmt: skip


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_conversation_one_value_has_one_placeholder(spellings: tuple[str, ...]) -> None:
    """However a value is written, whoever writes it, it keeps its number; no letter or digit of it is left."""
    masked = turns(*(("customer" if n % 2 else "agent", text) for n, text in enumerate(spellings)))
    found = [re.findall(r"<([A-Z_]+_\d+)>", text) for text in masked]
    assert {frozenset(each) for each in found} == {frozenset(found[0])}, masked
    assert len(found[0]) == 1


def test_conversation_knows_every_spelling_of_the_metadata() -> None:
    """Full name, parts, possessive, disguised address, ids with and without prefix; words of two letters are none."""
    masked = turns(
        ("agent", "is wanda's parcel, or Kowalska's, for WANDA AL KOWALSKA?"),
        ("customer", "wanda dot k at example dot org, Al was there"),
        ("agent", "orders 77-1234 and #5678-9? and the loyalty card LC-998877, or 998877"),
        ("customer", "i am Quartz Fox there and live at 14, Heron Court - boise."),
        customer_name="Wanda Al Kowalska", email="wanda.k@example.org", order_ids=["#77-1234", "56789"],
        loyalty="LC-998877", username="quartz fox", address="14 Heron Court Boise", plan="gold member",
    )  # fmt: skip
    assert masked == [
        "is <PERSON_1>'s parcel, or <PERSON_1>'s, for <PERSON_1>?",
        "<EMAIL_1>, Al was there",
        "orders <ORDER_ID_1> and <ORDER_ID_2>? and the loyalty card <ACCOUNT_ID_1>, or <ACCOUNT_ID_1>",
        "i am <USERNAME_1> there and live at <ADDRESS_1>.",
    ]


def test_conversation_reads_bare_answers_and_ends_with_them() -> None:
    """An answer is masked by the question; ordinary words and the turns after it stay."""
    masked = turns(
        ("agent", "May I have your name?"),
        ("customer", "why do you need that?"),
        ("customer", "okafor"),
        ("agent", "Thank you."),
        ("customer", "no problem"),
    )
    assert masked[1:] == ["why do you need that?", "<PERSON_1>", "Thank you.", "no problem"]


def test_conversation_state_survives_a_restart() -> None:
    """Encoded and decoded between all turns, the numbering is the same."""
    scrubber = Scrubber(ScrubConfig(), KEYS)
    state = ConversationState()
    out = []
    for seq, text in enumerate(["I am Ines Okafor", "card 4000 0012 3456 7899", "4000001234567899, Ines"]):
        clean, state = scrubber.scrub_event(_message(seq, text), state, received_at=seq, offset=(0, seq))
        state = ConversationState.decode(state.encode())
        out.append(clean[0].text)
    assert out == ["I am <PERSON_1>", "card <CARD_1>", "<CARD_1>, <PERSON_1>"]


def test_conversation_overflow_is_quarantined() -> None:
    """More events or values than a conversation has: nothing passes any more."""
    scrubber = Scrubber(ScrubConfig(max_events=1), KEYS)
    _, state = scrubber.scrub_event(_message(0, "hello"), ConversationState(), received_at=0, offset=(0, 0))
    with pytest.raises(Quarantined, match="conversation_overflow"):
        scrubber.scrub_event(_message(1, "hello again"), state, received_at=0, offset=(0, 1))


def test_conversation_digests_need_the_key() -> None:
    """The same value has unrelated digests under two keys."""
    one, two = Numbering(ConversationState(), b"1" * 32), Numbering(ConversationState(), b"2" * 32)
    assert one.digest("n4711") != two.digest("n4711")


IN_PIECES = [
    ("What is your card number?", "4000001234567899"),
    ("What is your card number?", "4000 0012 3456 7899"),
    ("What is your phone number?", "+49 170 1234567"),
    ("Can I have your SSN?", "123-45-6789"),
    ("What is your IBAN?", "DE02120300000000202051"),
    ("Which order is it? The number please.", "47112208"),
    ("May I have your account number?", "C-471122"),
    ("What is the code from the text message?", "482913"),
    ("And the tracking number?", "1Z999AA10123456784"),
]


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize(("question", "value"), IN_PIECES)
def test_conversation_pieces_cannot_be_joined(question: str, value: str, parts: int) -> None:
    """A number cut anywhere over two to four turns, asked for or not, leaves less than six digits to be joined."""
    cuts = list(itertools.combinations(range(1, len(value)), parts - 1))
    for cut, asked in itertools.product(cuts[:: max(1, len(cuts) // 9)], ("ok", question)):
        pieces = [value[a:b] for a, b in itertools.pairwise([0, *cut, len(value)])]
        masked = _after_close(("agent", asked), *(("customer", piece) for piece in pieces))
        left = re.sub(r"\D", "", re.sub(r"<[A-Z_]+_\d+>", "", " ".join(masked[1:])))
        assert len(left) < 6, (pieces, masked)
        assert len(left) <= 2 or asked == "ok", (pieces, masked)


def _after_close(*said: tuple[str, str]) -> list[str]:
    """The turns as they stand after the conversation pass at the conversation's end."""
    state, key = ConversationState(), b"k" * 32
    masked = []
    for seq, (role, text) in enumerate(said):
        placed = mask_turn(text, role, seq, Numbering(state, key), ScrubConfig())
        masked.append(MaskedTurn(seq, role, render(text, placed)))
    found = late_finds(masked, state, key)
    return [found.get(place, turn.text) for place, turn in enumerate(masked)]


def test_conversation_holds_a_possible_piece_until_the_next_turn() -> None:
    """With holding on, a doubtful turn leaves with the turn that decides it, in front of it; a lone one unmasked."""
    scrubber = Scrubber(ScrubConfig(hold_s=5), KEYS)
    state = ConversationState()
    held, state = scrubber.scrub_event(_message(0, "starts 400"), state, received_at=0, offset=(0, 0))
    assert held == []
    both, after = scrubber.scrub_event(_message(1, "then 0012 3456"), state, received_at=1, offset=(0, 1))
    assert _texts(both) == ["starts <ACCOUNT_ID_1>", "then <ACCOUNT_ID_2>"]
    assert after.held == []
    assert scrubber.release(state, now=1)[0] == []
    assert len(_texts(scrubber.release(state, now=6)[0])) == len(_texts(scrubber.close(state)[0])) == 1


def test_conversation_late_question_does_not_reach_back() -> None:
    """A question that arrives late asks nothing of the turns before it."""
    scrubber = Scrubber(ScrubConfig(), KEYS)
    _, state = scrubber.scrub_event(
        _message(5, "What is your name?", "agent"), ConversationState(), received_at=0, offset=(0, 0)
    )
    clean, _ = scrubber.scrub_event(_message(2, "sparrow hawk"), state, received_at=1, offset=(0, 1))
    assert _texts(clean) == ["sparrow hawk"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["I am Ines", "card 4000 0012 3456 7899", "code 4829", "a@b.org", "hi"]), max_size=6),
    st.randoms(),
)
def test_conversation_redeliveries_change_nothing(texts: list[str], rng: object) -> None:
    """Whatever is repeated in whatever order, each event has one output."""
    scrubber = Scrubber(ScrubConfig(), KEYS)
    state = ConversationState()
    first: dict[int, list[str | None]] = {}
    order = list(range(len(texts))) * 2
    rng.shuffle(order)  # type: ignore[attr-defined] # hypothesis's Random
    for seq in order:
        clean, state = scrubber.scrub_event(_message(seq, texts[seq]), state, received_at=0, offset=(0, seq))
        assert first.setdefault(seq, _texts(clean)) == _texts(clean)


def _message(seq: int, text: str, role: str = "customer") -> Message:
    return Message(event_id=f"e{seq}", conversation_id="c", seq=seq, ts="2025-01-01T00:00:00Z", role=role, text=text)  # type: ignore[arg-type] # a role


def _texts(events: list[CleanEvent]) -> list[str | None]:
    return [event.text for event in events]
