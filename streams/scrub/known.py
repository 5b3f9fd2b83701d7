"""What a conversation knows already: values of the event's own metadata, and whatever was found before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streams.scrub.conversation import Numbering, is_plain_word
from streams.scrub.normalise import normalise
from streams.scrub.spans import Overflow, Span

_WORD = re.compile(r"\S{1,128}")
_PART = re.compile(r"[A-Za-z0-9\x01]{3,80}")
_EDGES = ".,!?;:\"'()<>[]*_-"
_DIGIT_RUN = re.compile(r"\d(?:[ ./()_+\-]{0,2}\d){2,24}")
_NAME_FOLLOWS = ("speaking", "here", "again")

LABELS = {
    key: label
    for label, keys in {
        "PERSON": "customer_name name first_name last_name full_name agent_name",
        "EMAIL": "email",
        "PHONE": "phone mobile",
        "ACCOUNT_ID": "account_id id customer_id",
        "ORDER_ID": "order_ids order_id",
        "ADDRESS": "address",
        "USERNAME": "username",
        "ZIP": "zip",
        "DOB": "dob",
        "NATIONAL_ID": "ssn",
    }.items()
    for key in keys.split()
}
"""Metadata key -> label; values of other keys become known as ACCOUNT_ID."""

_NOT_NAMES = frozenset("guest test customer user unknown anonymous none null admin n/a na visitor client".split())
MIN_VALUE = 3
"""Characters below which a word is no variant of a value."""
MAX_VALUE = 512
"""Characters of the longest value that is learned: longer ones are notes, and nobody repeats them whole."""
MAX_VALUES = 256
"""Values of one event's metadata; more are a flood."""


def learn_metadata(metadata: Mapping[str, Any] | None, numbering: Numbering) -> None:
    """Make the values of an event's own metadata known to the conversation. Raises Overflow for a flood of them."""
    told = [
        (LABELS.get(name, "ACCOUNT_ID"), str(item))
        for name, value in (metadata or {}).items()
        for item in (value if isinstance(value, list | tuple) else [value])
        if isinstance(item, str | int) and not isinstance(item, bool)
    ]
    if len(told) > MAX_VALUES:
        raise Overflow
    for label, value in told:
        plain = normalise(value).text.strip() if len(value) <= MAX_VALUE else ""
        if len(plain) >= MIN_VALUE and plain.lower() not in _NOT_NAMES and not _is_word(label, plain):
            if label != "PERSON" and " " in plain and any(char.isalpha() for char in plain):
                numbering.learn_words(label, plain)
            else:
                numbering.learn(label, plain)


def _is_word(label: str, value: str) -> bool:
    """Whether a value is nothing but ordinary words, of which no key says what they are."""
    if label == "PERSON":
        return False
    return is_plain_word(value) or (label == "ACCOUNT_ID" and all(map(is_plain_word, value.split())))


def find_known(text: str, numbering: Numbering) -> list[Span]:
    """Spans of words and numbers of a detection text that the conversation knows."""
    if not numbering.state.known:
        return []
    found: list[Span] = []
    words = list(_WORD.finditer(text))
    for match in words:
        found += _known_word(text, match, numbering)
    if numbering.state.longest > 1:
        found += _known_runs(text, words, numbering)
    for match in _DIGIT_RUN.finditer(text):
        label = numbering.known_label(match[0])
        if label:
            found.append((*match.span(), label))
    return found


def _known_runs(text: str, words: list[re.Match[str]], numbering: Numbering) -> list[Span]:
    """Spans of known values of several words, such as an address."""
    found: list[Span] = []
    for at, first in enumerate(words):
        if numbering.begins(first[0]):
            for last in words[at + 1 : at + numbering.state.longest]:
                run = text[first.start() : last.end()].rstrip(_EDGES)
                if label := numbering.known_label(run):
                    found.append((first.start(), first.start() + len(run), label))
    return found


def _known_word(text: str, match: re.Match[str], numbering: Numbering) -> list[Span]:
    """The word between spaces without the signs around it, or the known parts of it."""
    raw = match[0]
    word = raw.strip(_EDGES)
    start = match.start() + raw.find(word) if word else match.start()
    if len(word) < MIN_VALUE or not _may_be_value(text, word, start):
        return []
    label = numbering.known_label(word)
    if label:
        return [(start, start + len(word.removesuffix("'s")), label)]
    if word.isalnum():
        return []
    parts = [(start + m.start(), start + m.end(), m[0]) for m in _PART.finditer(word)]
    known = [(a, b, numbering.known_label(part)) for a, b, part in parts if _may_be_value(text, part, a)]
    return [(a, b, label) for a, b, label in known if label]


def _may_be_value(text: str, word: str, start: int) -> bool:
    """Whether a word can be a value at all: an ordinary word only with a capital inside a sentence, or named."""
    if not is_plain_word(word):
        return True
    if word.islower():
        return False
    return start > 0 or text[start + len(word) : start + len(word) + 9].strip().startswith(_NAME_FOLLOWS)
