"""Which detectors a text needs, and the union of what they find."""

from __future__ import annotations

import re

from streams.scrub import (
    addresses,
    contacts,
    foreign,
    keyed,
    keywords,
    names,
    neighbours,
    numbers,
    persons,
    places,
    reader,
    scripts,
    secrets,
    separated,
    spelled,
    streets,
)
from streams.scrub.config import ScrubConfig
from streams.scrub.gate import (
    AFTER,
    AT,
    BRACKET,
    BUT_LAST,
    CAPITALS,
    CLASSES,
    DIGIT,
    DOMAIN,
    HARMLESS,
    ID,
    ID_DIGITS,
    KEYED,
    LAST,
    LOGIN,
    LONG,
    MIXED,
    NAMED,
    ODD,
    PASSWORD,
    SPELLED,
    SQUASHED,
    STREET,
    STREET_ALONE,
    STREET_SMALL,
    TRIGGER,
    UNUSUAL,
    Look,
    digit_count,
    is_quiet,
    look,
)
from streams.scrub.normalise import LETTER, Plain, normalise
from streams.scrub.spans import Overflow, Span, union

STRUCTURED = frozenset({"EMAIL", "PHONE", "CARD", "NATIONAL_ID", "IBAN", "IP"})
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]{1,20}_\d{1,6}>")
_ORDER_PREFIX = re.compile(r"(?i:ord|po|inv|bk|so|rma|ref|tkt|cs|case|clm|wo|pnr|acc|cust|usr|cus)[-_#/]?[A-Z]{0,3}\d")
_ALNUM_ID = re.compile(r"(?<![A-Za-z0-9])#?[A-Za-z0-9](?:[A-Za-z0-9]|[\-_/.](?=[A-Za-z0-9])){5,40}(?![A-Za-z0-9])")


def find_structured(text: str) -> list[Span]:
    """Spans of EMAIL, PHONE, CARD, NATIONAL_ID, IBAN and IP only; the whole text if it is a flood."""
    if (text.isascii() or HARMLESS.fullmatch(text)) and is_quiet(text):
        return []
    plain = normalise(text)
    try:
        found = _structured(plain.text, digit_count(plain.text))
    except Overflow:
        return [(0, len(text), "EMAIL")]
    return finish(text, plain, [s for s in found if s[2] in STRUCTURED]) if found else []


def find_rules(text: str) -> list[Span]:
    """Spans of all labels by rules alone; the whole text if it is a flood."""
    plain = normalise(text)
    try:
        bare, found = literals(plain.text)
        found += _rules(bare, look(bare))
    except Overflow:
        return [(0, len(text), "SECRET")]
    return finish(text, plain, found + (_other_scripts(text, plain, bare) if LETTER in bare else []))


def literals(text: str) -> tuple[str, list[Span]]:
    """The text with what looks like a placeholder blanked out, so that no detector reads it, and its spans."""
    if "<" not in text:
        return text, []
    found: list[Span] = [(*m.span(), "LITERAL") for m in _PLACEHOLDER.finditer(text)]
    for start, end, _ in found:
        text = f"{text[:start]}{secrets.BLANK * (end - start)}{text[end:]}"
    return text, found


def detect(original: str, plain: Plain, config: ScrubConfig) -> list[Span]:
    """What rules and tagger find in a detection text under a configuration; spans may overlap."""
    text, found = literals(plain.text)
    seen = look(text)
    found += _rules(text, seen)
    if LETTER in text:
        found += _other_scripts(original, plain, text)
    if config.tagger:
        found += _tagged(text, original, plain, seen)
    if seen.digits:
        found = neighbours.widened(text, found)
    if plain.source is not None and "'" in text:
        found = _softened(found, original, plain)
    for rule in config.id_formats:
        label, _, pattern = rule.partition(":")
        found += [(*m.span(), label) for m in re.finditer(pattern, text) if m.end() > m.start()]
    return found


_PLACED = DIGIT | SPELLED | STREET | STREET_ALONE
"""Flags of the pieces that an address is looked for around."""


def _tagged(text: str, original: str, plain: Plain, seen: Look) -> list[Span]:
    """Names by the tagger; addresses by the network, round what looks like one."""
    placed = reader.hinted(seen.pieces, seen.each, _PLACED) if seen.flags & _PLACED else []
    people = names.tag(text, seen.pieces) if seen.flags & UNUSUAL else []
    found: list[Span] = []
    for reading in reader.read(seen.pieces, placed) if placed else ():
        found += reading.addresses(text)
    return found + _housed(text, _accented(people, original, plain))


def _softened(found: list[Span], original: str, plain: Plain) -> list[Span]:
    """The finds with the soft or hard sign behind their last letter, which reads as an apostrophe (Cyrillic "Igor")."""
    source = plain.source or []
    return [
        (start, end + (plain.text[end : end + 1] == "'" and original[source[end]].isalpha()), label)
        for start, end, label in found
    ]


def _other_scripts(original: str, plain: Plain, text: str) -> list[Span]:
    """Names and addresses in scripts that have no Latin reading."""
    source = [original[i] for i in plain.source[:-1]] if plain.source else list(original)
    return foreign.find_foreign(text, source) + scripts.find_native(original, plain)


def _accented(found: list[Span], original: str, plain: Plain) -> list[Span]:
    """Names with the capitalised words beside them that only look ordinary because accents are gone ("Huỳnh Mỹ")."""
    source = plain.source
    if source is None:
        return found
    wide = []
    for start, end, label in found:
        behind = _CAPITALISED.match(plain.text, end)
        before = _CAPITALISED_BEFORE.search(plain.text, max(0, start - _WORD), start)
        first = before.start() if before and not original[source[before.start()] : source[start]].isascii() else start
        last = behind.end() if behind and not original[source[end] : source[behind.end()]].isascii() else end
        wide.append((first, last, label))
    return wide


_WORD = 24
"""Characters of the longest such word."""
_CAPITALISED = re.compile(r" [A-Z][a-z]{1,20}(?![A-Za-z])")
_CAPITALISED_BEFORE = re.compile(r"(?<![A-Za-z])[A-Z][a-z]{1,20} $")


def _housed(text: str, names_found: list[Span]) -> list[Span]:
    """Names, those that a house number ends as addresses: "Vajnorska 1"."""
    return [
        (start, match.end(), "ADDRESS") if (match := _HOUSE_NUMBER.match(text, end)) else (start, end, label)
        for start, end, label in names_found
    ]


_HOUSE_NUMBER = re.compile(r" \d{1,4}[a-z]?(?:/\d{1,4})?(?=[,.;\n?!]|$)")


def finish(text: str, plain: Plain, found: list[Span]) -> list[Span]:
    """Spans of a detection text as sorted spans of the original, none overlapping."""
    if plain.source is not None:
        found = [(*plain.original(start, end), label) for start, end, label in found]
    return union(found, text) if found else []


def _structured(text: str, digits: int) -> list[Span]:
    found = contacts.find_email(text) if "@" in text else []
    if digits >= 4:  # the shortest IP address
        found += numbers.find_numbers(text, digits)
    return found


def _rules(text: str, seen: Look) -> list[Span]:
    """What the rules find in a detection text; spans may overlap."""
    lower = text.lower()
    flags = seen.flags
    found = _structured(text, seen.digits)
    if flags & (LONG | PASSWORD) or "-----" in text:
        found += _secrets(text, lower, seen)
    if "@" in text or flags & (AT | SQUASHED):
        found += _contacts(text, lower, flags)
    if flags & SPELLED and ("-" in text or seen.several(SPELLED)) and spelled.is_spelled(seen.words(), seen.digits):
        found += spelled.find_spelled(lower)
    if seen.digits:
        found += _numbered(text, lower, seen)
    elif flags & STREET_ALONE and seen.unnumbered():
        found += addresses.find_addresses(text)
    if flags & LOGIN and not seen.digits:
        found += keyed.find_keyed(text, lower, seen.of(LOGIN, keywords.LOGINS))
    if flags & CAPITALS and flags & KEYED and flags & UNUSUAL and not seen.digits:
        found += keyed.find_keyed(text, lower, seen.of(KEYED, keywords.CODED))
    if flags & NAMED or (flags & UNUSUAL and (flags & (TRIGGER | AFTER) or (flags & LAST and flags & BUT_LAST))):
        announced = seen.announced()
        if announced or flags & NAMED:
            found += persons.find_persons(text, lower, announced, named=bool(flags & NAMED))
    return found


def _secrets(text: str, lower: str, seen: Look) -> list[Span]:
    found = secrets.find_shapes(text, seen.long_tokens())
    if seen.flags & PASSWORD:
        found += secrets.find_passwords(text, lower, seen.of(PASSWORD, secrets.PASSWORD_WORDS))
        found += secrets.find_security_answers(lower)
    return found


def _contacts(text: str, lower: str, flags: int) -> list[Span]:
    found: list[Span] = []
    signed = "@" in text
    if (signed and flags & (AT | BRACKET)) or (
        flags & AT and (flags & DOMAIN or (flags & BRACKET and contacts.is_bracketed(lower)))
    ):
        found += contacts.find_obfuscated(lower)
    if signed:
        found += contacts.find_handles(text)
    if flags & SQUASHED:
        found += contacts.find_squashed(lower)
    return found


def _numbered(text: str, lower: str, seen: Look) -> list[Span]:
    """What needs digits: values behind key words, ids, postal codes, addresses."""
    found: list[Span] = []
    flags = seen.flags
    if flags & KEYED or "d.o.b" in lower:
        fired = seen.of(KEYED, keywords.KEYS)
        found += keyed.find_keyed(text, lower, {**fired, "d.o.b": "dob"} if "d.o.b" in lower else fired)
    if flags & ID and (seen.digits > ID_DIGITS or "." in text) and any(each & ID for each in seen.each):
        found += _ids(seen, lower)
    if flags & MIXED or seen.digits >= 5:  # an American postal code
        found += streets.find_codes(text, text.encode().translate(CLASSES))
    if seen.digits >= separated.MIN_DIGITS and (flags & ODD or (flags & KEYED and separated.may_hold(text))):
        found += separated.find_separated(text, lower)
    if seen.digits >= 8 and text.count(".") > 1:  # coordinates
        found += secrets.find_coordinates(text)
    if flags & STREET:
        found += places.find_places(text, seen.having(STREET))
    elif flags & STREET_SMALL and text.islower():
        found += places.find_places(text, seen.having(STREET_SMALL))
    elif flags & UNUSUAL and seen.digits >= places.MIN_CODED:
        found += places.find_coded(text)
    return found


def _ids(seen: Look, lower: str) -> list[Span]:
    """Tokens of letters and at least five digits: ids of some kind, labelled by the words before."""
    found = []
    for at, piece in seen.standing(DIGIT):
        if digit_count(piece) < ID_DIGITS:
            continue
        for match in _ALNUM_ID.finditer(piece):
            token = match[0]
            if (
                digit_count(token) < ID_DIGITS
                or token.replace("-", "").replace("/", "").replace(".", "").isdigit()
                or token[:2].lower() == "0x"
            ):
                continue
            start = at + match.start()
            found.append((start, at + match.end(), numbers.context_of(lower, start) or "ORDER_ID"))
    return found
