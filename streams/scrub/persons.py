"""Names by position: behind a trigger ("my name is", "Mr", "speaking with") and before one ("speaking", "here")."""

from __future__ import annotations

import re

from streams.scrub.lexicon import COMMON, NAME, OFTEN, lexicon
from streams.scrub.spans import Span

STRONG = (
    "my name is", "my name's", "name is", "name's", "the name is", "i am called", "they call me", "call me", "this is", "i'm", "i am", "im", "it's", "its", "name:", "name",
    "mein name ist", "ich heisse", "ich heise", "ich bin", "je m'appelle", "je suis", "me llamo", "mi nombre es", "soy", "mi chiamo", "il mio nome e", "sono", "meu nome e", "me chamo", "eu sou",
    "sou o", "sou a", "mijn naam is", "ik heet", "ik ben", "nazywam sie", "mam na imie", "mena zovut", "mene zvati", "jag heter", "mitt namn ar", "jeg heter", "jeg hedder", "mit navn er", "minun nimeni on",
    "nimeni on", "adim", "benim adim", "ma numesc", "numele meu este", "jmenuji se", "a nevem", "me lene", "to onoma mu einai", "nama saya", "ten toi la", "ako si", "ang pangalan ko ay", "mera naam", "jina langu ni",
    "first name is", "last name is", "surname is", "full name is", "first name", "last name", "surname", "full name", "maiden name is", "maiden name", "cardholder", "account holder", "holder name", "name on the card is",
)  # fmt: skip
TITLES = (
    "mr", "mrs", "ms", "miss", "mx", "dr", "prof", "professor", "sir", "madam", "lady", "lord", "herr", "frau", "monsieur", "madame", "mme", "mlle", "senor", "senora", "senorita", "sr", "sra", "signor", "signora", "dott", "don", "dona",
    "pan", "pani", "mevrouw", "meneer", "dhr", "mevr", "agent", "doctor",
)  # fmt: skip
BESIDE = (
    "hi", "hello", "hey", "dear", "thanks", "thank you", "hallo", "hola", "bonjour", "ciao", "ola", "regards", "sincerely", "cheers", "speaking with", "speaking to", "spoke with", "spoke to", "speak to", "speak with",
    "talk to", "talk with", "talked to", "talking to", "ask for", "asked for", "contact", "contacted", "under", "with", "for", "from", "by", "to", "and", "son", "daughter", "wife", "husband", "brother", "sister", "mother",
    "father", "mom", "dad", "friend", "colleague", "boss", "partner", "girlfriend", "boyfriend", "neighbor", "neighbour", "manager", "roommate", "cousin", "aunt", "uncle", "grandma", "grandpa", "attn", "signed", "sure", "okay", "ok", "welcome", "call",
)  # fmt: skip
_PARTICLES = frozenset(
    "de da di do dos das del della van von der den ten ter la le el al bin ibn ben abu y e zu af av mac mc st o'".split()
)
_WORD = re.compile(r"[A-Za-z\x01][A-Za-z\x01'\-]{0,30}\.?")
_CUT = re.compile(r"(?:'s|-)$")
_BETWEEN = re.compile(r"[ \t]{1,3}")
_LEAD = re.compile(
    r"[ \t]{0,3}[:,\-]?[ \t]{0,3}(?:is |the |called |named |actually |also |really |indeed |not )?\n?[ \t]{0,3}"
)
_SUFFIX_NUMBER = re.compile(r"(?:-[0-9A-Z]{1,4})(?![A-Za-z0-9])")
_AFTER = re.compile(
    r"([A-Za-z][A-Za-z'\-]{1,24}(?: [A-Za-z][A-Za-z'\-]{1,24}){0,2}) (?:here|speaking|again|calling|on the line)\b"
)
MAX_NAME_WORDS = 4


def _alternatives(phrases: tuple[str, ...]) -> re.Pattern[str]:
    ordered = sorted(phrases, key=len, reverse=True)
    return re.compile(r"(?<![a-z0-9'])(?:" + "|".join(re.escape(p) for p in ordered) + r")(?![a-z0-9'])\.?")


_STRONG = _alternatives(STRONG)
_TITLE = _alternatives(TITLES)
_BESIDE = _alternatives(BESIDE)


def find_persons(text: str, lower: str) -> list[Span]:
    """Spans of the names that a trigger announces."""
    found: list[Span] = []
    for pattern, strength in ((_STRONG, 2), (_TITLE, 2), (_BESIDE, 1)):
        for trigger in pattern.finditer(lower):
            lead = _LEAD.match(lower, trigger.end())
            at = trigger.end() if lead is None else lead.end()
            end = take_name(text, lower, at, strength)
            if end > at:
                found.append((at, end, "PERSON"))
    found += _before(text, lower)
    return found


def _before(text: str, lower: str) -> list[Span]:
    found = []
    for match in _AFTER.finditer(text):
        words = match[1].split(" ")
        at = match.start(1)
        while words and not _namelike(words[0], 1):
            at += len(words[0]) + 1
            words.pop(0)
        if words and all(_namelike(w, 1) for w in words):
            found.append((at, match.end(1), "PERSON"))
    return found


def take_name(text: str, lower: str, at: int, strength: int) -> int:
    """Where a name that starts at `at` ends (`at` if none); `strength` 2 also takes unknown words in lower case."""
    end = last = at
    for i in range(MAX_NAME_WORDS):
        word = _WORD.match(text, last)
        if not word:
            break
        plain = _CUT.sub("", word[0].rstrip("."))
        if plain.lower() in _PARTICLES and plain.islower():
            pass
        elif not _namelike(plain, strength if i == 0 else max(1, strength - (not plain[:1].isupper()))):
            break
        else:
            initial = len(plain) == 1 and word[0].endswith(".")
            end = last + len(plain) + initial
            suffix = _SUFFIX_NUMBER.match(text, end)
            end = suffix.end() if suffix else end
        gap = _BETWEEN.match(text, word.end())
        if not gap:
            break
        last = gap.end()
    return end


def _namelike(word: str, strength: int) -> bool:
    """Whether a word may be (part of) a name in a position of that strength."""
    flags = lexicon().get(word.lower(), 0)
    if word[:1].isupper():
        if flags & COMMON:
            return strength > 1 and bool(flags & NAME) and len(word) > 2  # noqa: PLR2004 - no initial, no "An"
        return len(word) > 1 or strength > 1
    if len(word) < 3 or flags & OFTEN:  # noqa: PLR2004 - shorter words are typing errors
        return False
    if flags & COMMON:
        return strength > 1 and bool(flags & NAME)
    return strength > 1 or bool(flags & NAME)
