"""Names, sentences with places for them, and carriers from openly licensed conversations.

In a carrier, names are replaced by generated ones and pronouns now and then become names ("he called" -> "Ines
called"). Everything is seeded: same inputs, same sentences.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from streams.scrub.building.lexicon import DATA, own_lists
from streams.scrub.lexicon import COMMON, FIRST, LAST, lexicon
from streams.scrub.normalise import normalise

CARRIERS = (
    "conv_star",
    "conv_cucom",
    "conv_small_retail_it",
    "conv_taskmaster4",
    "quality_contrast",
)
"""Files of the data folder that are carriers (MIT, Apache-2.0, CC-BY-4.0); none of the labelled set."""

LEFT_OUT = frozenset({"ABCD", "davidson-2017", "surge-ai-toxicity-toxic"})
DROPOUT = 0.4
"""Share of name words that the model sees as if the lexicon did not hold them."""

NAMED = 0.4
"""Share of sentences of random words that hold a name."""

_PRONOUN = re.compile(
    r"\b(?:he|she|him|my (?:friend|wife|husband|son|daughter|brother|sister|boss|mom|dad|mother|father|partner|"
    r"doctor)|the (?:driver|seller|agent|doctor|manager|owner|guy|lady))\b(?! and\b)",
    re.IGNORECASE,
)
_POSSESSIVE = re.compile(r"\b(?:his|her|my (?:friend|wife|husband|boss|brother|sister)'s)\b(?= [a-z])", re.IGNORECASE)
_STAR_NAMES = re.compile(
    r"\b(?:Ben|Mark|Alexis|Mary|John|Katarina|Michael|Jessica|Jane|Jakob|Daniel|Angela|Morgan|Johnson|Rajesh|"
    r"Priya)\b(?: (?:Smith|Miller|Jones|Kumar|Sharma|Johnson|Williams))?(?!-| Hotel| Inn| St\b| Apart)"
)
_PRODUCTS = (
    "Charger Laptop Headphones Blender Jacket Sneakers Router Kettle Tablet Printer Monitor Backpack Camera Speaker "
    "Keyboard Mouse Desk Chair Lamp Sofa Mattress Toaster Oven Fridge Dryer Vacuum Drill Tent Bike Helmet Watch "
    "Ring Dress Shirt Boots Gloves Scarf Hat Coat Jeans Perfume Shampoo Vitamins Puzzle Console Controller Voucher "
    "Ticket Coupon Subscription Invoice Warranty Adapter Cable Battery Screen Case"
).split()


def read_templates() -> list[str]:
    """The sentences with places for names."""
    return [line.replace("\\n", "\n") for line in lines("templates.txt")]


@cache
def lines(file: str) -> list[str]:
    """The lines of one of the package's files, without its comments."""
    return [line for line in (DATA / file).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


def fill(template: str, rng: random.Random) -> list[tuple[str, bool]]:
    """A template as pieces (text, is a name)."""
    places = own_lists_cached("words.txt")["places"][0]
    brands = own_lists_cached("words.txt")["brands"][0]
    pieces: list[tuple[str, bool]] = []
    for part in re.split(r"(\{[PFLBCW]\})", template):
        if part in {"{P}", "{F}", "{L}"}:
            pieces.append((name(part[1], rng), True))
        elif part == "{W}":
            pieces.append((" ".join(rng.sample(_PRODUCTS, rng.choice((1, 1, 2)))), False))
        elif part in {"{B}", "{C}"}:
            words = _invented(rng) if rng.random() < 0.2 else rng.choice(brands if part == "{B}" else places)
            pieces.append(
                (words.title() if rng.random() < 0.8 else words.upper() if rng.random() < 0.3 else words, False)
            )
        else:
            pieces.append((part, False))
    return pieces


def mixed(languages: dict[str, list[str]], rng: random.Random) -> list[tuple[str, bool]]:
    """Random words of a language, at times with a capitalised name; German has capitals and compounds of its own."""
    language = rng.choice(list(languages))
    words = rng.choices(languages[language], k=rng.randrange(3, 11))
    if language == "german":
        words = [_german(word, languages[language], rng) for word in words]
    words[0] = words[0].capitalize()
    if rng.random() > NAMED:
        return [(" ".join(words), False)]
    at = rng.randrange(len(words) + 1)
    before, behind = " ".join(words[:at]), " ".join(words[at:])
    return [(f"{before} " if before else "", False), (name(rng.choice("PPFL"), rng), True), (f" {behind}", False)]


def _german(word: str, words: list[str], rng: random.Random) -> str:
    """A word as it is, or as a noun, or as the head of a compound."""
    draw = rng.random()
    if draw < 0.6 or len(word) < 4:
        return word
    return (word if draw < 0.75 else word + rng.choice(("", "s", "n")) + rng.choice(words)).capitalize()


def _invented(rng: random.Random) -> str:
    """A brand that no list holds: words run together or with a business suffix."""
    words = rng.sample(_PRODUCTS, 2)
    return rng.choice(
        (
            words[0] + words[1].lower(),
            f"{words[0]} {rng.choice('Ltd Inc LLC GmbH Group Store Online Direct Solutions'.split())}",
            words[0][:4] + words[1][-3:].lower(),
        )
    )


def carry(text: str, rng: random.Random) -> list[tuple[str, bool]]:
    """A carrier with its names replaced, and at times a pronoun turned into a name."""
    pieces = _split(text, _STAR_NAMES, lambda found: name("F" if " " not in found else "P", rng))
    if rng.random() < 0.75 and len(pieces) == 1:
        pattern, form = (_POSSESSIVE, "'s") if rng.random() < 0.3 else (_PRONOUN, "")
        pieces = _split(text, pattern, lambda _: name(rng.choice("FFPL"), rng), form)
    return pieces


def _split(text: str, pattern: re.Pattern[str], make: object, tail: str = "") -> list[tuple[str, bool]]:
    pieces: list[tuple[str, bool]] = []
    at = 0
    for match in pattern.finditer(text):
        pieces += [(text[at : match.start()], False), (make(match[0]), True)]  # type: ignore[operator] # a maker of names
        pieces += [(tail, False)] if tail else []
        at = match.end()
    return [*pieces, (text[at:], False)]


def name(form: str, rng: random.Random) -> str:
    """A generated name: F first, L surname, P both, with initials, particles and double names now and then."""
    firsts, lasts = pools(rng)
    first, last = word(firsts, rng), word(lasts, rng)
    if rng.random() < 0.05:
        first += "-" + word(firsts, rng)
    if rng.random() < 0.06:
        last = rng.choice(
            (
                f"{rng.choice(('de', 'van', 'von', 'di', 'da', 'van der', 'de la', 'al', 'bin', 'ten', 'le'))} {last}",
                f"{last}-{word(lasts, rng)}",
                f"O'{last}",
                f"Mc{last}",
            )
        )
    if form == "F":
        return first
    if form == "L":
        return last
    middle = rng.choice(
        (
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            f" {rng.choice('ABCDEFGHJKLMNPRSTVW')}.",
            f" {rng.choice('ABCDEFGHJKLMNPRSTVW')}",
            f" {word(firsts, rng)}",
        )
    )
    return f"{first}{middle} {last}"


def pools(rng: random.Random) -> tuple[list[str], list[str]]:
    """First names and surnames of one language, or of the census."""
    if rng.random() < 0.45:
        return lexical(FIRST), lexical(LAST)
    lists = own_lists_cached("names.txt")
    chosen = lists[rng.choice(list(lists))]
    return chosen[0], chosen[1]


def word(pool: list[str], rng: random.Random) -> str:
    """A name of the pool, or one made of the head of one and the tail of another."""
    chosen = rng.choice(pool)
    if rng.random() < 0.25:
        other = rng.choice(pool)
        made = chosen[: max(2, len(chosen) // 2)] + other[max(1, len(other) // 2) :]
        chosen = made if made.isalpha() and len(made) > 3 else chosen
    return "-".join(part.capitalize() for part in chosen.split("-"))


@cache
def lexical(flag: int) -> list[str]:
    """The lexicon's words with a flag that are no ordinary words."""
    return sorted(w for w, f in lexicon().items() if f & flag and not f & COMMON and len(w) > 2)


@cache
def own_lists_cached(name_: str) -> dict[str, list[list[str]]]:
    """The project's own lists, read once."""
    return own_lists(name_)


def carriers(data: Path, stems: tuple[str, ...] = CARRIERS) -> Iterator[str]:
    """The texts of files of the data folder, as detection texts."""
    for stem in stems:
        with gzip.open(data / f"{stem}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get("source") in LEFT_OUT or row.get("label") == "toxic":
                    continue
                for text in [t["text"] for t in row["turns"]] if "turns" in row else [row["text"]]:
                    if len(text) <= 300:  # longer ones add little
                        yield normalise(text).text
