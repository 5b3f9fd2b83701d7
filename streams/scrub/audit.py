"""The leakage audit: a share of masked turns is searched again by a heavier detector, and synthetic turns are planted.

Only counts and cleaned ids leave this module. What the second detector finds in a masked text is a leak of the first;
`upper_bound` says what rate the counts still allow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

from streams.events import ChatEvent, Message
from streams.scrub.config import ScrubConfig
from streams.scrub.conversation import ConversationState
from streams.scrub.identity import Keys, value_key
from streams.scrub.masking import Quarantined
from streams.scrub.ner import NerBackend, Thorough, load
from streams.scrub.scrubber import Scrubber

CONFIDENCE = 0.95
"""Of the bound on the leak rate."""


class Turn(NamedTuple):
    """A masked turn that may be audited."""

    event_id: str
    text: str


class Audited(NamedTuple):
    """What an audit saw: turns searched, the ids of those that leak, and the labels of what was found."""

    turns: int
    leaking: tuple[str, ...]
    labels: tuple[str, ...]
    failed: int = 0
    """Turns on which the second detector failed: they are not counted as searched."""


class LeakAudit:
    """Searches a fixed share of turns again; the same event is always in or always out of the sample."""

    def __init__(
        self, config: ScrubConfig, keys: Keys, backend: NerBackend | None = None,
        report: Callable[[str, str], object] | None = None,
    ) -> None:  # fmt: skip
        """`report` gets the cleaned event id and label of every leak."""
        self._report = report
        self._share = config.audit_share
        self._key = value_key(keys)
        self._backend = backend or (load(config.audit_ner, config.ner_deadline_s) if config.audit_ner else Thorough())

    def run(self, turns: Sequence[Turn]) -> Audited:
        """Search the sampled ones of these turns. Never raises."""
        sample = [turn for turn in turns if self.is_sampled(turn.event_id)]
        if not sample:
            return Audited(0, (), ())
        try:
            found = self._backend.entities([turn.text for turn in sample])
        except Exception:  # noqa: BLE001 - third-party code may raise anything, with text in it
            return Audited(0, (), (), len(sample))
        leaks = [
            (turn.event_id, label)
            for turn, spans in zip(sample, found, strict=True)
            for start, end, label in spans
            if not _in_placeholder(turn.text, start, end)
        ]
        if self._report is not None:
            for event_id, label in leaks:
                self._report(event_id, label)
        return Audited(len(sample), tuple(dict.fromkeys(i for i, _ in leaks)), tuple(label for _, label in leaks))

    def is_sampled(self, event_id: str) -> bool:
        """Whether an event belongs to the sample, by a keyed digest of its id."""
        digest = blake2b(event_id.encode(), key=self._key, digest_size=4).digest()
        return int.from_bytes(digest, "big") < self._share * 2**32


def _in_placeholder(text: str, start: int, end: int) -> bool:
    """Whether a span lies in a placeholder such as `<PERSON_1>`."""
    opened = text.rfind("<", 0, end)
    return opened >= 0 and text.find(">", opened, start) < 0 and text.find(">", max(start, opened)) >= end - 1


def upper_bound(leaks: int, turns: int) -> float:
    """The leak rate that so many leaks in so many turns still allow with 95 % confidence (Clopper and Pearson, 1934).

    With no leak in 3,000 turns it is 0.001; with no turns it is 1.
    """
    if turns <= leaks:
        return 1.0
    low, high = leaks / turns, 1.0
    for _ in range(60):  # halvings: beyond the precision of a float
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(leaks, turns, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _at_most(leaks: int, turns: int, rate: float) -> float:
    """The probability of at most so many leaks in so many turns at a rate (binomial)."""
    term = (1 - rate) ** turns
    total = term
    for i in range(leaks):
        term *= (turns - i) / (i + 1) * rate / (1 - rate)
        total += term
    return total


class Planted(NamedTuple):
    """A synthetic turn and the values in it."""

    event: ChatEvent
    values: tuple[str, ...]


_SENTENCES: tuple[tuple[str, Literal["customer", "agent"]], ...] = (
    ("hello, my name is {0} {1} and my order {2} is late", "customer"),
    ("my card {3} was charged twice, call me on {4}", "customer"),
    ("please write to {5}, my password is {6}", "customer"),
    ("refund to {7}, i live at {8} {9} Street", "customer"),
    ("Thank you {0}, is {5} still right?", "agent"),
)
"""What is planted; values are made anew each time."""


class Canaries:
    """Plants synthetic turns in front of a scrubber of their own and looks whether their values come through."""

    def __init__(self, config: ScrubConfig, keys: Keys, scrub: Callable[[ChatEvent], str] | None = None) -> None:
        self._scrubber = Scrubber(config, keys)
        self._scrub = scrub or self._masked
        self._state = ConversationState()

    def run(self, rng: random.Random) -> tuple[int, int]:
        """Plant one conversation: how many values were masked (or quarantined), and how many came through."""
        self._state = ConversationState()
        masked = survived = 0
        for planted in plant(rng):
            try:
                text = self._scrub(planted.event).casefold()
            except Quarantined:
                text = ""
            through = sum(value.casefold() in text for value in planted.values)
            survived, masked = survived + through, masked + len(planted.values) - through
        return masked, survived

    def _masked(self, event: ChatEvent) -> str:
        (clean,), self._state = self._scrubber.scrub_event(event, self._state, received_at=0.0, offset=(0, 0))
        return clean.text or ""


def plant(rng: random.Random) -> list[Planted]:
    """A synthetic conversation whose values no customer has."""
    values = _values(rng)
    found = []
    for seq, (sentence, role) in enumerate(_SENTENCES):
        used = tuple(value for i, value in enumerate(values) if f"{{{i}}}" in sentence)
        event = Message(
            event_id=f"canary-{rng.randrange(2**63)}", conversation_id=f"canary-{values[2]}", seq=seq,
            ts="2025-01-01T00:00:00Z", role=role, text=sentence.format(*values),
        )  # fmt: skip
        found.append(Planted(event, used))
    return found


def _values(rng: random.Random) -> list[str]:
    """A first name, a surname, an order, a card, a phone, an e-mail, a password, an IBAN, a house and a street."""
    syllables = ("ka", "ro", "mi", "ven", "tal", "bri", "os", "len", "dar", "quo", "zel", "pha")

    def word() -> str:
        return "".join(rng.choice(syllables) for _ in range(3)).capitalize()

    def digits(count: int) -> str:
        return "".join(rng.choice("0123456789") for _ in range(count))

    return [
        word(), word(), f"QX-{digits(7)}", f"4{digits(15)}", f"+44 7{digits(9)}",
        f"{word().lower()}.{digits(4)}@canary.example", f"{word()}!{digits(4)}", f"DE{digits(20)}", digits(3), word(),
    ]  # fmt: skip
