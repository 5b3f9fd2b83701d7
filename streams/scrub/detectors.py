"""Which detectors a text needs, and the union of what they find."""

from __future__ import annotations

import re

from streams.scrub import addresses, contacts, keyed, names, numbers, persons, secrets, spelled, streets
from streams.scrub.config import ScrubConfig
from streams.scrub.gate import Look, digit_count, has_long_token, look, unusual
from streams.scrub.normalise import Plain, normalise
from streams.scrub.spans import Span, union

STRUCTURED = frozenset({"EMAIL", "PHONE", "CARD", "NATIONAL_ID", "IBAN", "IP"})
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]{1,20}_\d{1,6}>")
_ALNUM_ID = re.compile(r"(?<![A-Za-z0-9])#?[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])){5,40}(?![A-Za-z0-9])")


def _bytes(words: frozenset[str] | set[str]) -> frozenset[bytes]:
    return frozenset(w.encode() for w in words)


_KEYED = _bytes(frozenset(keyed.KEYS))
_LOGINS = _bytes({word for word, keys in keyed.KEYS.items() if any(k.kind == "login" for k in keys)})
_PASSWORDS = _bytes(secrets.PASSWORD_WORDS)
_SPELLED = _bytes(spelled.WORDS)
_AT = _bytes({"at", "arroba", "chez"})
_DOMAINS = _bytes(contacts.DOMAIN_WORDS)
_STREETS = _bytes(streets.EVIDENCE)
_STREETS_ALONE = _bytes(streets.STRONG | {"corner"} | streets.CLEAR)
_COMPOUNDS = tuple(c.encode() for c in streets.COMPOUNDS)
_ID_SHAPES = (b"a0", b"0a", b"a-0", b"0-a")
_SQUASHED = tuple(p.encode() for p in contacts.SQUASHED)


def find_structured(text: str) -> list[Span]:
    """Spans of EMAIL, PHONE, CARD, NATIONAL_ID, IBAN and IP only."""
    plain = normalise(text)
    found = _structured(plain.text, digit_count(plain.text))
    return finish(text, plain, [s for s in found if s[2] in STRUCTURED]) if found else []


def find_rules(text: str) -> list[Span]:
    """Spans of all labels by rules alone."""
    plain = normalise(text)
    seen = look(plain.text)
    return finish(text, plain, _rules(plain.text, seen, unusual(seen.raw)))


def detect(plain: Plain, config: ScrubConfig) -> list[Span]:
    """What rules and tagger find in a detection text under a configuration; spans may overlap."""
    text = plain.text
    seen = look(text)
    candidates = unusual(seen.raw)
    found = _rules(text, seen, candidates)
    if config.tagger and candidates:
        found += names.tag(text)
    for rule in config.id_formats:
        label, _, pattern = rule.partition(":")
        found += [(*m.span(), label) for m in re.finditer(pattern, text) if m.end() > m.start()]
    return found


def finish(text: str, plain: Plain, found: list[Span]) -> list[Span]:
    """Spans of a detection text as sorted spans of the original, none overlapping."""
    if plain.source is not None:
        found = [(*plain.original(start, end), label) for start, end, label in found]
    return union(found, text) if found else []


def _structured(text: str, digits: int) -> list[Span]:
    found = contacts.find_email(text) if "@" in text else []
    if digits >= 4:  # noqa: PLR2004 - the shortest IP address
        found += numbers.find_numbers(text, text.lower())
    return found


def _rules(text: str, seen: Look, candidates: set[bytes]) -> list[Span]:
    """What the rules find in a detection text; spans may overlap."""
    lower = text.lower()
    words = seen.words
    found = _structured(text, seen.digits)
    if "<" in text:
        found += [(*m.span(), "LITERAL") for m in _PLACEHOLDER.finditer(text)]
    if has_long_token(seen.raw):
        found += secrets.find_shapes(text)
    if not words.isdisjoint(_PASSWORDS):
        found += secrets.find_passwords(text, lower, words & _PASSWORDS)
    found += _contacts(text, lower, seen)
    if not words.isdisjoint(_SPELLED):
        found += spelled.find_spelled(text, lower)
    if seen.digits:
        found += _numbered(text, lower, seen)
    elif not words.isdisjoint(_LOGINS):
        found += keyed.find_keyed(text, lower, words & _LOGINS)
    if seen.digits == 0 and not words.isdisjoint(_STREETS_ALONE):
        found += addresses.find_addresses(text, lower)
    if candidates or b"name" in words:
        found += persons.find_persons(text, lower, candidates, words)
    return found


def _contacts(text: str, lower: str, seen: Look) -> list[Span]:
    found: list[Span] = []
    if "@" in text or (not seen.words.isdisjoint(_AT) and not seen.words.isdisjoint(_DOMAINS)):
        found += contacts.find_obfuscated(text, lower)
    if "@" in text:
        found += contacts.find_handles(text)
    if any(w.endswith(_SQUASHED) for w in seen.words):
        found += contacts.find_squashed(lower)
    return found


def _numbered(text: str, lower: str, seen: Look) -> list[Span]:
    """What needs digits: values behind key words, ids, postal codes, addresses."""
    found: list[Span] = []
    words = seen.words
    if not words.isdisjoint(_KEYED):
        found += keyed.find_keyed(text, lower, words & _KEYED)
    if any(shape in seen.classes for shape in _ID_SHAPES):
        found += _ids(text, lower)
        found += streets.find_codes(text)
    elif seen.digits >= 5:  # noqa: PLR2004 - an American postal code
        found += streets.find_codes(text)
    if seen.digits >= 8 and "." in text:  # noqa: PLR2004 - coordinates
        found += secrets.find_coordinates(text)
    if not words.isdisjoint(_STREETS) or any(w.endswith(_COMPOUNDS) for w in words):
        found += addresses.find_addresses(text, lower)
    return found


def _ids(text: str, lower: str) -> list[Span]:
    """Tokens of letters and at least five digits: ids of some kind, labelled by the words before."""
    found = []
    for match in _ALNUM_ID.finditer(text):
        token = match[0]
        digits = digit_count(token)
        if digits < 5 or token.replace("-", "").replace("/", "").replace(".", "").isdigit() or token[:2].lower() == "0x":  # noqa: PLR2004
            continue
        found.append((*match.span(), numbers.context_of(lower, match.start()) or "ORDER_ID"))
    return found
