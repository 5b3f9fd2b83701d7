"""Copies of a training sample with other noise: typing slips, casing, paraphrases, a shorter context, pages as chats.

Off by default. A copy keeps its parent's split, targets and provenance; its id is `<event id>/aug/<n>`. Only customer
turns are changed: the reply is what is learned, and an error in it would be learned too. A pair of a FAQ or a document
becomes a chat (asked.py). The learner makes copies while
it draws a batch (learner/copies.py); none is stored, so a copy never outlives its parent. What a model says otherwise
is taken only if the filter would keep it and its facts are the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from streams import asked, near_copies
from streams.events import Sample, Turn
from streams.quality import QualityConfig, judge_turn

Say = Callable[[str, int], str]
"""A model that says a customer's text in other words; the same text and seed give the same answer."""

_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"(<[A-Z_]+_\d+>|\S*\d\S*)")
_PARAPHRASES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), others)
    for pattern, others in (
        (r"\bhow (?:can|do) i\b", ("what do I do to", "is there a way to", "how would I")),
        (r"\bcan you\b", ("could you", "would you", "are you able to")),
        (r"\bi (?:want|would like|need) to\b", ("I'd like to", "I am trying to", "I was hoping to")),
        (r"\bwhere is my\b", ("what happened to my", "I am still waiting for my")),
        (r"\bdoes(?: not|n't) work\b", ("is not working", "won't work", "has stopped working")),
        (r"\bplease\b", ("kindly", "if you can,")),
        (r"\b(?:hello|hi|hey)\b", ("hello", "hi there", "good day")),
    )
)

_FILTER = QualityConfig()
_LONGER = 2
"""Times the words of the original beyond which a paraphrase says more, or less, than was said."""

MOST_COPIES, MOST_TYPOS, MOST_TOKENS = 8, 0.2, 0.2
"""Limits of the settings: more copies repeat themselves, more slips cannot be read, more tokens drown the real ones."""


@dataclass(frozen=True)
class AugmentConfig:
    """How copies are made."""

    copies: int = 0
    """Copies of each rehearsed sample of a step; 0 switches augmentation off."""
    lanes: tuple[str, ...] = ()
    """Lanes whose samples are copied, for example faq and documents; empty for all."""
    typos: float = 0.03
    """Share of letters of a customer's turn that slip, in copies with typing noise."""
    token_share: float = 0.2
    """Largest share of a step's tokens that copies may have."""
    generated: float = 0.0
    """Share of copies whose last question before the reply a model says in other words, an answer each: the base, which
    must follow instructions then, or `translation`."""
    translation: tuple[str, ...] = ()
    """Two translation models of transformers, on disk or from a hub, into another language and back; empty for none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.copies <= MOST_COPIES:
            raise ValueError(f"copies = {self.copies}: wants 0 to 8")
        if not 0 <= self.typos <= MOST_TYPOS:
            raise ValueError(f"typos = {self.typos}: wants 0 to 0.2")
        if not 0 <= self.token_share <= MOST_TOKENS:
            raise ValueError(f"token_share = {self.token_share}: wants 0 to 0.2")
        if not 0 <= self.generated <= 1:
            raise ValueError(f"generated = {self.generated}: wants 0 to 1")
        if len(self.translation) not in {0, 2}:
            raise ValueError(f"translation = {self.translation}: wants two models, there and back, or none")
        if self.translation and not self.generated:
            raise ValueError("translation: wants generated above 0, the share of copies that it makes")


def augment(sample: Sample, config: AugmentConfig, rng: random.Random, say: Say | None = None) -> list[Sample]:
    """Copies of a sample of the train split (none of another), each different from it; `say` serves `generated`."""
    if sample.split != "train" or sample.kind == "aug" or (config.lanes and sample.lane not in config.lanes):
        return []
    copies = []
    for number in range(config.copies):
        if say is not None and config.generated and rng.random() < config.generated:
            turns = _said_otherwise(sample.turns, say, rng.getrandbits(31))
        else:
            turns = (_of_page if sample.lane in asked.LANES else _changed)(sample.turns, config, rng)
        if turns != sample.turns:
            copies.append(_copy(sample, turns, number))
    return copies


def typing_noise(text: str, share: float, rng: random.Random) -> str:
    """The text with neighbouring keys, swaps and lost letters; numbers and placeholders stay."""
    return _outside(text, lambda part: "".join(_slips(part, share, rng)))


def paraphrase(text: str, rng: random.Random) -> str:
    """The text with the first phrase that a template knows said otherwise."""
    for pattern, others in _PARAPHRASES:
        if pattern.search(text):
            return pattern.sub(rng.choice(others), text, count=1)
    return text


def casing(text: str, rng: random.Random) -> str:
    """The text in lower case, without final punctuation, or shouted; placeholders stay."""
    how = rng.choice((str.lower, str.lower, str.upper))
    return _outside(text.rstrip(".!"), how)


def same_meaning(text: str, said: str) -> bool:
    """True for other words that the filter keeps, with the same placeholders and facts, of about the same length."""
    words, others = text.split(), said.split()
    if near_copies.exact(near_copies.signature("", text), near_copies.signature("", said)):
        return False
    if not len(words) <= _LONGER * len(others) <= _LONGER**2 * len(words):
        return False
    if _held(text) != _held(said) or not near_copies.same_facts(text, said):
        return False
    return judge_turn(said, "customer", _FILTER).keep


def _held(text: str) -> list[str]:
    """Numbers and placeholders, as written."""
    return sorted(found.rstrip(".,;:!?") for found in _PLACEHOLDER.findall(text))


def _said_otherwise(turns: tuple[Turn, ...], say: Say, seed: int) -> tuple[Turn, ...]:
    """The turns with the question before the first target in a model's words; unchanged if those will not do."""
    first = next((at for at, turn in enumerate(turns) if turn.is_target), 0)
    if not first or turns[first - 1].role != "customer":
        return turns
    asked = turns[first - 1]
    said = say(asked.text, seed)
    if not same_meaning(asked.text, said):
        return turns
    return (*turns[: first - 1], msgspec.structs.replace(asked, text=said), *turns[first:])


def _of_page(turns: tuple[Turn, ...], config: AugmentConfig, rng: random.Random) -> tuple[Turn, ...]:
    """A chat of a page's pair, one in three in a hurry."""
    chat = asked.in_a_chat(turns, rng)
    if rng.random() * 3 >= 1:
        return chat
    return tuple(_with(turn, typing_noise(turn.text, config.typos, rng)) for turn in chat)


def _with(turn: Turn, text: str) -> Turn:
    """A customer's turn with another text; one that would be empty, and a reply, stays."""
    return msgspec.structs.replace(turn, text=text) if text and turn.role == "customer" else turn


def _changed(turns: Sequence[Turn], config: AugmentConfig, rng: random.Random) -> tuple[Turn, ...]:
    kind = rng.choice(("typos", "casing", "paraphrase", "truncate"))
    if kind == "truncate":
        return _truncated(turns, rng)
    change: dict[str, Callable[[str], str]] = {
        "typos": lambda text: typing_noise(text, config.typos, rng),
        "casing": lambda text: casing(text, rng),
        "paraphrase": lambda text: paraphrase(text, rng),
    }
    return tuple(_with(turn, change[kind](turn.text)) for turn in turns)


def _truncated(turns: Sequence[Turn], rng: random.Random) -> tuple[Turn, ...]:
    """Without some of the oldest turns; the turn before the first target always stays."""
    first = next((at for at, turn in enumerate(turns) if turn.is_target), 0)
    return tuple(turns[rng.randint(0, max(0, first - 1)) :])


def _copy(sample: Sample, turns: tuple[Turn, ...], number: int) -> Sample:
    event_id = sample.sample_id.rsplit("/", 2)[0]
    return msgspec.structs.replace(sample, sample_id=f"{event_id}/aug/{number}", turns=turns, pair=None)


def _outside(text: str, change: Callable[[str], str]) -> str:
    parts = _PLACEHOLDER.split(text)
    return "".join(part if at % 2 else change(part) for at, part in enumerate(parts))


def _slips(text: str, share: float, rng: random.Random) -> list[str]:
    letters = list(text)
    for at, letter in enumerate(letters):
        if letter.lower() not in _NEIGHBOURS or rng.random() >= share:
            continue
        kind = rng.choices(("neighbour", "lost", "swapped"), (4, 3, 3))[0]
        if kind == "neighbour":
            letters[at] = rng.choice(_NEIGHBOURS[letter.lower()])
        elif kind == "lost":
            letters[at] = ""
        elif at + 1 < len(letters) and letters[at + 1].isalpha():
            letters[at], letters[at + 1] = letters[at + 1], letter
    return letters
