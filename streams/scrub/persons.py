"""Names by position: an unusual word behind a trigger ("my name is", "Mr", "Hi") or before one ("speaking").

Works from the unusual words outwards: the few words before each are looked up in sets of phrases, so a
text pays for its candidates, not for its triggers. Behind "name" any word may be a name.
"""

from __future__ import annotations

import re

from streams.scrub.lexicon import COMMON, NAME, OFTEN, lexicon
from streams.scrub.spans import Overflow, Span

STRONG = frozenset(
    (
        "name is|name's|name was|name:|name|i am called|call me|calls me|this is|i'm|i am|im|it's|its|hier ist|"
        "hier spricht|name ist|ich heisse|ich heise|ich bin|m'appelle|je suis|nom est|me llamo|nombre es|soy|"
        "mi chiamo|nome e|sono|me chamo|eu sou|sou o|sou a|naam is|ik heet|ik ben|nazywam sie|na imie|mena zovut|"
        "zovut|jag heter|heter|hedder|namn ar|navn er|nimeni on|adim|benim adim|ma numesc|numele meu este|"
        "jmenuji se|nama saya|ako si|ko ay|naam|first name|last name|surname|surname is|full name|maiden name|"
        "cardholder|account holder|holder|passenger|guest|attn|signed|myself|vorname|nachname|nombre|apellido|"
        "prenom|nom|nome|cognome|sobrenome|voornaam|achternaam|imie|nazwisko|mr|mrs|ms|miss|mx|dr|prof|professor|"
        "herr|frau|monsieur|madame|mme|mlle|senor|senora|sr|sra|signor|signora|dott|dona|mevrouw|meneer|dhr|mevr|"
        "doctor"
    ).split("|")
)
"""Behind these even an unknown word in lower case is a name."""

WEAK = frozenset(
    (
        "hi|hello|hey|dear|thanks|thank you|hallo|hola|bonjour|ciao|ola|regards|sincerely|cheers|speaking with|"
        "speaking to|spoke with|spoke to|speak to|speak with|talk to|talk with|talked to|talking to|ask for|"
        "asked for|contact|contacted|under|wife|husband|brother|sister|mother|father|mom|dad|friend|colleague|"
        "boss|partner|girlfriend|boyfriend|neighbor|neighbour|roommate|cousin|aunt|uncle|son|daughter|sure|"
        "welcome|call|called|agent|beneficiary|behalf of|payable to|regards,|owner"
    ).split("|")
)
"""Behind these a capitalised or known name is one."""

_PHRASES = [phrase.rstrip(":,").split() for phrase in STRONG | WEAK]
TRIGGERS = frozenset(words[0] for words in _PHRASES if len(words) == 1)
LAST = frozenset(words[-1] for words in _PHRASES if len(words) > 1)
BUT_LAST = frozenset(words[-2] for words in _PHRASES if len(words) > 1)
"""Those phrases that are one word; the last words of the others, and those in front of them."""

FOLLOWERS = frozenset({"here", "speaking", "again", "calling", "on"})
"""First words of what stands behind a name."""

_WORD = re.compile(r"[A-Za-z\x01][A-Za-z\x01'\-]{0,40}\.?")
_BETWEEN = re.compile(r"[ \t]{1,3}")
_SUFFIX_NUMBER = re.compile(r"-[0-9A-Z]{1,4}(?![A-Za-z0-9])")
_AFTER = re.compile(r" (?:here|speaking|again|calling|on the line)\b")
NAME_WORDS = frozenset(
    "name name's navn naam nombre nome nom namn imie jmeno llamo chiamo m'appelle appelle heisse heter hedder heet "
    "zovut nimeni numesc jmenuji nazywam nama nimi".split()
)
"""Words behind which any word may be a name, ordinary ones in lower case among them."""
_NAME_WORD = re.compile(
    r"(?:\b(?:name(?:'s)?|navn|naam|nombre|nome|nom|namn|imie|jmeno|nama|nimi|zovut)\b[ \t]{0,2}"
    r"(?:is\b|was\b|er\b|es\b|e\b|est\b|ar\b|ist\b|lautet\b|saya\b|on\b|to\b|:|=|-)?|"
    r"\b(?:me llamo|mi chiamo|m'appelle|heisse|heter|hedder|heet|nimeni on|ma numesc|jmenuji se|nazywam sie)\b)"
    r"[ \t]{0,2}"
)
_PARTICLES = frozenset(
    "de da di do dos das del della van von der den ten ter la le el al bin ibn ben abu y e zu af av mac mc st".split()
)
MAX_NAME_WORDS = 4
MAX_CANDIDATES = 256
"""Unusual words looked at in one turn."""
_REACH = 32
"""Characters before a word in which its trigger stands."""


def find_persons(text: str, lower: str, unusual: set[str], *, named: bool) -> list[Span]:
    """Spans of the names that a trigger announces."""
    found: list[Span] = []
    last = 0
    for at, word in sorted(_positions(text, unusual)):
        if at < last:
            continue
        strength = _strength(lower, at)
        end = take_name(text, at, strength) if strength else at
        if end == at and _AFTER.match(lower, at + len(word)) and is_namelike(word, 1):
            end = at + len(word)
        if end > at:
            found.append((at, end, "PERSON"))
            last = end
    if named:
        found += _named(text, lower)
    return found


def _positions(text: str, unusual: set[str]) -> list[tuple[int, str]]:
    """Where the unusual words stand."""
    found: list[tuple[int, str]] = []
    for word in unusual:
        at = text.find(word)
        while at >= 0:
            if len(found) >= MAX_CANDIDATES:
                raise Overflow
            if not (text[at - 1 : at].isalnum() or text[at + len(word) : at + len(word) + 1].isalnum()):
                found.append((at, word))
            at = text.find(word, at + len(word))
    return found


def _strength(lower: str, at: int) -> int:
    """2 behind a strong trigger, 1 behind a weak one, else 0."""
    before = lower[max(0, at - _REACH) : at].replace(",", " ").split()[-3:]
    if before and before[-1].endswith("."):
        return 2 if before[-1].rstrip(".") in STRONG else 0
    strength = 0
    for n in range(1, len(before) + 1):
        phrase = " ".join(before[-n:])
        if phrase in STRONG:
            return 2
        if phrase in WEAK:
            strength = 1
    return strength


def _named(text: str, lower: str) -> list[Span]:
    """Names behind the word "name", ordinary words in lower case among them ("my name is grace")."""
    found = []
    for match in _NAME_WORD.finditer(lower):
        end = take_name(text, match.end(), 2)
        if end > match.end():
            found.append((match.end(), end, "PERSON"))
    return found


def take_name(text: str, at: int, strength: int) -> int:
    """Where a name that starts at `at` ends (`at` if none); `strength` 2 also takes unknown words in lower case."""
    end = last = at
    for i in range(MAX_NAME_WORDS):
        word = _WORD.match(text, last)
        if not word:
            break
        plain = word[0].rstrip(".").removesuffix("'s").rstrip("-'")
        if not (i and plain.islower() and plain in _PARTICLES):
            known = i == 0 or bool(lexicon().get(plain.lower(), 0))
            if not is_namelike(plain, strength if known and i == 0 else max(1, strength - known * plain.islower())):
                break
            end = last + len(plain) + (len(plain) == 1 and word[0].endswith("."))
            suffix = _SUFFIX_NUMBER.match(text, end)
            end = suffix.end() if suffix else end
        gap = _BETWEEN.match(text, word.end())
        if not gap:
            break
        last = gap.end()
    return end


def is_namelike(word: str, strength: int) -> bool:
    """Whether a word may be (part of) a name in a position of that strength."""
    flags = lexicon().get(word.lower(), 0)
    if word[:1].isupper():
        if flags & COMMON:
            return strength > 1 and bool(flags & NAME) and len(word) > 2  # no initial, no "An"
        return len(word) > 1 or strength > 1
    if len(word) < 3 or flags & OFTEN:  # shorter words are typing errors
        return False
    if flags & COMMON:
        return strength > 1 and bool(flags & NAME)
    return strength > 1 or bool(flags & NAME)
