"""Which detectors a text needs, and the union of what they find."""

from __future__ import annotations

import re

from streams.scrub import addresses, contacts, keyed, names, numbers, persons, secrets, spelled, streets
from streams.scrub.config import ScrubConfig
from streams.scrub.normalise import Plain, normalise
from streams.scrub.spans import Span, union

_WORD_CHARS = bytes(
    (b + 32 if 0x41 <= b <= 0x5A else b) if chr(b).isalnum() and b < 128 or b in b"'-_." else 0x20 for b in range(256)
)
STRUCTURED = frozenset({"EMAIL", "PHONE", "CARD", "NATIONAL_ID", "IBAN", "IP"})
_KEYED = frozenset(keyed.KEYS)
_ALNUM_ID = re.compile(
    r"(?<![A-Za-z0-9])[#]?(?=[A-Za-z\-_/.]{0,20}\d)[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])){5,40}(?![A-Za-z0-9])"
)
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]{1,20}_\d{1,6}>")


def find_structured(text: str) -> list[Span]:
    """Spans of EMAIL, PHONE, CARD, NATIONAL_ID, IBAN and IP only."""
    plain = normalise(text)
    return _finish(text, plain, [s for s in _structured(plain.text, plain.text.lower()) if s[2] in STRUCTURED])


def find_rules(text: str) -> list[Span]:
    """Spans of all labels by rules alone."""
    plain = normalise(text)
    return _finish(text, plain, rules(plain.text, plain.text.lower()))


def detect(plain: Plain, config: ScrubConfig) -> list[Span]:
    """What rules and tagger find in a detection text under a configuration; spans may overlap."""
    found = rules(plain.text, plain.text.lower())
    if config.tagger:
        found += names.tag(plain.text)
    for rule in config.id_formats:
        label, _, pattern = rule.partition(":")
        found += [(*m.span(), label) for m in re.finditer(pattern, plain.text) if m.end() > m.start()]
    return found


def rules(text: str, lower: str) -> list[Span]:
    """What the rules find in a detection text; spans may overlap."""
    words = set(re.split(r"[^a-z0-9'\-_.]+", lower))
    words |= {w.rstrip(".") for w in words if w.endswith(".")} | {
        p for w in words if "-" in w or "'" in w or "_" in w for p in re.split(r"[-'_]", w)
    }
    found = _structured(text, lower)
    found += [(*m.span(), "LITERAL") for m in _PLACEHOLDER.finditer(text)]
    found += secrets.find_shapes(text, lower)
    found += secrets.find_passwords(text, lower, words & secrets.PASSWORD_WORDS)
    found += keyed.find_keyed(text, lower, words & _KEYED)
    found += contacts.find_obfuscated(text, lower)
    found += contacts.find_handles(text, lower) if "@" in text else []
    if not words.isdisjoint(spelled.WORDS):
        found += spelled.find_spelled(text, lower)
    if numbers.digit_count(text):
        found += addresses.find_addresses(text, lower)
        found += streets.find_codes(text, lower)
        found += _ids(text, lower)
    found += persons.find_persons(text, lower)
    return found


def _structured(text: str, lower: str) -> list[Span]:
    found = contacts.find_email(text, lower) if "@" in text else []
    if numbers.digit_count(text) >= 4:  # noqa: PLR2004 - the shortest IP address
        found += numbers.find_numbers(text, lower)
    return found


def _ids(text: str, lower: str) -> list[Span]:
    """Tokens of letters and at least five digits: ids of some kind, labelled by the words before."""
    found = []
    for match in _ALNUM_ID.finditer(text):
        token = match[0]
        digits = sum(c.isdigit() for c in token)
        if digits < 5 or not any(c.isalpha() for c in token) or token.lower().startswith("0x"):  # noqa: PLR2004
            continue
        found.append((*match.span(), numbers._context(lower, match.start()) or "ORDER_ID"))
    return found


def _finish(text: str, plain: Plain, found: list[Span]) -> list[Span]:
    if plain.source is not None:
        found = [(*plain.original(start, end), label) for start, end, label in found]
    return union(found, text) if found else []
