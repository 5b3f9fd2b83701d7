"""What is found, per label and language, and what is left alone; properties of any output."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.scrub import find, find_record, find_rules, find_structured
from streams.scrub.detectors import _rules
from streams.scrub.gate import look
from streams.scrub.masking import render
from streams.scrub.normalise import normalise
from streams.scrub.spans import Overflow, Span

FOUND = [
    ("EMAIL", "write to {}", "ines.okafor+x@example.org"),
    ("EMAIL", "my mail {}", "ines dot okafor at gmail dot com"),
    ("EMAIL", "it is {} ok", "ines [at] example [dot] org"),
    ("EMAIL", "mail: {}", "ines @ example . org"),
    ("EMAIL", "only {}", "inе𝗌@exаmple.org"),
    ("PHONE", "call {}", "+49 170 1234567"),
    ("PHONE", "ruf mich an unter {}", "0170/1234567"),
    ("PHONE", "llámame al {}", "612 345 678"),
    ("PHONE", "my number is {}", "(415) 555-0134"),
    ("PHONE", "電話は{}です", "090-1234-5678"),
    ("PHONE", "رقمي {}", "٠٥٠١٢٣٤٥٦٧"),
    ("PHONE", "my number is {}", "oh one seven oh five five five one two three four"),
    ("CARD", "card {}", "4000 0012 3456 7899"),
    ("CARD", "visa {}", "4-0-0-0-0-0-1-2-3-4-5-6-7-8-9-9"),
    ("CARD", "paid with {}", "４０００　００１２　３４５６　７８９９"),
    ("CARD", "paid with {}", "4000\u200b0012\u200d3456\u20607899"),
    ("CARD", "card {}", "four zero zero zero double zero one two three four five six seven eight nine nine"),
    ("CARD_SEC", "the cvv is {}", "123"),
    ("IBAN", "refund to {}", "DE02 1203 0000 0000 2020 51"),
    ("IBAN", "refund to {}", "FR1420041010050500013M02606"),
    ("NATIONAL_ID", "my ssn is {}", "123-45-6789"),
    ("NATIONAL_ID", "last four of my ssn are {}", "6789"),
    ("NATIONAL_ID", "national insurance {}", "QQ 12 34 56 C"),
    ("PASSPORT", "passport {}", "X1234567"),
    ("DRIVER_LICENSE", "driving licence {}", "MORGA657054SM9IJ"),
    ("ADDRESS", "ship it to {}", "7223 Heron Court, Apt 2, Boise ID 83702"),
    ("ADDRESS", "ich wohne in der {}", "Lindenstraße 14"),
    ("ADDRESS", "mon adresse : {}", "12 rue des Lilas"),
    ("ADDRESS", "vivo en {}", "Calle Mayor 12"),
    ("ADDRESS", "abito in {}", "via Garibaldi 3"),
    ("ADDRESS", "new address: {}", "ul. Lipowa 7"),
    ("ZIP", "my postcode is {}", "SW1A 1AA"),
    ("DOB", "date of birth {}", "12 May 1987"),
    ("DOB", "geboren am {}", "12.05.1987"),
    ("ORDER_ID", "order {} is late", "ORD-2026-1234"),
    ("ORDER_ID", "Bestellnummer {}", "12345678"),
    ("TRACKING", "tracking {}", "1Z999AA10123456784"),
    ("ACCOUNT_ID", "my customer number is {}", "C-4711-22"),
    ("USERNAME", "my username is {}", "quartz_fox"),
    ("OTP", "the code is {}", "482 913"),
    ("OTP", "{} is the code i got", "4829"),
    ("SECRET", "my password is {}", "Heron!92x"),
    ("SECRET", "mi contraseña es {}", "gato_99"),
    ("SECRET", "Passwort: {}", "lampe44"),
    ("SECRET", "key {}", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("SECRET", "see https://{}@host.example/x", "ann:s3cret"),
    ("IP", "from {}", "203.0.113.7"),
    ("IP", "from {}", "2001:db8:0:0:0:0:2:1"),
    ("MAC", "router {}", "00:1b:44:11:3a:b7"),
    ("DEVICE_ID", "imei {}", "490154203237518"),
    ("VEHICLE", "my plate is {}", "AB12 CDE"),
    ("CRYPTO", "wallet {}", "0x52908400098527886e0f7030069857d2e4169ee7"),
    ("GEO", "i am at {}", "52.520008, 13.404954"),
    ("PERSON", "my name is {}", "Ines Okafor"),
    ("PERSON", "Mein Name ist {}", "Jörg Müßig"),
    ("PERSON", "je m'appelle {}", "Solène Abadie"),
    ("PERSON", "me llamo {}", "Itziar Ugarte"),
    ("PERSON", "mi chiamo {}", "Ornella Bassi"),
    ("PERSON", "меня зовут {}", "Иван Кузнецов"),
    ("PERSON", "please ask {} to call me", "王小明"),
    ("PERSON", "我叫{}，订单还没到", "王小明"),
    ("PERSON", "私は{}です", "山田太郎"),
    ("PERSON", "제 이름은 {}입니다", "김민준"),
    ("PERSON", "اسمي {}", "سالم العامري"),
    ("PERSON", "שמי {}", "נועם ברקת"),
    ("PERSON", "मेरा नाम {} है", "अनिल वर्मा"),
    ("ADDRESS", "我的地址是{}", "南京路12号3单元"),
    ("PERSON", "the parcel was signed for by {}", "Tomasz Wilk"),
    ("PERSON", "Dear {}, we have found it", "Lieke van 't Woud"),
    ("PERSON", "please ask for {}", "Thùy Mỹ"),
    ("IP", "from {}", "fe80::1a2b:3c4d:5e6f:7081"),
    ("ZIP", "{} is my postcode", "4107"),
    ("OTP", "{} that's the verification code", "80413"),
    ("CARD_SEC", "and on the back {}", "731"),
    ("DOB", "my date of birth should be {}", "4-11-81"),
    ("DOB", "born {}", "4 April 1996"),
]

LEFT = [
    "I was charged $1,299.99 instead of $999.",
    "It takes 3-5 business days.",
    "version 10.0.19045.3803 crashes",
    "from 2019 to 2021 it worked, and in 2022 too",
    "can I get a refund within 30 days?",
    "I forgot my password yesterday",
    "one of the three parcels came, the other two did not",
    "look at dot com prices",
    "My card payment failed on Monday",
    "Wo ist meine Bestellung?",
    "¿Dónde está mi pedido?",
    "meet me at 5pm or 17:30",
    "we need 10 20 30 40 50 60 pieces",
    "The train leaves on 12/05/2024",
    "[NAME] wrote **** to us",
    "I get 500 back on the 4107 model",
    "Vorrei sapere quando arriva la lavatrice",
    "quiero cancelar la entrega de la nevera",
    "dostawa miala byc wczoraj, gdzie jest kurier",
    "荷物がまだ届きません - any news?",
    "my oder was chagred twicce",
    "the doctor said it so I called",
]


@pytest.mark.parametrize(("label", "wording", "value"), FOUND)
def test_detectors_cover_every_label(label: str, wording: str, value: str) -> None:
    """Every letter and digit of the value lies inside a span, at the value's own place in the original."""
    text = wording.format(value)
    start = text.index(value)
    spans = find(text)
    covered = {i for a, b, _ in spans for i in range(a, b)}
    assert all(i in covered for i in range(start, start + len(value)) if text[i].isalnum()), (label, spans)


@pytest.mark.parametrize("text", LEFT)
def test_detectors_leave_ordinary_text(text: str) -> None:
    """Amounts, dates, versions, years, lists and plain sentences stay readable."""
    assert find(text) == []


def test_detectors_structured_is_a_part_of_rules() -> None:
    """The fast function finds its six types and nothing else."""
    text = "a@b.org 4000 0012 3456 7899 password: x9!kk 203.0.113.7"
    assert [label for _, _, label in find_structured(text)] == ["EMAIL", "CARD", "IP"]
    assert find_structured("no number here") == []


@pytest.mark.parametrize("value", ["4000 0012 3456 7899", "DE02120300000000202051", "123-45-6789", "QQ123456C"])
def test_detectors_mask_mistyped_values(value: str) -> None:
    """A checksum chooses the label, never whether to mask: any one digit may be wrong."""
    for at, char in enumerate(value):
        if char.isdigit():
            wrong = value[:at] + str((int(char) + 1) % 10) + value[at + 1 :]
            text = f"here: id {wrong}"
            covered = {i for a, b, _ in find(text) for i in range(a, b)}
            assert all(i in covered for i in range(9, len(text)) if text[i].isalnum()), wrong


def test_detectors_answer_to_a_question() -> None:
    """A bare answer is read by the question before it; talk about the question is not."""
    assert find_record({"text": "okafor", "prev": "May I have your last name?"}) == [(0, 6, "PERSON")]
    assert find_record({"text": "4711", "prev": "What is your policy number?"}) == [(0, 4, "ACCOUNT_ID")]
    assert find_record({"text": "why do you need that?", "prev": "May I have your last name?"}) == []
    assert find_record({"text": "is there no other way to log on?", "prev": "Which username do you use?"}) == []


PIECES = [value for _, _, value in FOUND] + [
    "order",
    "my name is",
    "password:",
    "@",
    "<EMAIL_1>",
    "at",
    "12",
    "\n",
    "İ",
    "ß",
    "🙂",
    "\u202e",
    "\x1c",
]
TEXTS = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_detectors_output_is_sound(text: str) -> None:
    """Spans are sorted, inside the text, apart; what lies outside them is unchanged; the mask holds nothing more."""
    spans = find(text)
    assert all(0 <= a < b <= len(text) for a, b, _ in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    masked = render(text, [(a, b, label, i + 1) for i, (a, b, label) in enumerate(spans)])
    rest = "".join(text[a:b] for a, b in _gaps(spans, len(text)))
    for i, (_, _, label) in enumerate(spans):
        masked = masked.replace(f"<{label}_{i + 1}>", "", 1)
    assert masked == rest


@pytest.mark.parametrize(("label", "wording", "value"), FOUND)
def test_detectors_find_nothing_in_masked_text(label: str, wording: str, value: str) -> None:
    """A masked text holds placeholders and nothing else that is found."""
    text = wording.format(value)
    masked = render(text, [(a, b, x, 1) for a, b, x in find(text)])
    assert {x for _, _, x in find(masked)} <= {"LITERAL"}, label


def _gaps(spans: list[tuple[int, int, str]], end: int) -> list[tuple[int, int]]:
    edges = [0, *(x for a, b, _ in spans for x in (a, b)), end]
    return list(zip(edges[::2], edges[1::2], strict=True))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_detectors_gate_is_a_superset(text: str) -> None:
    """With every flag raised the detectors find nothing that they would not have found behind the gate."""
    plain = normalise(text).text
    seen = look(plain)
    opened = seen._replace(flags=~0)
    assert _covered(_rules(plain, opened), plain) <= _covered(_rules(plain, seen), plain)


def _covered(spans: list[Span], text: str) -> set[int]:
    return {i for a, b, _ in spans for i in range(a, b) if text[i].isalnum()}


@pytest.mark.parametrize("unit", ["1 ", "a@", "12 Oak St ", "Xq ", "4111 ", "my name is ", "a dot b at c "])
def test_detectors_bound_the_number_of_values(unit: str) -> None:
    """A flood gives few spans or is refused as a whole, whatever is repeated."""
    rng = random.Random(1)
    text = (unit * 2000)[:8192] + str(rng.random())
    assert len(find(text)) < 8192
    with pytest.raises(Overflow):
        look("a-" * 2048)
    with pytest.raises(Overflow):
        _rules(" at gmail dot com" * 500, look(" at gmail dot com" * 500))
    assert find(" at gmail dot com" * 500) == [(0, 17 * 500, "SECRET")]
    assert find_rules(" at gmail dot com" * 500) == [(0, 17 * 500, "SECRET")]
