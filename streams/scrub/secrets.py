"""Passwords, keys and tokens: known prefixes, key-value forms, credentials in addresses, random strings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from streams.scrub.lexicon import is_common
from streams.scrub.spans import Overflow, Span

PASSWORD_WORDS = frozenset(
    "password passwords passwort kennwort contrasena clave senha wachtwoord haslo parol pwd passwd pw pass "
    "passphrase losenord adgangskode passord salasana parola heslo "
    "mdp parola parool salasona kodeord geslo lozinka slaptazodis sandi mat-khau matkhau kata-sandi passcode psw "
    "pswd psswd passwd pasw pword passkey "
    "jelszo sifre kode-akses secret apikey api token key credential credentials passe".split()
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{12,20}|gh[pousr]_[A-Za-z0-9]{16,255}|github_pat_\w{20,255}|"
    r"glpat-[\w\-]{16,64}|npm_[A-Za-z0-9]{20,64}"
    r"|(?:sk|pk|rk)[-_](?:live[-_]|test[-_]|proj[-_]|ant[-_])?[A-Za-z0-9_\-]{16,255}|"
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,255}|AIza[\w\-]{20,64}|SG\.[\w\-]{10,64}\.[\w\-]{10,128}"
    r"|eyJ[\w\-]{8,4096}(?:\.[\w\-]{2,4096}){1,4}|hf_[A-Za-z0-9]{20,64}|ya29\.[\w\-]{20,255}|EAAC[A-Za-z0-9]{20,255}|"
    r"dop_v1_[a-f0-9]{32,64}|shp(?:at|ss)_[a-fA-F0-9]{20,64}|whsec_[A-Za-z0-9]{16,64})"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}KEY-----[^-]{0,8192}(?:-----END [A-Z ]{0,40}KEY-----)?")
_URL_LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://([^\s/:@]{1,64}:[^\s/@]{1,128})@")
_RANDOM = re.compile(r"(?<![A-Za-z0-9/+=_\-.])[A-Za-z0-9/+=_\-]{20,512}(?![A-Za-z0-9/+=_\-])")
_CRYPTO = re.compile(
    r"(?<![A-Za-z0-9])(?:0x[0-9a-fA-F]{40}|(?:bc1|ltc1)[a-z0-9]{20,87}|"
    r"[13LDT][1-9A-HJ-NP-Za-km-z]{25,39})(?![A-Za-z0-9])"
)
_UUID = re.compile(r"(?<![0-9A-Fa-f])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![0-9A-Fa-f])")
_MAC = re.compile(
    r"(?<![0-9A-Fa-f:\-])(?:[0-9A-Fa-f]{2}([:\-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}|"
    r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![0-9A-Fa-f:\-])"
)
_GEO = re.compile(r"\d(?<![\d.]\d)\d{0,2}\.\d{3,12} ?[,;/] ?-?\d{1,3}\.\d{3,12}(?![\d.])")
_MINUS = re.compile(r"(?<![\d.])-")
_LINK = re.compile(
    r"[ \t]{0,3}(?:(?:for|to|on|of) (?:the|my|this|that|your) [a-z\-]{1,20} )?(?:[ \t]{0,3}(?::|=|->|- |(?:is|was|are|"
    r"ist|es|est|e|it's|its|lautet|to|set|now|currently|called|here|just|still"
    r"|number|key|word|value|i use|i used|secreto|de passe|de|new|old|you gave me)(?= ))){0,5}[ \t]{0,3}[\"'`]?"
)
BLANK = "\x03"
"""Stands where a placeholder was, so that none is taken for a secret."""

_SECRET = re.compile(rf"[^\s\"`{BLANK}]{{3,256}}")
_ORDINARY = re.compile(r"[a-z]+('[a-z]+)?[.,!?;:)]*|[.,!?;:)\-]+")


MAX_WORDS = 200
"""Times that one password word is looked at in one turn; more are a flood."""


def find_shapes(text: str, tokens: Iterable[tuple[int, int]]) -> list[Span]:
    """Spans of secrets, wallets and device addresses that show by their form, in the long unbroken tokens given."""
    found: list[Span] = []
    for start, end in tokens:
        token = text[start : end + 1]  # with the sign behind it, for what a login in a link ends with
        found += [(start + a, start + b, label) for a, b, label in _shapes(token)]
    if "-----" in text:
        found += [(*m.span(), "SECRET") for m in _PEM.finditer(text)]
    return found


def _shapes(token: str) -> list[Span]:
    found = [(*m.span(), "SECRET") for m in _SHAPES.finditer(token)]
    found += [(*m.span(), "CRYPTO") for m in _CRYPTO.finditer(token) if any(c.isdigit() for c in m[0])]
    if "-" in token:
        found += [(*m.span(), "DEVICE_ID") for m in _UUID.finditer(token)]
    found += [(*m.span(), "MAC") for m in _MAC.finditer(token)]
    if "://" in token:
        found += [(*m.span(1), "SECRET") for m in _URL_LOGIN.finditer(token)]
    return found + [(*m.span(), "SECRET") for m in _RANDOM.finditer(token) if _is_random(m[0])]


def find_coordinates(text: str) -> list[Span]:
    """Spans of pairs of latitude and longitude."""
    return [
        (m.start() - (m.start() > 0 and _MINUS.match(text, m.start() - 1) is not None), m.end(), "GEO")
        for m in _GEO.finditer(text)
    ]


def find_passwords(text: str, lower: str, fired: Iterable[str]) -> list[Span]:
    """Spans of the values that password words, as typed, announce."""
    found: list[Span] = []
    for word in fired:
        if lower.count(word) > MAX_WORDS:
            raise Overflow
        at = lower.find(word)
        while at >= 0:
            end = at + len(word)
            if not (lower[at - 1 : at].isalnum() or lower[end : end + 1].isalpha()):
                span = _announced(text, lower, end) or _used_as(text, lower, at)
                if span:
                    found.append(span)
            at = lower.find(word, end)
    return found


def _announced(text: str, lower: str, end: int) -> Span | None:
    """The secret behind the key word that ends at `end`: after `is` or `:` nearly anything, else an odd string."""
    link = _LINK.match(lower, end)
    start = end if link is None else link.end()
    between = lower[end:start]
    value = _SECRET.match(text, start)
    if value is None or value.start() == end or value[0].lower() in _NUMBERS:
        return None
    word = value[0].rstrip(".,;:)\"'") if len(value[0].rstrip(".,;)\"'")) >= 3 else value[0]
    strong = bool(re.search(r"[:=]|->| - |\b(?:is|was|ist|es|est)\b", between))
    odd = any(c.isdigit() or not c.isalnum() for c in word.rstrip("!?")) or word[1:] != word[1:].lower()
    odd = odd and not _CONTRACTION.fullmatch(word.lower())
    if text[start + len(word) : start + len(word) + 3] == " / " and (
        pair := _SECRET.match(text, start + len(word) + 3)
    ):
        return (start, pair.start() + len(pair[0].rstrip(".,;)\"'")), "SECRET")  # a name and its password
    if odd or (strong and word.lower() not in _NOT_SECRET and _is_rare(word.lower())):
        return (start, start + len(word), "SECRET")
    return None


_CONTRACTION = re.compile(r"[a-z]+n't|(?:it|that|he|she|what|there)'s|i'm|i've|we've")
_NUMBERS = frozenset({"no:", "nr:", "number:", "id:", "no.", "nr."})
"""Words that lead to a value of another kind ("pass no:")."""
_USED_AS = re.compile(r"(?:^|[\s\"'])([^\s\"']{3,64})[\"']? (?:as|for) (?:my |the |a |our |its |your )?(?:new |old )?$")


def _used_as(text: str, lower: str, at: int) -> Span | None:
    """The odd string before "as password" that stands in front of the key word at `at`."""
    match = _USED_AS.search(lower, max(0, at - 90), at)
    if match is None:
        return None
    word = text[match.start(1) : match.end(1)]
    odd = any(c.isdigit() or not c.isalnum() for c in word.rstrip("!?.,")) or word[1:] != word[1:].lower()
    return (*match.span(1), "SECRET") if odd and not _ORDINARY.fullmatch(word) else None


_NOT_SECRET = frozenset(
    "not no wrong incorrect correct invalid expired being is was the a an in on to for and or but so it its my your "
    "too very also reset changed blocked locked "
    "case required needed set working valid still never always now already weak strong safe secure stored saved sent "
    "forgotten lost right that this what "
    "different same new old there here on accepted rejected recognized saying asking good bad fine ok okay only just "
    "going about by from with at as".split()
)


ANSWER_WORDS = frozenset({"maiden", "memorable", "security", "pet"})
"""Words that may introduce the answer to a security question."""
_ANSWER = re.compile(
    r"(?:maiden name|memorable (?:word|name|place|date)|(?:security|secret) (?:answer|word)|"
    r"answer to (?:the|my|your|that|this) (?:security|secret) question|first pet(?:'s name)?)"
    r"(?:'s| is| was|:| =| -){1,2} {0,2}(?:called |named |still )?[\"'`]?([^\s\"'`,.;:!?()\x03]{2,64})"
)


def find_security_answers(lower: str) -> list[Span]:
    """Spans of the answers to security questions that are told as such ("my mother's maiden name is ...")."""
    return [(*m.span(1), "SECRET") for m in _ANSWER.finditer(lower) if m[1] not in _NOT_SECRET]


def _is_rare(word: str) -> bool:
    return not is_common(word.rstrip(".,!?"))


def _is_random(text: str) -> bool:
    """Hex of 32 digits or more, or a mix of cases and digits that no word or path has."""
    core = text.strip("=-_/+")
    if len(core) < 20:  # shorter strings are product codes
        return False
    digits = sum(c.isdigit() for c in core)
    if digits < 3:
        return False
    switches = sum(a.isdigit() != b.isdigit() for a, b in pairwise(core))
    return switches >= 5
