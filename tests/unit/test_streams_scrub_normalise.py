"""Detection text and the way back to the original."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.scrub.gate import HARMLESS
from streams.scrub.normalise import LETTER, normalise


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("４０００－００", "4000-00"),
        ("٠١٢ ०१२ ๐๑๒", "012 012 012"),
        ("①² ½", "12 1/2"),
        ("Mu\u0308ller Ærø Łódź", "Muller AEro Lodz"),
        ("меня зовут Иван", "mena zovut Ivan"),
        ("аnn@ехample", "ann@example"),
        ("4\ufe0f\u20e3 2\u0305", "4 2"),
        ("a\u200bb\u00adc\u202ed", "abcd"),
        ("a\u00a0b\u3000c\x1cd", "a b c d"),
        ("王 €5 ‘x’ — y", f"{LETTER} $5 'x' - y"),
    ],
)
def test_normalise_folds_to_ascii(text: str, plain: str) -> None:
    """Digits, compatibility forms, accents, look-alikes, ignorables, spaces and dashes."""
    assert normalise(text).text == plain


def test_normalise_keeps_ascii_as_it_is() -> None:
    """The fast path gives the text itself and no map."""
    assert normalise("my card\n4000\t0012") == ("my card\n4000\t0012", None)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_normalise_maps_every_character_to_its_source(text: str) -> None:
    """Detection text is ASCII; sources rise; a span maps inside the original and covers what it came from."""
    plain = normalise(text)
    assert plain.text.isascii()
    if plain.source is None:
        return
    assert len(plain.source) == len(plain.text) + 1
    assert plain.source == sorted(plain.source)
    for at in range(len(plain.text)):
        start, end = plain.original(at, at + 1)
        assert 0 <= start < end <= len(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.characters(categories=["Nd"]), min_size=1, max_size=20))
def test_normalise_reads_digits_of_every_script(digits: list[str]) -> None:
    """By Unicode property, not by a list."""
    assert normalise("".join(digits)).text == "".join(str(unicodedata.decimal(d)) for d in digits)


def test_normalise_makes_no_number_of_a_harmless_character() -> None:
    """What lets a text past the search for structured values becomes no digit, no sign of an address."""
    harmless = [char for char in map(chr, range(0x80, 0x3000)) if HARMLESS.fullmatch(char)]
    assert harmless
    assert not [char for char in harmless if set(normalise(char).text) & set("0123456789@.:")]
