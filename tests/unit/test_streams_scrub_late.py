"""The conversation pass: values known at the end are found in turns that were masked before."""

from streams.scrub import Keys, ScrubConfig
from streams.scrub.conversation import ConversationState, Numbering
from streams.scrub.identity import value_key
from streams.scrub.late import MaskedTurn, late_finds
from streams.scrub.masking import mask_turn, render

KEY = value_key(Keys("k1", {"k1": b"1" * 32}, b"f" * 32))


def conversation(*turns: tuple[str, str]) -> tuple[list[MaskedTurn], ConversationState]:
    """The turns of a conversation as they left the scrubber, and its state."""
    state = ConversationState()
    masked = []
    for seq, (role, text) in enumerate(turns):
        placed = mask_turn(text, role, seq, Numbering(state, KEY), ScrubConfig())
        masked.append(MaskedTurn(seq, role, render(text, placed)))
    return masked, state


def test_late_name_is_found_in_earlier_turns() -> None:
    """A surname that was no name when it was said becomes the person who is introduced later."""
    turns, state = conversation(
        ("customer", "the parcel for quellmark never came"),
        ("agent", "Who is speaking?"),
        ("customer", "my name is Ines Quellmark"),
        ("agent", "Thank you Ines."),
    )
    turns[0] = MaskedTurn(0, "customer", "the parcel for quellmark never came")
    assert late_finds(turns, state, KEY) == {0: "the parcel for <PERSON_1> never came"}


def test_late_pieces_are_joined() -> None:
    """Digits left in short turns that follow each other are masked when together they are a value."""
    turns = [
        MaskedTurn(0, "customer", "40 00"),
        MaskedTurn(1, "agent", "yes?"),
        MaskedTurn(2, "customer", "00 12"),
        MaskedTurn(3, "customer", "I ordered 3 boxes on the 12th of May for 20 people"),
    ]
    found = late_finds(turns, ConversationState(), KEY)
    assert set(found) == {0, 2}
    assert not any(char.isdigit() for text in found.values() for char in text.replace("_1>", "").replace("_2>", ""))


def test_late_leaves_clean_turns_and_placeholders() -> None:
    """Nothing known, nothing found; a placeholder is never searched."""
    turns, state = conversation(("customer", "my card is 4000 0012 3456 7899"), ("agent", "Thanks, done in 3 days."))
    assert turns[0].text == "my card is <CARD_1>"
    assert late_finds(turns, state, KEY) == {}
