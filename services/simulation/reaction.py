"""How a simulated customer takes an answer: pleased when it fits what was asked, else not."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from services.simulation.dialogue import Conversation
from services.simulation.draw import chance, pick
from services.simulation.grammar import Intent, Rule, Sequence_, load
from services.simulation.policy import stated

KNOWN_SHARE = 0.5
"""Share of an answer's words that the shop's agents use; below it the answer is gibberish to its customer."""

ONE_STRANGE_IN = 8
"""Words nobody of the shop ever uses, names apart, spoil an answer: one in so many is forgiven."""


@dataclass(frozen=True)
class Truth:
    """What a good answer is about: a shop's intent, and for policies the value that holds."""

    shop: str
    intent: str
    value: str = ""

    @classmethod
    def of(cls, conversation: Conversation) -> Truth:
        """The truth of a simulated chat."""
        return cls(conversation.shop, conversation.intent, conversation.value)


@dataclass(frozen=True)
class Reaction:
    """What the customer does next: `rating` 0 or 1 (None: does not rate), `kind` (escalated), and the next turn."""

    fits: bool
    rating: int | None
    kind: str | None
    says: str

    def events(
        self, conversation_id: str, seq: int, answer_id: str, ts: str, rng: Random, *, edit: str = ""
    ) -> list[dict[str, Any]]:
        """The feedback as chat events, numbered from `seq`; `edit` is what an agent wrote instead, if one did."""
        common = {"type": "feedback", "conversation_id": conversation_id, "ts": ts, "answer_id": answer_id}
        found: list[dict[str, Any]] = []
        if self.rating is not None:
            found.append({**common, "rating": self.rating, "scale": [0, 1]})
        if self.kind is not None:
            found.append({**common, "kind": self.kind})
        if edit:
            found.append({**common, "corrected_text": edit})
        return [{**event, "event_id": event_id(rng), "seq": seq + i} for i, event in enumerate(found)]


def event_id(rng: Random) -> str:
    """A random id in the form of a UUID."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def reaction(question: str, answer: str, truth: Truth, rng: Random) -> Reaction:
    """The customer's reaction to an answer; four in a hundred are wrong about it, as people are."""
    fits = suits(question, answer, truth)
    pleased = fits if not chance(rng, 0.04) else not fits
    rules = load(truth.shop).rules
    says = _literal(rules["thanks" if pleased else "unhappy"], rng)
    rating = int(pleased) if chance(rng, 0.3 if pleased else 0.2) else None  # most do not rate
    kind = "escalated" if not pleased and rating is None and chance(rng, 0.2) else None  # customers who escalate
    return Reaction(fits, rating, kind, says)


def suits(question: str, answer: str, truth: Truth) -> bool:
    """Whether an answer can be read and is about what was asked: its words belong to no other intent more than to this.

    For a policy it must state the value that holds. Words of the question itself prove nothing and are left out.
    """
    words = set(_words(answer)) - set(_words(question))
    vocabulary = _vocabulary(truth.shop)
    if len(words - _spoken(truth.shop)) > len(_words(answer)) // ONE_STRANGE_IN:
        return False
    if truth.value:
        return stated(truth.value, answer)
    known = [word for word in words if any(word in own for own in vocabulary.values())]
    if not known or len(known) < KNOWN_SHARE * len(words):
        return False
    weights = _weights(truth.shop)
    scores = {name: sum(weights[w] for w in known if w in own) for name, own in vocabulary.items()}
    return scores[truth.intent] >= max(scores.values()) - 1e-9


@cache
def _vocabulary(shop: str) -> Mapping[str, frozenset[str]]:
    """Words that the agents of a shop use for each intent."""
    kinds = load(shop)
    return {intent.name: _agent_words(shop, intent) for intent in kinds.intents + kinds.facts}


@cache
def _spoken(shop: str) -> frozenset[str]:
    """Every word that agents or customers of a shop ever say, values of policies included."""
    kinds = load(shop)
    lines = [line for intent in kinds.intents + kinds.facts for step in intent.steps for line in step.lines]
    found = _collect(tuple(lines), kinds.rules)
    for rule in kinds.rules.values():
        found |= _collect(rule, kinds.rules)
    return frozenset(found.union(*(_words(value) for intent in kinds.facts for value in intent.values)))


@cache
def _weights(shop: str) -> Mapping[str, float]:
    """Inverse document frequency of each word over the intents of a shop."""
    vocabulary = _vocabulary(shop)
    counts = Counter(word for own in vocabulary.values() for word in own)
    return {word: math.log(1 + len(vocabulary) / n) - math.log(2) for word, n in counts.items()}


def _agent_words(shop: str, intent: Intent) -> frozenset[str]:
    rules = load(shop).rules
    shared = ("hello_agent", "anything_else", "bye", "handover", "thanks_agent")
    words: set[str] = set()
    for step in intent.steps:
        if step.role == "agent":
            words.update(_collect(step.lines, rules))
    for name in shared:
        words.update(_collect(rules.get(name, ()), rules))
    return frozenset(words)


def _collect(lines: tuple[Sequence_, ...], rules: Mapping[str, tuple[Sequence_, ...]]) -> set[str]:
    words: set[str] = set()
    for line in lines:
        for node in line:
            if isinstance(node, str):
                words.update(_words(node))
            elif isinstance(node, Rule):
                words.update(_collect(rules[node.name], rules))
            elif isinstance(node, tuple):
                words.update(_collect(node, rules))
    return words


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _literal(lines: tuple[Sequence_, ...], rng: Random) -> str:
    line = pick(rng, lines)
    return "".join(node for node in line if isinstance(node, str))
