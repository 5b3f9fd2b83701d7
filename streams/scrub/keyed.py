"""Values behind a key word: order, account and policy numbers, national ids, codes, birth dates, user names.

A key word opens its class of value; a few filler words ("number is", "ending in", ":") may stand between.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from streams.scrub.spans import Span

_FILLER = re.compile(
    r"(?:[ \t]{0,3}(?:[#:=,\-.?]{1,2}|\b(?:numbers?|num|nr|no|nos|id|ids|code|card|account|is|was|are|its|it's|it is|"
    r"the|my|your|his|her|our|for|of|to|on|with|as|"
    r"ending|ends|ended|am|at|you|we|sent|i|got|received|security|insurance|that|says|reads|in|last|four|4|digits?|"
    r"digit|under|here|and it's|called|named|set|now|actually|ist|es|est|son|e|lautet|meine?|mi|mon|ma|la|le|el|"
    r"der|die|das|de|du|"
    r"numero|nummer|nomor|numer|sono|sind|mein)\b)){0,8}[ \t]{0,3}\n?[ \t]{0,3}"
)
_TOKEN = re.compile(r"[#]?[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])){0,40}")
_GAP = re.compile(r"[ \-]{1,2}")
_DATE = re.compile(
    r"\d{1,4} ?[-/. ] ?\d{1,2} ?[-/. ] ?\d{1,4}|\d{1,2}(?:st|nd|rd|"
    r"th)?[ .\-/]{0,2}(?:of )?[A-Za-z]{3,10}[ .,\-/]{1,3}'?\d{2,4}"
    r"|[A-Za-z]{3,10}[ .\-]{1,2}\d{1,2}(?:st|nd|rd|th)?[ ,.\-]{1,3}'?\d{2,4}|\d{6}|\d{8}|(?:19|20)\d\d"
)
_LOGIN = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._\-@+]{2,39}")
_CODE = re.compile(r"[A-Za-z]-\d{4,8}|\d{3,4}[ \-]\d{3,4}|\d{3,10}|(?=[A-Za-z]{0,7}\d)[A-Za-z0-9]{4,10}")
_EXPIRY = re.compile(r"(?:0?[1-9]|1[0-2]) ?[/\-. ] ?(?:20)?\d{2}(?!\d)")

_STOP = frozenset(
    "a an and or the is was are am be to of in on at it i you he she we they for with from by as if so but not no "
    "yes my your his her our "
    "has have had can could will would please thanks thank hi hello which that this there here when where why how "
    "what who do does did "
    "card phone number email mail name order account address password ssn zip code dob born date und et y con pour "
    "fur mit".split()
)


class Key(NamedTuple):
    """What a key word announces: the label, and the grammar of its value."""

    label: str
    kind: str


_WORDS = {
    Key("ORDER_ID", "id"): "order orders booking reservation confirmation claim case invoice ticket reference ref "
        "purchase pnr receipt rma return bestellung bestellnummer "
    "auftragsnummer rechnung rechnungsnummer buchung commande facture reservation pedido factura reserva ordine "
    "fattura prenotazione encomenda bestelling zamowienie zakaz quote transaction txn request",
    Key("ACCOUNT_ID", "id"): "account acct acc ac accnt policy member membership customer client konto kontonummer "
        "kundennummer kundennr kunde cuenta compte conto conta cliente client police poliza "
    "routing rewards loyalty subscriber contract vertragsnummer rekening klantnummer konta employee meter mandate",
    Key("NATIONAL_ID", "id"): "ssn social nino nhs aadhaar aadhar pan tin itin tax dni nie nif cpf cnpj bsn pesel "
        "steuernummer steuer-id sin tfn national nric hkid curp rfc rut cedula "
    "ausweisnummer personalausweis ausweis identity insee secu codice fiscale personnummer cpr insurance svnr ahv",
    Key("PASSPORT", "id"): "passport reisepass reisepassnummer pasaporte passeport passaporto paspoort",
    Key("DRIVER_LICENSE", "id"): "license licence driver's drivers fuhrerschein fuhrerscheinnummer dl permis patente "
        "rijbewijs",
    Key("TRACKING", "id"): "tracking parcel shipment consignment package sendungsnummer sendung paketnummer suivi "
        "colis seguimiento awb waybill track",
    Key("VEHICLE", "id"): "plate vin plates kennzeichen registration immatriculation matricula reg vrn numberplate",
    Key("DEVICE_ID", "id"): "imei serial udid uuid meid deviceid device s/n seriennummer",
    Key("CARD", "id"): "card visa mastercard amex maestro discover debit credit cc karte kreditkarte "
        "kreditkartennummer carte tarjeta carta cartao ending",
    Key("PHONE", "id"): "phone mobile cell tel telephone telefon telefono telefonnummer handy handynummer rufnummer "
        "mobil mobilnummer portable movil celular cellulare fax whatsapp contact call ring dial reach sms "
        "extension ext telefoon",
    Key("ZIP", "id"): "zip zipcode postcode postal plz postleitzahl cap cep pincode postnummer",
    Key("CRYPTO", "id"): "wallet btc bitcoin eth ethereum",
    Key("CARD_SEC", "code"): "cvv cvc cvv2 csc cvn security",
    Key("CARD_SEC", "expiry"): "exp expiry expires expiration expiring gultig valid",
    Key("OTP", "code"): "code codes otp verification passcode 2fa pin tan mtan codigo codice kode sms-code one-time "
        "authentication authenticator",
    Key("DOB", "date"): "born nee birth brith birht bitrh ibrth bith dob birthday birthdate geboren geburtsdatum "
        "geburtstag naissance nacimiento nascita nascido nascimento geboortedatum d.o.b ne nato nata nacido nacida "
        "urodzenia",
    Key("USERNAME", "login"): "username user login userid user-id user-name benutzername nutzername usuario "
        "utilisateur skype twitter instagram insta telegram handle discord nickname gamertag screenname",
}  # fmt: skip

KEYS: dict[str, list[Key]] = {}
for _key, _words in _WORDS.items():
    for _word in _words.split():
        KEYS.setdefault(_word, []).append(_key)

LOGINS = frozenset(word for word, keys in KEYS.items() if any(key.kind == "login" for key in keys))
"""Key words whose values need no digit."""

_DIGIT = re.compile(r"\d")
_REACH = 64
"""Characters behind a key word within which its value begins."""

_MIN_DIGITS = 3
"""Fewer digits are a quantity."""
_DAYS = re.compile(r"\d{1,2}(?:st|nd|rd|th)(?:[-/]\d{1,2}(?:st|nd|rd|th)?)?|\d{1,2}-\d{1,2}")
"""A day, or a span of days: no id."""
_NUMBERED = re.compile(r"\b(?:id|ids|number|num|no|nr|nummer|numero|code|plate)\b|[#:]")
"""Behind these words an id may have few digits ("customer id ACC-FWHXX1")."""
_MIXED_LENGTH = 6
_TAIL_LETTERS, _GROUP_LETTERS = 3, 4
_OTHER_CODES = re.compile(
    r"\b(?:error|promo\w*|coupon|discount|status|area|country|product|qr|bar|source|dress|gate|voucher|gift|exit|"
    r"response) code (?:is )?$|\b(?:error|promo\w*|coupon|discount|status|area|country|product|qr|bar|source|"
    r"dress|voucher|gift|exit|response) $"
)
"""What makes a code no one-time code."""

MAX_KEYS = 200
"""Key words looked at in one turn; beyond that a turn is a flood."""


def find_keyed(text: str, lower: str, fired: set[str]) -> list[Span]:
    """Spans of the values that the key words `fired` announce."""
    found: list[Span] = []
    for word in fired:
        keys = KEYS[word]
        at = lower.find(word)
        seen = 0
        while at >= 0 and seen < MAX_KEYS:
            end = at + len(word)
            if not (lower[at - 1 : at].isalnum() or lower[end : end + 1].isalnum()):
                seen += 1
                if keys[0].label == "OTP":
                    found += _code_before(lower, at)
                if keys[0].kind != "login" and not _DIGIT.search(text, end, end + _REACH):
                    at = lower.find(word, end)
                    continue
                begin = _FILLER.match(lower, end)
                value = end if begin is None else begin.end()
                for key in keys:
                    span = _value(text, lower, value, end, key)
                    if span:
                        found.append(span)
                        break
            at = lower.find(word, end)
    return found


def _code_before(lower: str, at: int) -> list[Span]:
    """A one-time code that stands before its key word: "4410 is the code", "got 4410 as verification code"."""
    match = _CODE_FIRST.search(lower, max(0, at - 40), at)
    return [(match.start(1), match.end(1), "OTP")] if match else []


_CODE_FIRST = re.compile(r"(?<![\w.$/:-])(\d{4,8}|\d{3}[ -]\d{3})(?![\w%$/:]|\.\d) (?:[a-z]{1,10} ){0,4}$")


def _value(text: str, lower: str, at: int, floor: int, key: Key) -> Span | None:
    """The value of `key`'s grammar at `at`, None when what stands there is no such value."""
    if key.kind == "id":
        named = key.label == "VEHICLE" or _NUMBERED.search(lower, floor, at)
        end = take_id(text, at, 1 if named else _MIN_DIGITS)
        return (at, end, key.label) if end > at else None
    if key.label == "OTP" and _OTHER_CODES.search(lower, max(0, floor - 32), floor):
        return None
    pattern = {"code": _CODE, "date": _DATE, "expiry": _EXPIRY, "login": _LOGIN}[key.kind]
    match = pattern.match(text, at)
    if not match or text[match.end() : match.end() + 1].isalnum():
        return None
    if key.kind == "login" and not _is_login(match[0], text[floor:at]):
        return None
    return (at, match.end(), key.label)


def _is_login(value: str, between: str) -> bool:
    """A login has a form of its own, or stands behind `is` or a colon and is no ordinary word."""
    if any(c.isdigit() or c in "_@." for c in value.rstrip(".")) or value[1:] != value[1:].lower():
        return True
    return bool(re.search(r"[:=]|\bis\b", between)) and value.lower() not in _STOP


def take_id(text: str, at: int, min_digits: int) -> int:
    """Where an id that starts at `at` ends: tokens with digits, and short letter groups beside them; `at` if none."""
    end = last = at
    digits = 0
    for _ in range(8):
        token = _TOKEN.match(text, last)
        if not token:
            break
        word = token[0]
        if token.start() == at and _DAYS.fullmatch(word):
            break
        count = sum(c.isdigit() for c in word)
        if not count and not _is_letter_group(text, token, behind=bool(digits)):
            break
        if digits >= _MIN_DIGITS and count and end > at and not _grouped(text[at:end], word):
            break
        digits += count
        last = token.end()
        if count or digits:
            end = last
        gap = _GAP.match(text, last)
        if not gap:
            break
        last = gap.end()
    mixed = end - at >= _MIXED_LENGTH and not text[at:end].isdigit()
    return end if digits >= (min_digits if mixed else _MIN_DIGITS) else at


def _is_letter_group(text: str, token: re.Match[str], *, behind: bool) -> bool:
    """Letters of an id: up to four before digits, or up to three capitals behind them ("AB 76 48 69 C")."""
    word = token[0]
    if behind and word.isupper() and len(word) <= _TAIL_LETTERS:
        return True
    return len(word) <= _GROUP_LETTERS and word.lower() not in _STOP and _digit_follows(text, token.end())


def _digit_follows(text: str, at: int) -> bool:
    gap = _GAP.match(text, at)
    return gap is not None and text[gap.end() : gap.end() + 1].isdigit()


def _grouped(before: str, word: str) -> bool:
    """Whether another group belongs to the same id: groups of up to six characters, not a new word."""
    return len(word) <= 6 and len(before.rsplit(maxsplit=1)[-1]) <= 6
