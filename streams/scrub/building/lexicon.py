"""Builds data/lexicon.txt.gz from word lists by frequency, census name lists and the project's own lists.

    python -m streams.scrub.building.lexicon --scowl /usr/share/dict/scowl --census DIR --stopwords FILE --packages DIR

SCOWL is free to use with its notice; the census lists are public domain (files `dist.*` of the package `names`);
the stop words of 50 languages are stopwords-iso (MIT; `stopwords-iso.json` of the package `stopwordsiso`); the folder
of packages holds what translated.py and gazetteer.py read.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

from streams.scrub.building import gazetteer, translated
from streams.scrub.keywords import KEYS
from streams.scrub.lexicon import COMMON, FIRST, FOREIGN, GERMAN, LAST, NAME, OFTEN, PROPER
from streams.scrub.normalise import LETTER, normalise

DATA = Path(__file__).parent.parent / "data"
_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)?")
_FREQUENT_SURNAMES = 1_500
"""Of words that are very frequent ("price", "dear") only the commonest surnames count as names."""
_OFTEN_SIZES, _COMMON_SIZES, _PROPER_SIZES = (10, 20), (10, 20, 35, 40), (10, 35, 40, 50, 60, 70)
_RARE_SIZES = (50, 55)
"""Rare words are ordinary only if they are no name."""
_SURNAMES = 20_000
"""Census surnames kept; the rest is borne by less than one American in 100,000."""


_STRINGS = 2
"""Translated strings that hold a word of a language at least; one alone may be a mistake."""
_FREQUENT = 6
"""Strings that hold a word which is also a rare name, for it to be ordinary in its language all the same."""
_KNOWN_SURNAMES, _KNOWN_FIRSTS = 3_000, 1_000
"""Names of that rank are names in every language."""
_SHORT = 2
"""Letters of words that are too short to tell languages by."""
NO_LANGUAGES = frozenset({"brands", "places", "titles", "persons", "never", "chat"})
"""The project's own lists that are no language's."""
_STOPWORDS = frozenset(
    "af ca cs da de es et fi fr gl hr hu id it lt lv ms nl no pl pt ro ru sk sl sv tr uk bg el".split()
)
"""Languages of stopwords-iso that are used; of the others many stop words are surnames once accents are gone."""


def build(scowl: Path, census: Path, stopwords: Path, packages: Path) -> bytes:
    """The packed lexicon."""
    table: dict[str, int] = {}

    def add(words: Iterable[str], flag: int) -> None:
        for word in words:
            if _WORD.fullmatch(word):
                table[word] = table.get(word, 0) | flag

    kinds = ("english-words", "american-words", "british-words", "english-contractions")
    add(_scowl(scowl, kinds, _COMMON_SIZES), COMMON)
    add(_scowl(scowl, kinds, _OFTEN_SIZES), OFTEN | COMMON)
    add(
        _scowl(
            scowl,
            (
                "english-upper",
                "american-upper",
                "english-proper-names",
                "american-proper-names",
                "english-abbreviations",
            ),
            _PROPER_SIZES,
        ),
        PROPER,
    )
    for sex in ("male", "female"):
        add(_census(census / f"dist.{sex}.first"), FIRST)
    surnames = _census(census / "dist.all.last")[:_SURNAMES]
    add((w for i, w in enumerate(surnames) if i < _FREQUENT_SURNAMES or not table.get(w, 0) & OFTEN), LAST)
    own = own_lists("words.txt")
    persons, never = own.pop("persons")[0], [*own.pop("never")[0], *own.pop("chat")[0]]
    never += [word for word in own.pop("brands")[0] if not table.get(word, 0) & (FIRST | LAST)]
    add(own["places"][0], PROPER)
    add(own["titles"][0], COMMON)
    for firsts, lasts in own_lists("names.txt").values():
        add(firsts, FIRST)
        add(lasts, LAST)
    _add_foreign(table, stopwords, frozenset([*surnames[:_FREQUENT_SURNAMES], *own["titles"][0]]))
    common_names = {word for word, flags in table.items() if flags & LAST} & set(surnames[:_KNOWN_SURNAMES])
    for sex in ("male", "female"):
        common_names |= set(_census(census / f"dist.{sex}.first")[:_KNOWN_FIRSTS])
    for firsts, lasts in own_lists("names.txt").values():
        common_names |= {*firsts, *lasts}
    _add_translated(
        table, common_names, [path for path in sorted(packages.glob("*.whl")) if "geonames" not in path.name]
    )
    brands = gazetteer.brands(packages)
    for word in brands:
        if table.get(word, 0) & ~PROPER == LAST and word not in common_names:
            table[word] = PROPER
    _add_proper(table, [*brands, *gazetteer.towns(packages)])
    return pack(_corrected(table, scowl, kinds, persons, never))


def _add_foreign(table: dict[str, int], stopwords: Path, kept: frozenset[str]) -> None:
    """Mark the ordinary words of other languages, but first names ("sara", an Italian verb) and those `kept`."""
    english = {word for word, flags in table.items() if flags & OFTEN}
    for language, words in foreign_words(stopwords).items():
        for word in words:
            flags = table.get(word, 0)
            if word in english or flags & FIRST or word in kept or len(word) == 1:
                continue
            table[word] = flags | COMMON | FOREIGN | (GERMAN if language == "german" else 0)


def _add_translated(table: dict[str, int], common_names: set[str], packages: list[Path]) -> None:
    """Mark words of translated programs, unless a list knows them: ordinary in their language, or brands in English."""
    for language, counts in sorted(translated.vocabulary(packages).items()):
        flags = COMMON if language == "en" else COMMON | FOREIGN | (GERMAN if language == "german" else 0)
        for word, strings in counts.items():
            if strings < _STRINGS or len(word) <= _SHORT or not _WORD.fullmatch(word):
                continue
            before = table.get(word, FOREIGN)
            if _is_foreign(before) or (strings >= _FREQUENT and _is_rare_name(before) and word not in common_names):
                table[word] = table.get(word, 0) | flags
    _add_proper(table, [word for word, strings in translated.brands(packages).items() if strings >= _STRINGS])


def _is_foreign(flags: int) -> bool:
    """Whether a word may be one of another language: no English word, no name."""
    return bool(flags & FOREIGN) and not flags & NAME


def _is_rare_name(flags: int) -> bool:
    """Whether a word is a name and nothing else, in English."""
    return bool(flags & NAME) and not flags & COMMON


def _add_proper(table: dict[str, int], words: Iterable[str]) -> None:
    """Mark words that no list knows as names of things."""
    for word in words:
        if _WORD.fullmatch(word):
            table.setdefault(word, PROPER)


def foreign_words(stopwords: Path) -> dict[str, list[str]]:
    """Language -> ordinary words of it, as detection texts have them: own lists and stop words."""
    found = {name: words[0] for name, words in own_lists("words.txt").items() if name not in NO_LANGUAGES}
    for code, words in json.loads(stopwords.read_text(encoding="utf-8")).items():
        if code not in _STOPWORDS:
            continue
        plain = sorted({part for word in words for part in normalise(word).text.lower().split()})
        name = "german" if code == "de" else code
        found[name] = [*found.get(name, []), *(w for w in plain if _WORD.fullmatch(w) and LETTER not in w)]
    return found


def _corrected(
    table: dict[str, int], scowl: Path, kinds: tuple[str, ...], persons: list[str], never: list[str]
) -> dict[str, int]:
    """The table with our own decisions on words that are several things, and with rare words."""
    for word in persons:
        table[word] = (table.get(word, 0) | FIRST) & ~(COMMON | OFTEN)
    for word in own_lists("words.txt")["places"][0]:
        table[word] = table.get(word, 0) & ~LAST | PROPER
    for word in never:
        table[word] = COMMON | OFTEN
    for word in KEYS:  # what announces a value is no name
        table[word] = table.get(word, 0) & ~NAME | COMMON
    for word in _scowl(scowl, kinds, _RARE_SIZES):
        if _WORD.fullmatch(word):
            table.setdefault(word, COMMON)
    return table


def pack(table: dict[str, int]) -> bytes:
    """Flags and their words, one line per combination; the same bytes for the same table."""
    lines = (
        f"{flags} " + " ".join(sorted(w for w, f in table.items() if f == flags))
        for flags in sorted(set(table.values()))
    )
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, compresslevel=9) as packed:
        packed.write("\n".join(lines).encode())
    return out.getvalue()


def own_lists(name: str) -> dict[str, list[list[str]]]:
    """Language -> lists of words, from one of the project's own files."""
    lists = {}
    for line in (DATA / name).read_text().splitlines():
        if line and not line.startswith("#"):
            language, _, rest = line.partition(":")
            lists[language] = [part.split() for part in rest.split(";")]
    return lists


def _scowl(folder: Path, kinds: tuple[str, ...], sizes: tuple[int, ...]) -> list[str]:
    paths = [folder / f"{kind}.{size}" for kind in kinds for size in sizes]
    return [word.strip().lower() for path in paths if path.exists() for word in path.read_text("latin-1").splitlines()]


def _census(path: Path) -> list[str]:
    return [line.split()[0].lower() for line in path.read_text().splitlines()]


def main() -> None:
    """Write the lexicon beside the package's other data."""
    parser = argparse.ArgumentParser(description=build.__doc__)
    parser.add_argument("--scowl", type=Path, required=True)
    parser.add_argument("--census", type=Path, required=True)
    parser.add_argument("--stopwords", type=Path, required=True)
    parser.add_argument("--packages", type=Path, required=True)
    args = parser.parse_args()
    (DATA / "lexicon.txt.gz").write_bytes(build(args.scowl, args.census, args.stopwords, args.packages))


if __name__ == "__main__":
    main()
