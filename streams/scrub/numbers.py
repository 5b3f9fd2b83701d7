"""Runs of digits: phones, cards, national ids, IP addresses and every other number in a personal shape.

Six digits or more are masked whatever they are; shape, checksum and the words before only choose the label.
What is left alone has a reason of its own: amounts, dates, times, versions, lists of small numbers.
"""

from __future__ import annotations

import re
from itertools import pairwise

from streams.scrub.keywords import KEYS
from streams.scrub.spans import Span
from streams.scrub.validators import is_card, is_date, is_iban

_CLASSES = bytes(ord("a" if chr(b).isalpha() else "0" if chr(b).isdigit() else " ") for b in range(128)) + bytes(128)
"""Letters to `a`, digits to `0`."""

NOT_DIGITS = bytes(b for b in range(256) if not 0x30 <= b <= 0x39)
_GROUPS = re.compile(r"[0-9]+")
RUN = re.compile(r"[0-9](?:[ ./()_+\-]{0,3}[0-9]){3,}")
"""Digits with at most three separators between two of them; linear, because a failed start is one character."""

MIN_DIGITS = 6
"""Shorter numbers are personal only by context, which other detectors read."""

_IP4 = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_IP6 = re.compile(
    r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{1,4}:){1,7}(?:(?::[0-9A-Fa-f]{1,4}){1,6}|[0-9A-Fa-f]{1,4}|:)?|"
    r"::(?:[0-9A-Fa-f]{1,4}:?){1,7}"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \-]{0,2}[A-Za-z0-9]{4}){2,7}(?:[ \-]{0,2}[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
_IBAN_COUNTRIES = frozenset(
    "AD AE AL AT AZ BA BE BG BH BR BY CH CR CY CZ DE DK DO EE EG ES FI FO FR GB GE GI GL GR GT HR HU IE IL IQ IS IT JO "
    "KW KZ LB LC LI LT LU LV LY MC MD ME MK MR MT MU NL NO PK PL PS PT QA RO RS SA SC SE SI SK SM ST SV TL TN TR UA VA "
    "VG XK".split()
)
_IBAN_DIGITS = 8
"""Fewer digits are no account number."""

_DATE = re.compile(r"(?<![\d./-])(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?![\d./-])")
_BIRTH_YEARS = range(1900, 2009)
_CLOCK = re.compile(r"[ T,]{1,2}\d{1,2}:\d\d")
"""Behind a date: it is the time stamp of something quoted."""
_YEARS = re.compile(r"(?:(?:19|20)\d\d[ /\-]{1,3}){1,9}(?:(?:19|20)\d\d|\d\d)")
_DECIMAL = re.compile(r"\d{1,9}\.\d{1,2}")
_TIMES = re.compile(r"\d{1,2}\.\d{2} ?- ?\d{1,2}\.\d{2}")
_UNIT_AFTER = re.compile(
    r" ?(?:%|\$|[kmgt]b\b|[kmgt]bps\b|m[lgmw]h?\b|k[gmw]h?\b|cm\b|px\b|dpi\b|hz\b|usd\b|eur\b|gbp\b|inr\b|rs\b|yen\b|"
    r"chf\b|aud\b|cad\b|"
    r"dollars?\b|euros?\b|pounds?\b|rupees?\b|pesos?\b|bucks\b|credits\b|points\b|miles\b|steps\b|people\b|users\b|"
    r"views\b|rows\b)"
)
_MONEY_BEFORE = re.compile(r"(?:[$]|\b(?:usd|eur|gbp|inr|rs\.?|cad|aud|chf|sek|pln)) ?$")
_VERSION_BEFORE = re.compile(
    r"\b(?:version|ver|v|firmware|build|release|ios|android|windows|macos|update|kernel) ?[.:]? ?$"
)
_CONTEXT = {word: keys[0].label for word, keys in KEYS.items()} | {
    word: label
    for label, words in {
        "CARD": "card cards visa mastercard amex maestro cc debit credit paid tarjeta karte kreditkarte carte carta "
        "cartao",
        "NATIONAL_ID": "ssn social nino nhs aadhaar aadhar pan tax tin itin sin dni nie nif cpf cnpj bsn pesel "
        "national ni id identity ausweis",
        "PHONE": "phone mobile cell call tel telephone telefon telefono telefonnummer fax text whatsapp reach sms "
        "contact ring dial rufnummer handy handynummer number",
        "ACCOUNT_ID": "account acct acc ac policy member membership customer client bank konto kontonummer "
        "kundennummer cuenta compte routing sort",
        "ORDER_ID": "order booking reservation confirmation claim case invoice ticket reference ref purchase "
        "bestellung bestellnummer commande pedido rechnung",
        "TRACKING": "tracking parcel shipment package consignment awb sendung",
        "OTP": "code otp verification passcode 2fa pin",
        "SECRET": "password pwd passwort secret token key",
        "PASSPORT": "passport reisepass pasaporte passeport",
        "DRIVER_LICENSE": "license licence driver drivers driver's dl",
        "DEVICE_ID": "imei serial udid device meid",
        "ZIP": "zip postcode postal plz",
        "": "ip address",
    }.items()
    for word in words.split()
}
"""What the nearest key word before a number suggests."""

_LETTERS = re.compile(r"[a-z0-9']+")
_MAX_AMOUNT = 9
"""Digits of the largest amount of money in a chat."""
_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(10, 13)


def find_numbers(text: str, digits: int) -> list[Span]:
    """Spans of every number in a personal shape, of IBANs and of IP addresses, in a text of so many digits."""
    if digits < MIN_DIGITS and text.count(".") < 3 and text.count(":") < 2:
        return []
    ibans = _ibans(text) if digits >= _IBAN_DIGITS else []
    found = list(ibans)
    lower = ""
    for match in RUN.finditer(text):
        start, end = match.span()
        if ibans and any(a <= start < b for a, b, _ in ibans):
            continue
        plain = match[0].isdigit()
        if plain and end - start < MIN_DIGITS:
            continue
        lower = lower or text.lower()
        for _ in range(2):  # "+(44"
            start -= text[start - 1 : start] in _OPENING
        pieces = [(start, end)] if plain else _pieces(text, start, end)
        found += [] if plain else _births(text, start, end)
        for piece_start, piece_end in pieces:
            label = label_of(text, lower, piece_start, piece_end)
            if label:
                found.append((*_lettered(text, piece_start, piece_end), label))
    if text.count(":") > 1:
        found += [(*m.span(), "IP") for m in _IP6.finditer(text) if _is_ip6(m[0])]
    return found


_OPENING = frozenset("+(")


def _lettered(text: str, start: int, end: int) -> tuple[int, int]:
    """A number with the one or two capitals in front of it, or the one behind, that belong to it: "AB 12 34 56 C"."""
    if text[start - 1 : start] == " " and text[start - 2 : start - 1].isupper():
        before = _CAPITALS_BEFORE.search(text, max(0, start - 4), start)
        start = before.start() if before else start
    if text[end : end + 1] == " " and text[end + 1 : end + 2].isupper():
        behind = _CAPITAL_BEHIND.match(text, end)
        end = behind.end() if behind else end
    return start, end


_CAPITALS_BEFORE = re.compile(r"(?<![A-Za-z'.])[A-HJ-Z][A-Z]? $")
_CAPITAL_BEHIND = re.compile(r" [A-HJ-Z](?![A-Za-z'.])")


def _ibans(text: str) -> list[Span]:
    """Spans of the IBANs, searched where two letters stand before two digits."""
    classes = text.encode().translate(_CLASSES)
    found: list[Span] = []
    at = classes.find(b"aa00")
    while at >= 0:
        span = _iban(text, at + 2)
        if span:
            found.append(span)
        at = classes.find(b"aa00", at + 1)
    return found


def _iban(text: str, start: int) -> Span | None:
    """The IBAN whose check digits stand at `start`."""
    begin = start - 2
    if not text[begin:start].isalpha() or text[begin - 1 : begin].isalnum():
        return None
    match = _IBAN.match(text, begin)
    if not match or sum(c.isdigit() for c in match[0]) < MIN_DIGITS:
        return None
    country = text[begin:start]
    sure = country.isupper() or country.upper() in _IBAN_COUNTRIES or is_iban(match[0])
    return (*match.span(), "IBAN") if sure else None


def _births(text: str, start: int, end: int) -> list[Span]:
    """Dates of long ago in the run: in a chat they are birth dates, whatever announces them and however mistyped."""
    found: list[Span] = []
    for date in _DATE.finditer(text, start, end):
        year = re.search(r"\d{4}", date[0])
        if year and is_date(date[0]) and _BIRTH_YEARS.start <= int(year[0]) < _BIRTH_YEARS.stop:
            found += [] if _CLOCK.match(text, date.end()) else [(*date.span(), "DOB")]
    return found


def _pieces(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The run without the dates in it, and without brackets that close nothing."""
    if end - start < MIN_DIGITS:
        return []
    pieces = []
    at = start
    for date in _DATE.finditer(text, start, end):
        if is_date(date[0]):
            pieces.append((at, date.start()))
            at = date.end()
    pieces.append((at, end))
    return [(a, b) for a, b in (_trim(text, *piece) for piece in pieces) if b - a >= MIN_DIGITS]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] in " ./)_-":
        start += 1
    while end > start and text[end - 1] in " ./(_-+":
        end -= 1
    if text[start:end].count("(") > text[start:end].count(")") and text[start] == "(":
        start += 1
    return start, end


def label_of(text: str, lower: str, start: int, end: int) -> str:
    """The label of a digit run, empty when it is no personal number."""
    run = text[start:end]
    digits = run.encode().translate(None, NOT_DIGITS).decode()
    n = len(digits)
    if n < MIN_DIGITS and run.count(".") != 3:  # the shortest address of a machine has four digits
        return ""
    if run.count(".") == 3 and _IP4.fullmatch(run) and not _VERSION_BEFORE.search(lower, max(0, start - 14), start):
        return "IP"
    if lower[start - 2 : start] == "0x":
        return ""
    if n < MIN_DIGITS or _is_quantity(lower, run, digits, start, end):
        return ""
    context = context_of(lower, start)
    groups = _GROUPS.findall(run)
    if [len(g) for g in groups] == [3, 2, 4]:
        return context if context in {"ORDER_ID", "ACCOUNT_ID"} else "NATIONAL_ID"
    if context in {"TRACKING", "DEVICE_ID", "DRIVER_LICENSE", "PASSPORT", "OTP", "SECRET"}:
        return context
    if n >= _CARD_DIGITS.start:
        card = n in _CARD_DIGITS and (context == "CARD" or is_card(digits) or [len(g) for g in groups][:3] == [4, 4, 4])
        return "CARD" if card else "PHONE" if run[0] == "+" else context or "ACCOUNT_ID"
    return context or _by_shape(run, n, groups)


def label_of_digits(lower: str, start: int, digits: str) -> str:
    """The label of digits that were written in another form, such as words."""
    if is_card(digits):
        return "CARD"
    return context_of(lower, start) or _by_shape(digits, len(digits), [digits])


def _by_shape(run: str, n: int, groups: list[str]) -> str:
    phone = (
        run[0] in "+("
        or n in _PHONE_DIGITS
        or (run[0] == "0" and n >= _MAX_AMOUNT)
        or [len(g) for g in groups] == [3, 4]
    )
    return "PHONE" if phone else "ACCOUNT_ID"


def context_of(lower: str, start: int) -> str:
    """The label that the nearest key word in the 32 characters before suggests."""
    words: list[str] = _LETTERS.findall(lower, max(0, start - 32), start)
    for word in reversed(words):
        label = _CONTEXT.get(word)
        if label is not None:
            return label
    return ""


def _is_quantity(lower: str, run: str, digits: str, start: int, end: int) -> bool:
    """Whether the run is an amount, a span of years or times, a version or a list of small numbers."""
    if _UNIT_AFTER.match(lower, end) and len(digits) <= _MAX_AMOUNT:
        return True
    if _MONEY_BEFORE.search(lower, max(0, start - 6), start) and len(digits) <= _MAX_AMOUNT:
        return True
    if run.isdigit():
        amount = len(digits.rstrip("0")) <= 2 and len(digits) <= _MAX_AMOUNT  # 250000 is an amount
        return amount and not context_of(lower, start)
    if _YEARS.fullmatch(run) or _TIMES.fullmatch(run) or _DECIMAL.fullmatch(run):
        return True
    if run.count(".") >= 2 and _VERSION_BEFORE.search(lower, max(0, start - 14), start):
        return True
    return _is_list(run)


def _is_list(run: str) -> bool:
    """Numbers of one or two digits that go up or repeat: sizes, seats, a countdown."""
    groups = _GROUPS.findall(run)
    if len(groups) < 3 or any(len(g) > 2 for g in groups) or run[0] in "+(":  # see the docstring
        return False
    values = [int(g) for g in groups]
    if all(len(g) == 1 for g in groups):
        steps = {b - a for a, b in pairwise(values)}
        return steps <= {1} or steps <= {-1}
    return groups[0][0] != "0" and values == sorted(values)


def _is_ip6(text: str) -> bool:
    return text.count(":") >= 2 and (text.count(":") == 7 or "::" in text) and any(c.isdigit() for c in text)
