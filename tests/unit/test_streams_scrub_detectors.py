"""What is found, per label and language, and what is left alone; properties of any output."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.scrub import find, find_record, find_structured
from streams.scrub.addresses import find_addresses
from streams.scrub.detectors import _rules
from streams.scrub.gate import STREET_ALONE, UNUSUAL, look
from streams.scrub.masking import render
from streams.scrub.normalise import normalise
from streams.scrub.persons import find_persons
from streams.scrub.spans import Span

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
    ("PERSON", "меня зовут {}", "Игорь"),
    ("ADDRESS", "I live at {}", "Østergade 110, 3. tv, 2100 København"),
    ("ADDRESS", "our new address is {}", "dizengoff st 101, tel aviv-yafo"),
    ("ADDRESS", "ship it to {}", "Calle 7 entre 45 y 46, La Plata"),
    ("ADDRESS", "moved to {}", "aleksanterinkatu 19 a 7, 33100 tampere"),
    ("ADDRESS", "ship it to {} please", "Stand 512, Marlborough, Harare"),
    ("ADDRESS", "deliver to {}", "Bldg 301, Road 2408, Block 324, Muharraq"),
    ("ADDRESS", "vivo en {}", "C/ Olmos 27, 3.º izq., 18005 Granada"),
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
    ("EMAIL", "reach me: {}", "ines . okafor @ gmail . com"),
    ("PHONE", "ring {}", "020 7946 0018 ext 42"),
    ("NATIONAL_ID", "mein Steuernummer: {}", "181/815/08155"),
    ("NATIONAL_ID", "mi DNI es {}", "12345678Z"),
    ("NATIONAL_ID", "aadhaar {}", "2345 6789 0123"),
    ("NATIONAL_ID", "meu CPF {}", "123.456.789-09"),
    ("SECRET", "api {}", "AKIA2ABCDEFGH3IJKLMN"),
    ("SECRET", "api {}", "glpat-x1Y2z3A4b5C6d7E8f9G0"),
    ("SECRET", "api {}", "npm_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"),
    ("SECRET", "api {}", "sk_live_a1B2c3D4e5F6g7H8"),
    ("SECRET", "api {}", "sk-proj-a1B2c3D4e5F6g7H8i9J0"),
    ("SECRET", "api {}", "xoxb-123456789012-a1B2c3D4e5F6"),
    ("SECRET", "api {}", "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"),
    ("SECRET", "api {}", "SG.a1B2c3D4e5F6g7H8i9J0kL.m1N2o3P4q5R6s7T8u9V0w1X2y3Z4"),
    ("SECRET", "token {}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.a1B2c3D4e5"),
    ("SECRET", "key {}", "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1\n-----END RSA PRIVATE KEY-----"),
    ("SECRET", "the hash was {}", "9f86d081884c7d659a2feaa0c55ad015"),
    ("SECRET", "it says {} there", "q7R8s9T0u1V2w3X4y5Z6"),
    ("SECRET", "mon mot de passe est {}", "chaton!7"),
    ("SECRET", "minha senha é {}", "pipoca22"),
    ("SECRET", "la mia password è {}", "Girasole9"),
    ("SECRET", "mój hasło: {}", "kotek11"),
    ("SECRET", "my mother's maiden name is {}", "Quellmark"),
    ("SECRET", "the answer to my security question: {}", "Rosebud"),
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
    "it needs 250 ml, 512 GB and 40 % of 1200 dpi",
    "the security answer was wrong and my security word is not known",
    "the flight takes 10:15-12:45, then 2.5 hours",
    "sizes 38 39 40 41 are sold out",
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


ASKED = [
    ("PERSON", "May I have your full name, please?", "okafor"),
    ("PERSON", "Wie heißen Sie?", "quellmark"),
    ("EMAIL", "Which e-mail address is on the account?", "ines at quellmark"),
    ("PHONE", "What is the best number to reach you?", "55 01 34"),
    ("ADDRESS", "Where shall we send it?", "14 heron court boise"),
    ("CARD", "Could you read me the card number?", "4000 0012"),
    ("CARD_SEC", "And the CVV?", "731"),
    ("ZIP", "What is your zip code?", "83702"),
    ("ZIP", "Wie ist Ihre Postleitzahl?", "4107"),
    ("NATIONAL_ID", "Last four of your SSN?", "6789"),
    ("SECRET", "What is your security answer?", "rosebud"),
    ("SECRET", "What was the name of your first pet?", "fluffy"),
    ("SECRET", "In which town were you born?", "quellby"),
    ("OTP", "What is the six digit code?", "48 29 13"),
    ("DOB", "When were you born?", "12 may 87"),
    ("ORDER_ID", "What is your order number?", "4711"),
    ("ACCOUNT_ID", "Your policy number please?", "qx 77"),
    ("USERNAME", "Which user name do you log in with?", "quartzfox"),
    ("TRACKING", "And the tracking number?", "77 12 QX"),
    ("IBAN", "What is your IBAN?", "de02 1203"),
    ("PASSPORT", "Your passport number?", "x12345"),
    ("VEHICLE", "What is your license plate?", "ab12 cde"),
]


@pytest.mark.parametrize(("label", "question", "answer"), ASKED)
def test_detectors_read_a_bare_answer_to_every_question(label: str, question: str, answer: str) -> None:
    """The answer is covered under a label that was asked for; without the question most of these are ordinary words."""
    spans = find_record({"text": answer, "prev": question})
    assert all(any(a <= i < b for a, b, _ in spans) for i, char in enumerate(answer) if char.isalnum()), spans
    assert label in {found for _, _, found in spans}


def test_detectors_read_the_answer_to_a_double_question() -> None:
    """A question may ask for several values; each word of the answer is one of them."""
    prev = "Can I have your last name and your zip code?"
    assert [label for _, _, label in find_record({"text": "okafor, 83702", "prev": prev})] == ["PERSON", "ZIP"]
    assert find_record({"text": "can you not see it on your side?", "prev": prev}) == []


def test_detectors_leave_foreign_masks_alone() -> None:
    """What another tool has masked already stays as it is."""
    for text in ("[NAME] lives in [CITY], card ****, id XXXX", "<NAME> said so", "[REDACTED] and ***** again"):
        assert find(text) == []


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
JOINED = st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Values with letters left out, doubled, exchanged or replaced by anything."""
    chars = list(draw(JOINED))
    for _ in range(draw(st.integers(1, 4)) if chars else 0):
        at = draw(st.integers(0, len(chars) - 1))
        chars[at] = draw(st.one_of(st.just(""), st.just(chars[at] * 2), st.characters(), st.sampled_from(chars)))
    return "".join(chars)


TEXTS = st.one_of(st.text(max_size=80), JOINED, damaged())


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


def _sentences(words: str) -> st.SearchStrategy[str]:
    """Two to nine of the words, line breaks or tabs, in any order."""
    return st.lists(st.sampled_from([*words.split(), "", "\n", "\t"]), min_size=2, max_size=9).map(" ".join)


STREETLIKE = _sentences(
    "on at in near we live lives corner of and Oak oak Birch Sunset mill Lane lane Street st. Road Parkway way "
    "Place rue Calle avenue de la Paix Mayor via Roma PSC USS APO so I the O'Neil Saint-Denis , ."
)
NAMELIKE = _sentences(
    "hi hello my name is it's this I'm i am called Mr mr. thanks, thank you speak speaking to with for Ines inés "
    "Okafor zyxa here on the line THE again calling friend wife, behalf of me llamo ich bin - ( , . and"
)


@settings(max_examples=200, deadline=None)
@given(STREETLIKE)
def test_detectors_street_without_number_passes_the_gate(text: str) -> None:
    """Where the gate sees no street in a text without digits, the search for addresses finds none."""
    plain = normalise(text).text
    seen = look(plain)
    if find_addresses(plain) and seen.flags & STREET_ALONE:
        assert seen.unnumbered()


@settings(max_examples=200, deadline=None)
@given(NAMELIKE)
def test_detectors_announced_name_passes_the_gate(text: str) -> None:
    """The words behind or in front of which the gate sees no trigger are no names by position."""
    plain = normalise(text).text
    lower = plain.lower()
    unusual = look(plain).having(UNUSUAL)
    assert find_persons(plain, lower, unusual, named=False) == find_persons(
        plain, lower, look(plain).announced(), named=False
    )


def _covered(spans: list[Span], text: str) -> set[int]:
    return {i for a, b, _ in spans for i in range(a, b) if text[i].isalnum()}
