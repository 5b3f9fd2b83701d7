"""Training text of our own: patterns of `invented.txt`, word salad, key mashing, mojibake, Markov prose."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

_CHOICE = re.compile(r"\{([^{}]*)\}")
_TAG = re.compile(r"<(?:style|script).*?</(?:style|script)>|<[^>]*>|&\w+;", re.DOTALL | re.IGNORECASE)
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890", "asdf", "jkl", "hjkl", "fghj", "qwe", "dfg")
_PER_PATTERN = 40


@lru_cache(maxsize=1)
def patterns() -> tuple[tuple[str, str], ...]:
    """(label, pattern) of each line of `invented.txt`."""
    lines = files("streams.quality").joinpath("invented.txt").read_text(encoding="utf-8").splitlines()
    found = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return tuple((label, pattern) for label, _, pattern in found)


def expand(pattern: str, rng: random.Random) -> str:
    """One text of a pattern: inner choices first, `{{` and `}}` stand for braces, then digits, then line breaks."""
    text = pattern.replace("{{", "\x01").replace("}}", "\x02")
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda m: rng.choice(m[1].split("|")), text)
    text = "".join(rng.choice(string.digits) if c == "#" else c for c in text)
    return text.replace("\x01", "{").replace("\x02", "}").replace("\\n", "\n").replace("\\t", "\t").strip()


def texts(rng: random.Random, plain: Sequence[str], per_pattern: int = _PER_PATTERN) -> list[tuple[str, str]]:
    """(label, text): each pattern several times in several casings, and gibberish made of `plain` chats."""
    made = [(label, _cased(expand(pattern, rng), rng)) for label, pattern in patterns() for _ in range(per_pattern)]
    makers = (keyboard_walk, keysmash, random_characters, lambda r: letter_shuffle(rng.choice(plain), r),
              lambda r: word_salad(rng.sample(plain, min(4, len(plain))), r), mojibake)  # fmt: skip
    made += [("gibberish", text) for make in makers for _ in range(per_pattern * 6) if (text := make(rng)).strip()]
    return list(dict.fromkeys(made))


def _cased(text: str, rng: random.Random) -> str:
    return rng.choices((text, text.lower(), text.upper()), (70, 18, 12))[0]


def keyboard_walk(rng: random.Random) -> str:
    """Neighbouring keys, now and then with a break."""
    row = rng.choice(_KEYS[:3])
    at, letters = rng.randrange(len(row)), []
    for _ in range(rng.randint(5, 40)):
        letters.append(" " if rng.randrange(12) == 0 else row[at])
        if rng.randrange(5) == 0:
            row = rng.choice(_KEYS[:3])
        at = (at + rng.choice((-1, 0, 1, 1))) % len(row)
    return "".join(letters)


def keysmash(rng: random.Random) -> str:
    """One or two short runs struck again and again, as impatient people do."""
    row = rng.choice(_KEYS)
    unit = "".join(rng.sample(row, min(len(row), rng.randint(2, 4))))
    if rng.randrange(2) == 0:
        start = rng.randrange(max(1, len(row) - 3))
        unit = row[start : start + rng.randint(3, 5)]
    text = unit * rng.randint(2, 5) + rng.choice(("", "", unit[:2], rng.choice("asdk")))
    return text if rng.randrange(5) else f"{text} {''.join(rng.choices(row, k=rng.randint(3, 8)))}"


def random_characters(rng: random.Random) -> str:
    """Letters, digits and symbols without order."""
    alphabet = string.ascii_letters + string.digits + rng.choice(("", "%&#$*@!?", ",.;'[]/"))
    return " ".join("".join(rng.choices(alphabet, k=rng.randint(4, 12))) for _ in range(rng.randint(1, 6)))


def letter_shuffle(text: str, rng: random.Random) -> str:
    """The words of a chat with their letters out of order."""
    return " ".join("".join(rng.sample(word, len(word))) for word in text.split()[: rng.randint(3, 14)])


def word_salad(chats: Sequence[str], rng: random.Random) -> str:
    """The words of some chats out of order."""
    words = [word.strip(".,!?") for chat in chats for word in chat.split()]
    rng.shuffle(words)
    return " ".join(words[: rng.randint(5, 18)])


def mojibake(rng: random.Random) -> str:
    """UTF-8 read as Latin-1: a Devanagari or Cyrillic or accented line gone wrong."""
    low, high = rng.choice(((0x0905, 0x0939), (0x0430, 0x044F), (0x00E0, 0x00FC), (0x4E00, 0x4FFF)))
    words = ("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(2, 7))) for _ in range(rng.randint(3, 10)))
    return " ".join(words).encode().decode("cp1252", errors="replace")


def prose(model: Mapping[str, Any], count: int, seed: int = 3) -> list[str]:
    """`count` sentences from a Markov model of word pairs, {"a b": {"transitions": [words that follow]}}."""
    rng = random.Random(seed)
    starts = sorted(key for key in model if key[:1].isupper() and " " in key)
    return [_sentence(model, rng.choice(starts), rng) for _ in range(count)]


def _sentence(model: Mapping[str, Any], key: str, rng: random.Random) -> str:
    words = key.split(" ")
    for _ in range(rng.randint(6, 22)):
        entry = model.get(" ".join(words[-2:]))
        if entry is None or not entry["transitions"] or words[-1].endswith("."):
            break
        words.append(rng.choice(entry["transitions"]))
    text = " ".join(words)
    return text.lower().rstrip(".") if rng.choice((True, True, False, False, False)) else text


def strip_tags(text: str) -> str:
    """The text of an HTML mail, roughly."""
    return _TAG.sub(" ", text)
