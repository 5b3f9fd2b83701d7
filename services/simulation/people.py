"""Made-up people: values of personal data, each distinct enough to be searched for afterwards.

None is real: card numbers and IBANs only pass their check digits, phone numbers use the 555 exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from random import Random

from services.simulation.draw import between, chance, pick

LABELS = {
    "name": "PERSON", "email": "EMAIL", "phone": "PHONE", "card": "CARD", "iban": "IBAN", "ssn": "NATIONAL_ID",
    "order": "ORDER_ID", "password": "SECRET", "ip": "IP", "dob": "DOB", "address": "ADDRESS",
}  # fmt: skip
"""Slot -> label of the placeholder that scrubbing puts in its place."""


def name(rng: Random) -> str:
    """First and last name."""
    return pick(rng, _words("first")) + " " + pick(rng, _words("last"))


def email(rng: Random, who: str = "") -> str:
    """An address under a reserved domain, made from the name where one is given."""
    local = (who or name(rng)).lower().replace(" ", pick(rng, (".", "_", "")))
    return f"{local}{between(rng, 10, 9999)}@{pick(rng, ('example.com', 'example.org', 'mail.example.net'))}"


def phone(rng: Random) -> str:
    """A North American number in one of four spellings."""
    area, line = between(rng, 201, 989), between(rng, 0, 9999)
    form = pick(rng, ("+1 {0} 555 {1:04d}", "({0}) 555-{1:04d}", "{0}-555-{1:04d}", "+1{0}555{1:04d}"))
    return form.format(area, line)


def card(rng: Random) -> str:
    """Sixteen digits with a valid Luhn digit, grouped or not."""
    body = f"4{between(rng, 0, 10**14 - 1):014d}"
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(body)]
    digits = body + str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)  # Luhn's digit sum
    joint = pick(rng, (" ", "-", ""))
    return joint.join(digits[i : i + 4] for i in range(0, 16, 4))


def iban(rng: Random) -> str:
    """A German, Dutch or British IBAN with valid check digits (ISO 7064 mod 97-10), grouped or not."""
    country, bank, digits = pick(rng, (("DE", "", 18), ("NL", "TESS", 10), ("GB", "NGTE", 14)))
    account = f"{bank}{between(rng, 0, 10**digits - 1):0{digits}d}"
    number = int("".join(str(int(c, 36)) for c in f"{account}{country}00"))
    plain = f"{country}{98 - number % 97:02d}{account}"
    return plain if chance(rng, 0.5) else " ".join(plain[i : i + 4] for i in range(0, len(plain), 4))


def ssn(rng: Random) -> str:
    """A US social security number of an issued shape."""
    return f"{between(rng, 101, 665)}-{between(rng, 10, 99)}-{between(rng, 1000, 9999)}"


def order(rng: Random) -> str:
    """A shop's order number: two letters and eight digits."""
    return f"{pick(rng, ('HP', 'AF', 'WT', 'QN', 'LX'))}-{between(rng, 10**7, 10**8 - 1)}"


def password(rng: Random) -> str:
    """A password as people choose them: word, digits, sign, letters."""
    word = pick(rng, _words("words"))
    return f"{word}{between(rng, 10, 99)}{pick(rng, '!#$?%')}{between(rng, 4096, 65535):x}"


def ip(rng: Random) -> str:
    """A public-looking IPv4 address."""
    return ".".join(str(between(rng, 11, 249)) for _ in range(4))


def dob(rng: Random) -> str:
    """A date of birth in one of three spellings."""
    day, month, year = between(rng, 1, 28), between(rng, 1, 12), between(rng, 1941, 2004)
    named = f"{day} {_words('months')[month - 1]} {year}"
    return pick(rng, (f"{month:02d}/{day:02d}/{year}", named, f"{year}-{month:02d}-{day:02d}"))


def address(rng: Random) -> str:
    """Street, town and postcode in US form."""
    town = pick(rng, _words("towns")).replace(",", ", ")
    street, way = pick(rng, _words("streets")), pick(rng, ("Street", "Lane", "Avenue", "Court"))
    return f"{between(rng, 11, 9899)} {street} {way}, {town} {between(rng, 10000, 98999)}"


MAKERS: Mapping[str, Callable[[Random], str]] = {
    "name": name, "email": email, "phone": phone, "card": card, "iban": iban, "ssn": ssn,
    "order": order, "password": password, "ip": ip, "dob": dob, "address": address,
}  # fmt: skip
"""Slot -> generator of its personal value."""


@cache
def _words(kind: str) -> tuple[str, ...]:
    lines = files("services.simulation").joinpath("people.txt").read_text().splitlines()
    return tuple(dict(line.split(": ", 1) for line in lines)[kind].split())
