"""Addresses made from the grammars of data/postal.txt, with made-up names of streets and towns.

Every street, town and quarter is drawn from word lists or put together from halves of their words, so no real address
is made on purpose. A fifth of the addresses follow no country's custom: parts of all kinds in any order.
"""

from __future__ import annotations

import random
import re
from functools import cache

from streams.scrub.building.corpus import lexical, lines, name, own_lists_cached, pools, word
from streams.scrub.building.lexicon import NO_LANGUAGES
from streams.scrub.building.vocabulary import (
    COUNTRIES,
    FEW_ROAD_WORDS,
    GENERIC,
    HOUSE_HEADS,
    HOUSES,
    MARKS,
    ROAD_WORDS,
    STATES,
    TOWN_HEADS,
    TOWN_JOINTS,
    TOWN_TAILS,
    UNIT_WORDS,
)
from streams.scrub.lexicon import COMMON, FIRST, LAST, NAME, OFTEN, PROPER, lexicon
from streams.scrub.streets import DETAILS, PREFIXES, SUFFIXES, TAILS

_DEPTH = 8
_OPTION = re.compile(r"\[([^\[\]()]*)\]")
_CHOICE = re.compile(r"\(([^\[\]()]*)\)")
SLOT = re.compile(r"\{([^{}]+)\}")


def expand(grammar: str, rng: random.Random) -> str:
    """A grammar with its brackets chosen; slots stay."""
    for _ in range(_DEPTH):
        smaller = _OPTION.sub(lambda m: rng.choice(m[1].split("|")) if rng.random() < 0.5 else "", grammar)
        smaller = _CHOICE.sub(lambda m: rng.choice(m[1].split("|")), smaller)
        if smaller == grammar:
            break
        grammar = smaller
    return grammar


ODD = 0.2
"""Share of addresses that follow no custom."""


def address(rng: random.Random) -> str:
    """A generated address, as people write it."""
    if rng.random() < ODD:
        text = _odd(rng)
    else:
        grammar = rng.choice(lines("postal.txt"))
        text = SLOT.sub(lambda m: part(rng.choice(m[1].split("|")), rng), expand(grammar, rng))
    if rng.random() < 0.06:
        text += ", " + rng.choice(COUNTRIES)
    if rng.random() < 0.04:
        return _dictated(text, rng)
    if rng.random() < 0.08:
        text = _one_word_made(text, rng)
    return _separated(" ".join(text.split()).strip(" ,-"), rng)


def _one_word_made(text: str, rng: random.Random) -> str:
    """The address with a word replaced by one that no list holds: a street word of another language, a slip."""
    words = text.split(" ")
    at = rng.randrange(len(words))
    if words[at].isalpha() and len(words[at]) > 1:
        words[at] = made(rng) if rng.random() < 0.5 else slipped(words[at], rng)
    return " ".join(words)


def slipped(text: str, rng: random.Random) -> str:
    """A word with a slip of typing: a letter left out, doubled, or wrong."""
    at = rng.randrange(len(text))
    return (
        rng.choice(
            (
                text[:at] + text[at + 1 :],
                text[:at] + text[at] * 2 + text[at + 1 :],
                text[:at] + rng.choice("aeiorst") + text[at + 1 :],
            )
        )
        or text
    )


def _separated(text: str, rng: random.Random) -> str:
    """Commas as commas, as spaces, as line breaks or as other signs."""
    draw = rng.random()
    if draw < 0.55:
        return text
    if draw < 0.75:
        return text.replace(",", "")
    if draw < 0.86:
        return re.sub(r", ?", "\n", text)
    if draw < 0.92:
        return re.sub(r", ?", rng.choice((" - ", "; ", " / ", ",", " , ")), text)
    return re.sub(", ", lambda m: rng.choice((m[0], m[0], " ", "\n")), text)


@cache
def _marks() -> list[str]:
    return sorted(DETAILS | PREFIXES | SUFFIXES | TAILS)


def _odd(rng: random.Random) -> str:
    """Parts in any order: numbered marks, names, numbers, streets, codes."""
    marks = _marks()
    parts = []
    for _ in range(rng.choice((2, 2, 3, 3, 4, 5))):
        kind = rng.random()
        if kind < 0.35:
            mark = rng.choice(marks) if rng.random() < 0.6 else rng.choice(MARKS) if rng.random() < 0.6 else made(rng)
            mark = mark.capitalize() if rng.random() < 0.7 else mark.upper() if len(mark) < 4 else mark
            value = rng.choice(
                (small(rng), _number(rng), rng.choice("ABCDEFGHJKLMNP"), small(rng) + rng.choice("ABCDEF"))
            )
            parts.append(f"{mark} {value}" if rng.random() < 0.85 else f"{value} {mark}")
        elif kind < 0.6:
            parts.append(_street_name(rng) + rng.choice(("", "", " " + rng.choice(marks).capitalize())))
        elif kind < 0.8:
            street = (
                f"{_street_name(rng)} {rng.choice(marks).capitalize()}" if rng.random() < 0.6 else _street_name(rng)
            )
            parts.append(rng.choice((f"{_number(rng)} {street}", f"{street} {_number(rng)}")))
        else:
            parts.append(_town(rng))
    if not any(c.isdigit() for part in parts for c in part) and rng.random() < 0.8:
        parts.insert(rng.randrange(len(parts)), _number(rng))
    if rng.random() < 0.3:
        code = "".join(rng.choice("0123456789") for _ in range(rng.choice((4, 5, 5, 6))))
        parts.append(rng.choice((code, f"{code} {_town(rng)}", f"{_town(rng)} {code}")))
    return ", ".join(parts) if rng.random() < 0.7 else " ".join(parts)


def part(slot: str, rng: random.Random) -> str:
    """What stands in a slot of an address."""
    if slot[:2] == "c:":
        return code(slot[2:], rng)
    if slot == "K":
        return rng.choice(COUNTRIES)
    if slot == "U":
        return rng.choice(STATES)
    if slot == "l":
        return rng.choice("ABCDEFGHJKLMNPRSTW")
    if slot.startswith("o"):
        return _ordinal(rng) if slot == "o" else rng.choice(("o", "er", "a", ".o", "")) + rng.choice((" piso", ""))
    makers = {
        "n": _number,
        "N": _written,
        "u": small,
        "W": _street_name,
        "S": _person,
        "T": _town,
        "Q": _quarter,
        "R": _town,
        "B": _house,
    }
    return makers[slot](rng)


def code(pattern: str, rng: random.Random) -> str:
    """A code of a pattern: # a digit, A a capital, the rest itself."""
    return "".join(
        rng.choice("0123456789") if c == "#" else rng.choice("ABCDEFGHJKLMNPRSTVWXY") if c == "A" else c
        for c in pattern
    )


def _number(rng: random.Random) -> str:
    return str(rng.randrange(1, rng.choice((10, 40, 100, 200, 400, 1000, 2000, 10000, 20000))))


def small(rng: random.Random) -> str:
    """The number of a flat, a floor, a block, at times with a letter."""
    draw = rng.random()
    if draw < 0.75:
        return str(rng.randrange(1, rng.choice((5, 10, 30, 60, 500))))
    return rng.choice(
        (
            f"{rng.randrange(1, 40)}{rng.choice('ABCDEabcd')}",
            f"{rng.choice('ABCDEFG')}{rng.randrange(1, 60)}",
            f"0{rng.randrange(1, 9)}",
            f"{rng.choice('ABCD')}-{rng.randrange(1, 300)}",
            rng.choice(("II", "III", "IV", "V")),
        )
    )


def _written(rng: random.Random) -> str:
    number = _number(rng)
    if rng.random() < 0.7:
        return number
    small, letter = rng.randrange(1, 20), rng.choice("abcdABCDEF")
    return rng.choice(
        (
            f"{number}{letter}",
            f"{number} {letter}",
            f"{number}/{small}",
            f"{number}-{int(number) + 2}",
            f"{number}-{letter}",
            f"#{number}",
            f"{number}.",
            f"no {number}",
            f"nr {number}",
            f"{letter.upper()}{small}",
            f"{number}{letter}/{small}",
            f"{small}-{number}",
        )
    )


def _ordinal(rng: random.Random) -> str:
    number = rng.randrange(1, rng.choice((10, 30, 150)))
    tail = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return rng.choice(
        (f"{number}{tail}", f"{number}{tail}", rng.choice("First Second Third Fourth Fifth Sixth".split()))
    )


def _person(rng: random.Random) -> str:
    return name(rng.choice("FLLP"), rng)


@cache
def words_of(flag: int, without: int) -> list[str]:
    """The lexicon's longer words with a flag and without some."""
    return sorted(w for w, f in lexicon().items() if f & flag and not f & without and len(w) > 3 and "'" not in w)


@cache
def languages() -> list[list[str]]:
    """The ordinary words of each language of words.txt."""
    return [v[0] for k, v in sorted(own_lists_cached("words.txt").items()) if k not in NO_LANGUAGES]


def made(rng: random.Random) -> str:
    """A word that no list holds: the head of one and the tail of another."""
    pool = rng.choice((words_of(PROPER, COMMON), lexical(LAST), lexical(FIRST), pools(rng)[1]))
    a, b = rng.choice(pool), rng.choice(pool)
    return (a[: rng.randrange(2, 5)] + b[-rng.randrange(2, 6) :]).capitalize()


def _street_name(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.3:
        found = name(rng.choice("LLLLPF"), rng)
    elif draw < 0.42:
        found = rng.choice(words_of(COMMON, OFTEN | NAME)).capitalize()
    elif draw < 0.52:
        found = rng.choice(GENERIC)
    elif draw < 0.62:
        found = " ".join(w.capitalize() for w in rng.choices(rng.choice(languages()), k=rng.choice((1, 1, 2, 3))))
    elif draw < 0.78:
        found = made(rng)
    elif draw < 0.9:
        found = rng.choice(words_of(PROPER, COMMON)).capitalize()
    else:
        found = rng.choice(
            (
                f"{rng.randrange(1, 31)} de {made(rng)}",
                f"{made(rng)} {made(rng)}",
                f"{rng.choice(GENERIC)} {made(rng)}",
                f"{rng.choice(GENERIC)} {rng.choice(GENERIC)}",
                f"St {made(rng)}",
                f"Dr {word(lexical(LAST), rng)}",
                f"{made(rng)} de {made(rng)}",
                f"{rng.randrange(1, 30)} {made(rng)}",
            )
        )
    return found


def _town(rng: random.Random) -> str:
    base = rng.choice(words_of(PROPER, COMMON)).capitalize() if rng.random() < 0.5 else made(rng)
    draw = rng.random()
    if draw < 0.7:
        return base
    return rng.choice(
        (
            f"{rng.choice(TOWN_HEADS)} {base}",
            f"{base} {made(rng)}",
            f"{base}-{made(rng)}",
            f"{base} {rng.choice(TOWN_TAILS)}",
            f"{base} {rng.choice(TOWN_JOINTS).replace('|', ' ')} {made(rng)}",
        )
    )


def _quarter(rng: random.Random) -> str:
    return _town(rng) if rng.random() < 0.6 else _street_name(rng)


def _house(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return f"{_street_name(rng)} {rng.choice(HOUSES)}"
    if draw < 0.8:
        return f"{rng.choice(HOUSE_HEADS)} {_street_name(rng)}"
    return f"{rng.choice(GENERIC)} {rng.choice(GENERIC)}"


def fragment(rng: random.Random) -> str:
    """A part of an address by itself."""
    number = rng.choice((_written(rng), small(rng), _number(rng)))
    return rng.choice(
        (
            number,
            number,
            f"{rng.choice(UNIT_WORDS)} {small(rng)}",
            f"{number} {_street_name(rng)}",
            f"{_street_name(rng)} {rng.choice(ROAD_WORDS)}",
            f"{number} {_street_name(rng)} {rng.choice(FEW_ROAD_WORDS)}",
            f"{number}, flat {small(rng)}",
        )
    )


_DIGITS = "zero one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _said(number: str, rng: random.Random) -> str:
    """A number as it is dictated."""
    if len(number) > 4 or (len(number) > 2 and rng.random() < 0.3) or number[0] == "0":
        return " ".join("oh" if d == "0" and rng.random() < 0.6 else _DIGITS[int(d)] for d in number)
    value = int(number)
    if value < 100:
        if value < 20:
            return (_DIGITS + _TEENS)[value]
        return _TENS[value // 10 - 2] + (f" {_DIGITS[value % 10]}" if value % 10 else "")
    if len(number) == 3 and rng.random() < 0.5:
        rest = f" and {_said(str(value % 100), rng)}" if value % 100 else ""
        return f"{_DIGITS[value // 100]} hundred{rest}"
    head, tail = _said(number[:-2], rng), number[-2:]
    if tail == "00":
        rest = "hundred"
    elif tail[0] == "0":
        rest = "oh " + _DIGITS[int(tail[1])]
    else:
        rest = _said(tail, rng)
    return f"{head} {rest}"


def _dictated(text: str, rng: random.Random) -> str:
    """An address as somebody says it: numbers in words, no signs."""
    words = re.sub(r"[^A-Za-z\d ]", " ", text).lower()
    return " ".join(re.sub(r"\d+", lambda m: f" {_said(m[0], rng)} ", words).split())
