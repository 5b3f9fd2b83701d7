"""Vocabulary from translated programs: the words of thirty languages as their users read them, and brands in English.

Packages are read as the registry has them: wheels of homeassistant (Apache-2.0), indico and django-allauth (MIT),
django, django-helpdesk, django-oscar and wagtail (BSD).
A word counts when it stands in lower case in several different strings: names of products never do.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from streams.scrub.normalise import LETTER, SYMBOL, normalise

LANGUAGES = {
    "af": "af", "bg": "bg", "bs": "hr", "ca": "ca", "cs": "cs", "da": "da", "de": "german", "el": "el", "en": "en",
    "es": "es", "et": "et", "fi": "fi", "fr": "fr", "gl": "gl", "hr": "hr", "hu": "hu", "id": "id", "it": "it",
    "lt": "lt", "lv": "lv", "mk": "mk", "nb": "no", "nl": "nl", "nn": "no", "pl": "pl", "pt": "pt", "ro": "ro",
    "ru": "ru", "sk": "sk", "sl": "sl", "sr-latn": "hr", "sv": "sv", "tr": "tr", "uk": "uk", "ms": "id",
}  # fmt: skip
"""Codes of translations -> the language; Vietnamese is left out, whose words without accents are surnames."""
_ELIDING = frozenset({"fr", "it", "ca", "en"})
_JSON = re.compile(r"translations/([A-Za-z-]+)\.json$")
_PO = re.compile(r"/([A-Za-z_]+)/LC_MESSAGES/[\w-]+\.po$")
_MESSAGES = re.compile(r'^msgstr(?:\[\d\])? ((?:".*"\s*)+)', re.MULTILINE)
_SOURCES = re.compile(r'^msgid(?:_plural)? ((?:".*"\s*)+)', re.MULTILINE)
_SLOT = re.compile(
    r"\{[^}]{0,60}\}|%\([^)]{0,40}\)[a-z]|%[a-z]|<[^>]{0,200}>|https?://\S+|\[%[^%]*%\]|\\[nrt\"]|`[^`]*`|&[a-z]+;|\S*[_/.@]\S+"
)
_WORD = re.compile(r"(?<![\w'])[^\W\d_]+(?:['’-][^\W\d_]+)*(?![\w'])")


def vocabulary(packages: Iterable[Path]) -> dict[str, Counter[str]]:
    """Language -> how many strings hold a word in lower case (in German: in any case); "en" is among them."""
    strings: dict[str, set[str]] = {}
    for package in packages:
        for language, text in _strings(package):
            strings.setdefault(language, set()).add(_SLOT.sub(" ", text))
    return {language: _counts(texts, language) for language, texts in strings.items()}


def brands(packages: Iterable[Path]) -> Counter[str]:
    """How many English strings hold a word with a capital behind another word."""
    texts = {_SLOT.sub(" ", text) for package in packages for language, text in _strings(package) if language == "en"}
    return Counter(
        word
        for text in texts
        for word in {match[0].lower() for match in _WORD.finditer(text) if match[0][:1].isupper() and match.start()}
    )


def _counts(texts: set[str], language: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for text in texts:
        words = {m[0] for m in _WORD.finditer(text) if language == "german" or m[0].islower()}
        plain = {part for word in words for part in _plain(word, language)}
        found.update(word for word in plain if LETTER not in word and SYMBOL not in word)
    return found


def _plain(word: str, language: str) -> list[str]:
    """A word as detection texts have it; where articles are elided ("l'ordine"), what they stand before."""
    plain = normalise(word.lower()).text.lower()
    return plain.split("'")[-1:] if language in _ELIDING else [plain]


def _strings(package: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every translated string in a package."""
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if (match := _JSON.search(name)) and (language := _language(match[1])):
                yield from ((language, text) for text in _leaves(json.loads(archive.read(name))))
            elif match := _PO.search(name):
                body = archive.read(name).decode()
                if language := _language(match[1]):
                    pattern = _SOURCES if language == "en" else _MESSAGES
                    texts = (_unquoted(found[1]) for found in pattern.finditer(body))
                    yield from ((language, text) for text in texts if "Plural-Forms" not in text)


def _language(code: str) -> str:
    code = code.lower().replace("_", "-")
    return LANGUAGES.get(code) or LANGUAGES.get(code.partition("-")[0], "")


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, str):
        yield tree


def _unquoted(quoted: str) -> str:
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', quoted))
