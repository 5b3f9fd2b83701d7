"""What a conversation remembers between turns: numbers of placeholders and digests of values, never a value.

A value is filed under a keyed digest of its canonical form: digits for numbers (phones: the last nine),
casefolded letters and digits otherwise; a person under the digests of the words of the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from streams.scrub.lexicon import is_common
from streams.scrub.spelled import digits_of

DIGEST_BYTES = 8
"""64 bits: two values of one conversation collide once in 10^13 conversations."""

_NOT_ALNUM = re.compile(r"[^a-z0-9\x01]+")
_EMAIL_WORDS = re.compile(r" (?:at|dot|arroba|punkt|punto|point) |[\[({<] ?(?:at|dot|@|\.) ?[\])}>]")
_LONG_NUMBER = 9
"""Digits by which phone numbers are compared: country and trunk prefixes vary."""
_MIN_PART = 4
"""Digits of an id that are known without its letters ("CUST-465072" and "465072")."""
_MIN_WORD = 3
MAX_WORDS = 12
"""Words of the longest value that is looked for as a whole."""
_SPELLED = frozenset("PHONE CARD CARD_SEC NATIONAL_ID ACCOUNT_ID ORDER_ID TRACKING OTP ZIP DEVICE_ID".split())
"""Labels of values that are dictated digit by digit."""

Placed = tuple[int, int, str, int]
"""Start, end (code points of the original), label, number."""


class Entity(msgspec.Struct, array_like=True):
    """One value: its label, its number (0 until it is seen in a text) and, of persons, the digests of its words."""

    label: str
    number: int = 0
    words: list[bytes] = []


class ConversationState(msgspec.Struct, array_like=True):
    """Everything scrub knows of one conversation; `encode` gives digests, labels and counters only."""

    entities: list[Entity] = []
    known: dict[bytes, int] = {}
    """Digest of a value -> index of its entity."""
    counters: dict[str, int] = {}
    expected: tuple[str, ...] = ()
    """Labels that the last question asked for."""
    expected_seq: int = -1
    answered_seq: int = -1
    """Seq of the turn that answered it, -1 while it is open."""
    fragment: tuple[str, int, int] | None = None
    """Label, digits so far and seq of the last piece of a value that came in pieces."""
    replies: dict[bytes, list[Placed]] = {}
    """Digest of an event -> its spans, from which every redelivery is answered."""
    last_at: float = 0.0
    """Kafka timestamp of the newest event, seconds."""
    held: list[Any] = []
    """Turns that wait for the next one; in memory only, their offsets are uncommitted."""
    longest: int = 1
    """Words of the longest value of the metadata that is no name."""

    def encode(self) -> bytes:
        """The state as bytes for Redis, without held turns."""
        *stored, _, longest = msgspec.structs.astuple(self)
        return _encoder.encode([*stored, [], longest])

    @staticmethod
    def decode(raw: bytes) -> ConversationState:
        """Read `encode`'s bytes. Raises msgspec.DecodeError."""
        return _decoder.decode(raw)

    def copy(self) -> ConversationState:
        """A state that can be changed without changing this one."""
        entities = [Entity(e.label, e.number, list(e.words)) for e in self.entities]
        return ConversationState(
            entities, dict(self.known), dict(self.counters), self.expected, self.expected_seq, self.answered_seq,
            self.fragment, dict(self.replies), self.last_at, list(self.held), self.longest,
        )  # fmt: skip


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ConversationState)


class Numbering:
    """Assigns numbers to the values of one conversation, in place, under the deployment's key."""

    def __init__(self, state: ConversationState, key: bytes) -> None:
        self.state = state
        self._key = key
        self._bearers: dict[bytes, set[int]] = {}
        """Digest of a name's word -> the persons who bear it."""
        for index, entity in enumerate(state.entities):
            self._bear(index, entity.words)

    def digest(self, text: str) -> bytes:
        """Keyed digest of a canonical value."""
        return blake2b(text.encode(), key=self._key, digest_size=DIGEST_BYTES).digest()

    def learn(self, label: str, value: str) -> None:
        """Make a value known before it is seen in a text (from the event's metadata)."""
        self._entity(label, value)

    def learn_words(self, label: str, value: str) -> None:
        """Make a value of several words known, to be found as a whole wherever its first word stands."""
        words = value.split()
        self._entity(label, value)
        whole = self.state.known[self.digest(forms(label, value)[0])]
        self.state.known.setdefault(self.digest("f" + _letters(words[0])), whole)
        self.state.longest = max(self.state.longest, min(len(words), MAX_WORDS))

    def begins(self, word: str) -> bool:
        """Whether a value of several words begins with this one."""
        return self.digest("f" + _letters(word)) in self.state.known

    def place(self, label: str, value: str) -> tuple[str, int]:
        """The label and number of a value's placeholder; new values get the next number of their label."""
        entity = self._entity(label, value)
        if not entity.number:
            entity.number = self.state.counters.get(entity.label, 0) + 1
            self.state.counters[entity.label] = entity.number
        return entity.label, entity.number

    def known_label(self, word: str) -> str | None:
        """The label under which a word (or number) is known, None if it is not."""
        if not self.state.known:
            return None
        for form in forms("", word):
            index = self.state.known.get(self.digest(form))
            if index is not None:
                return self.state.entities[index].label
        return "PERSON" if self.digest("w" + _letters(word)) in self._bearers else None

    def _entity(self, label: str, value: str) -> Entity:
        digests = [self.digest(form) for form in forms(label, value)]
        for digest in digests:
            if digest in self.state.known:
                return self._file(self.state.known[digest], digests)
        words = [self.digest("w" + w) for w in name_words(value)] if label == "PERSON" else []
        same = self._same_person(words)
        if same is None:
            same = len(self.state.entities)
            self.state.entities.append(Entity(label, 0, words))
        else:
            entity = self.state.entities[same]
            entity.words.extend(w for w in words if w not in entity.words)
        self._bear(same, words)
        return self._file(same, digests)

    def _bear(self, index: int, words: Iterable[bytes]) -> None:
        for word in words:
            self._bearers.setdefault(word, set()).add(index)

    def _file(self, index: int, digests: Iterable[bytes]) -> Entity:
        for digest in digests:
            self.state.known.setdefault(digest, index)
        return self.state.entities[index]

    def _same_person(self, words: list[bytes]) -> int | None:
        """The one known person whose words hold all of these, or are all among these."""
        if not words:
            return None
        given = set(words)
        bearers = [self._bearers.get(word, set()) for word in given]
        wider = set.intersection(*bearers)
        if wider:
            return wider.pop() if len(wider) == 1 else None
        narrower = [i for i in set.union(*bearers) if given.issuperset(self.state.entities[i].words)]
        return narrower[0] if len(narrower) == 1 else None


def forms(label: str, value: str) -> list[str]:
    """The canonical forms of a detection text's value, the most specific first."""
    lower = value.lower()
    if label == "EMAIL":
        lower = _EMAIL_WORDS.sub("", lower)
    elif label in _SPELLED and " " in lower:
        lower = digits_of(lower) or lower
    compact = _NOT_ALNUM.sub("", lower)
    digits = "".join(c for c in compact if c.isdigit())
    if compact and len(digits) == len(compact):
        return [f"n{digits}"] + (
            [f"t{digits[-_LONG_NUMBER:]}"] if label in {"PHONE", ""} and len(digits) >= _LONG_NUMBER else []
        )
    found = [f"a{compact}"]
    if label in {"ORDER_ID", "ACCOUNT_ID", "TRACKING"} and len(digits) >= _MIN_PART:
        found.append(f"n{digits}")
    return found


def name_words(name: str) -> list[str]:
    """The words of a name that tell persons apart: no initials, no particles."""
    return [w for w in (_letters(p) for p in name.split()) if len(w) >= _MIN_WORD]


def _letters(word: str) -> str:
    word = word.lower().removesuffix("'s")
    return _NOT_ALNUM.sub("", word)


def is_plain_word(word: str) -> bool:
    """Whether a word is too ordinary to be looked up as a known value when it stands in lower case."""
    return is_common(word.lower().removesuffix("'s"))
