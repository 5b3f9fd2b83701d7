"""What a question asks for, and which words of the next turn answer it."""

from __future__ import annotations

import re

from streams.scrub.keyed import DATE
from streams.scrub.lexicon import is_common, is_foreign, is_frequent, is_name
from streams.scrub.spans import Span, union
from streams.scrub.streets import STRONG

_ASKS = {
    "SECRET": (
        r"password|passcode|security (?:question|answer|word)|secret|maiden name|memorable|passwort|contrasena|"
        r"mot de passe|(?:first|favou?rite|childhood|oldest|best) (?:pet|school|car|teacher|street|film|movie|book|"
        r"food|band|team|friend|job|boss|concert|nickname|hero|colou?r|city)|(?:pet|teacher|school)(?:'s)? name|"
        r"(?:city|town|street) (?:were you born|you were born|did you grow up|you grew up|your parents met)"
    ),
    "OTP": (
        r"(?:the|verification|security|one.time|confirmation|6.digit|six.digit|sms|auth\w*) code|code (?:we|i|"
        r"that|you)|what code|code did you|\bcode\b.{0,24}(?:sms|text(?:ed)?|receiv\w*|sent)|otp|\bpin\b|passcode"
    ),
    "CARD_SEC": r"cvv|cvc|csc|security code|expir\w+|three digits|3 digits",
    "CARD": (
        r"card number|credit card|debit card|card details|digits (?:of|on) (?:the|your) card|"
        r"\bcard\b.{0,20}(?:number|digits)|kartennummer|numero de (?:tarjeta|carte)"
    ),
    "NATIONAL_ID": (
        r"\bssn\b|social security|social\b|national (?:id|insurance)|tax (?:id|number)|\bnino\b|aadhaar|"
        r"\bpan\b|\bdni\b|\bid (?:card )?number"
    ),
    "PASSPORT": r"passport|reisepass|pasaporte|passeport",
    "DRIVER_LICENSE": r"licen[cs]e (?:number|no)|driver.{0,3} licen[cs]e|driving licen[cs]e",
    "VEHICLE": r"licen[cs]e plate|number plate|registration number|\bvin\b|plate number|kennzeichen",
    "TRACKING": r"tracking|parcel number|shipment (?:id|number)",
    "IBAN": r"\biban\b|bank details",
    "ORDER_ID": (
        r"(?:order|booking|reservation|confirmation|claim|case|invoice|ticket|reference|receipt|purchase|"
        r"return|rma|bestell\w*|rechnungs\w*)(?:'s)? ?(?:confirmation|reference|claim|number|no|id|nummer|#|code)|"
        r"order\?|booking\?|"
        r"\bpnr\b|which order|confirmation or claim|numero de (?:pedido|commande)"
    ),
    "USERNAME": r"user ?name|user ?id|log ?in|handle|benutzername|usuario|screen name|nickname",
    "ACCOUNT_ID": (
        r"(?:account|acct|policy|member\w*|customer|client|contract|loyalty|subscriber|bank account|"
        r"kunden\w*|konto\w*)(?: or \w+)? ?(?:number|no\b|id\b|#|nummer)|account or policy|numero de (?:cuenta|"
        r"cliente|compte)"
    ),
    "EMAIL": r"e-?mail|correo|adresse mail|mail address",
    "PHONE": (
        r"phone|mobile|cell|contact number|callback|call you|number to reach|reach you|telefon\w*|handynummer|"
        r"number can we|best number"
    ),
    "ZIP": r"\bzip|post ?code|postal|\bplz\b|postleitzahl|code postal|codigo postal",
    "ADDRESS": (
        r"address|where (?:do|should|can|would|shall) .{0,20}(?:live|ship|send|deliver)|street|adresse|anschrift|"
        r"direccion|indirizzo|endereco|deliver(?:y|ed)? to\b|ship(?:ping|ped)? to\b"
    ),
    "DOB": r"birth|\bdob\b|born|geburts\w*|geboren|naissance|nacimiento|nascita|nascimento",
    "DEVICE_ID": r"\bimei\b|serial number|device id",
    "IP": r"\bip\b",
    "PERSON": (
        r"\bname\b|\bnames\b|who am i|who is this|speaking with|speaking to|whom|wie hei(?:ss|s)en|nombre|"
        r"\bnom\b|cardholder|nome\b|naam\b"
    ),
}
"""What asks for each label, the strongest first."""

_ASK = [(label, re.compile(pattern)) for label, pattern in _ASKS.items()]
_EMAIL_ADDRESS = re.compile(r"e-?mail(?:ing)? address|ip address|mac address|web address")
_USER_NAME = re.compile(
    r"user ?name|company name|business name|product name|file ?name|name of the (?:product|item|hotel|restaurant|city|"
    r"bank|company|store|shop|app)|(?:hotel|restaurant|city|app|device|pet\w*|brand|model) name"
)
_QUESTION = re.compile(
    r"\?|\b(?:please|provide|may i|can i|could i|what|which|confirm|verify|tell me|give me|need|share|enter|send me|"
    r"read me|let me know|have your|your [a-z ]{1,24}[:.]?$|on file|bitte|wie|por favor|cual|quel|puis-je|qual)\b"
)
_WORD = re.compile(r"[A-Za-z0-9\x01][^\s,;!?\"()]{0,63}")
SHORT_ANSWER = 8
"""Words up to which every uncommon word of the answer is taken; longer answers give numbers only."""

LONG_ADDRESS = 18
"""Most words of an address."""
_BEFORE_ADDRESS = frozenset(
    "my our the new old current home work shipping billing delivery address is its it's it i live at on in change to "
    "please ok okay sir yes sure so now hi hello well and address's adres adresse direccion mi meine ist es "
    "lautet".split()
)
_AFTER_ADDRESS = frozenset(
    "ph phone tel telephone mobile cell contact email e-mail thanks thank please and- name ssn".split()
)
_TALK = frozenset(
    "you your i i'm we need want what why how don't can could would have was do not because already told".split()
)
_LETTERS = frozenset(
    {
        "PERSON",
        "ADDRESS",
        "EMAIL",
        "USERNAME",
        "SECRET",
        "ORDER_ID",
        "ACCOUNT_ID",
        "VEHICLE",
        "DRIVER_LICENSE",
        "PASSPORT",
        "NATIONAL_ID",
        "TRACKING",
        "DOB",
        "IBAN",
        "OTP",
        "DEVICE_ID",
        "ZIP",
    }
)
_NUMBERS_FIRST = (
    "CARD",
    "NATIONAL_ID",
    "PHONE",
    "ACCOUNT_ID",
    "ORDER_ID",
    "OTP",
    "SECRET",
    "ZIP",
    "CARD_SEC",
    "TRACKING",
    "DOB",
    "PASSPORT",
    "DRIVER_LICENSE",
    "VEHICLE",
    "IBAN",
    "DEVICE_ID",
    "ADDRESS",
    "IP",
)
_SPOKEN = re.compile(r"([\w.+-]{2,40}) at ([\w.-]{2,40})")
"""An address of whose domain nothing is known, but that it was asked for."""
_GENERIC = frozenset({"ACCOUNT_ID", "ORDER_ID"})
"""What a number is called of which nothing is known but its form."""
_NOT_ANSWERS = frozenset(
    "yes yeah yep yup no nope nah ok okay sure thanks thank hi hello hey bye why what when where how who which none "
    "nothing idk dunno sorry please wait hold hmm um uh "
    "it its it's is my mine name the a an and or of in at on for to from this that i i'm im am me you your we us he "
    "she his her not don't dont do does did have has had was were be been "
    "number account order card email mail phone address password username ssn zip code street city state booking "
    "confirmation claim policy id no num last first digits four ending with but so just also "
    "correct right exactly is are there here same already again still now later today tomorrow never one moment "
    "second sec minute know remember forgot lost can can't cannot could would will won't".split()
)


def expected_labels(question: str) -> tuple[str, ...]:
    """The labels that a question asks for, empty when it asks for nothing personal."""
    lower = question.lower()
    if not _QUESTION.search(lower):
        return ()
    plain = _USER_NAME.sub(
        lambda m: "username" if m[0].startswith("user") else " ",
        _EMAIL_ADDRESS.sub(lambda m: m[0].split(" ")[0], lower),
    )
    return tuple(label for label, pattern in _ASK if pattern.search(plain))


def find_answer(text: str, labels: tuple[str, ...], covered: list[Span]) -> list[Span]:
    """Spans of the words that answer a question for `labels` and that no detector has covered."""
    words = list(_WORD.finditer(text))
    if "ADDRESS" in labels and (place := _place(text, words)):
        return [place]
    if "DOB" in labels and (date := DATE.search(text)):
        covered = [*covered, (*date.span(), "DOB")]
    guessed = len(words) == 1 and "PERSON" not in labels  # by how it looks; the question knows better
    kept = [(a, b) for a, b, label in covered if not (guessed and label == "PERSON")]
    open_words = [m for m in words if not any(a <= m.start() and _core(m)[1] <= b for a, b in kept)]
    asks = len(words) > 2 and text.rstrip().endswith("?")  # who asks back does not answer
    short = len(words) <= SHORT_ANSWER
    number_label = next((label for label in _NUMBERS_FIRST if label in labels), None)
    letter_label = next((label for label in labels if label in _LETTERS), None)
    found = [s for s in covered if s[2] == "DOB"]
    if number_label and _GENERIC.isdisjoint(labels):  # the question knows what number this is
        found += [(start, end, number_label) for start, end, label in covered if label in _GENERIC]
    if short and "EMAIL" in labels:
        found += [(*m.span(), "EMAIL") for m in _SPOKEN.finditer(text) if not (is_common(m[1]) and is_common(m[2]))]
    for match in open_words:
        start, end = _core(match)
        if end <= start:
            continue
        word = text[start:end]
        digits = sum(c.isdigit() for c in word)
        if (
            digits and (number_label or letter_label) and (short or digits >= 3)
        ):  # two digits in a sentence are a quantity
            found.append((start, end, number_label or letter_label or ""))
        elif digits >= 4 and len(words) <= 4 and "PERSON" in labels:  # who gives a name adds the number asked for next
            found.append((start, end, "ACCOUNT_ID"))
        elif (
            not digits
            and short
            and not asks
            and letter_label
            and _answers(word, letter_label, labels, alone=len(words) == 1 == len(labels))
        ):
            found.append((start, end, letter_label))
    return _connected(found, text)


CAPITALS = 3
"""Capitals that belong to a number beside them ("1684 RA")."""


def _beside_number(text: str, start: int, end: int) -> bool:
    return text[max(0, start - 2) : start].strip().isdigit() or text[end : end + 2].strip().isdigit()


def _place(text: str, words: list[re.Match[str]]) -> Span | None:
    """The part of an answer that is an address: all of it but the words that lead to it or come after."""
    last = next((i for i, m in enumerate(words) if i and m[0].lower().strip(".:") in _AFTER_ADDRESS), len(words))
    first = next((i for i, m in enumerate(words[:last]) if m[0].lower().strip(".,:") not in _BEFORE_ADDRESS), last)
    chosen = words[first:last]
    sure = any(c.isdigit() for c in text) or any(m[0].lower() in STRONG for m in chosen)
    if (
        not chosen
        or len(chosen) > LONG_ADDRESS
        or "?" in text
        or not sure
        or any(m[0].lower() in _TALK for m in chosen)
    ):
        return None
    return chosen[0].start(), _core(chosen[-1])[1], "ADDRESS"


def _core(match: re.Match[str]) -> tuple[int, int]:
    start = match.start()
    word = match[0].rstrip(".,:;'-")
    if word.lower().endswith("'s"):
        word = word[:-2]
    return start, start + len(word)


def _answers(word: str, label: str, labels: tuple[str, ...], *, alone: bool) -> bool:
    lower = word.lower()
    if lower in _NOT_ANSWERS:
        return False
    if label == "SECRET" or (label == "USERNAME" and len(labels) == 1):
        return True
    if (
        label
        in {"ORDER_ID", "ACCOUNT_ID", "VEHICLE", "NATIONAL_ID", "PASSPORT", "DRIVER_LICENSE", "TRACKING", "ZIP", "OTP"}
        and len(lower) <= 4
    ):
        return not is_common(lower) or is_foreign(lower) or len(lower) == 1
    if label == "PERSON" and alone:  # a word that is the whole answer to "your name?"
        return not is_frequent(lower)
    return not is_common(lower) or (label == "ADDRESS" and word[0].isupper()) or (label == "PERSON" and is_name(lower))


_INITIAL = re.compile(r" [A-Za-z]\.? ")
"""What stands between two words of a name."""


def _connected(found: list[Span], text: str) -> list[Span]:
    """Neighbours of one label with nothing but spaces and punctuation between them as one span."""
    joined: list[Span] = []
    for start, end, label in union(found, text):
        gap = text[joined[-1][1] : start] if joined else ""
        if (
            joined
            and joined[-1][2] == label
            and (not gap.strip(" ,-./") or (label == "PERSON" and _INITIAL.fullmatch(gap)))
        ):
            joined[-1] = (joined[-1][0], end, label)
        else:
            joined.append((start, end, label))
    return joined
