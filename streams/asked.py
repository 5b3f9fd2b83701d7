"""The question of a FAQ or a document as customers would put it in a chat: a small grammar, no model.

A page asks once and in full; customers greet, hedge, turn the question round and leave out its end. What the grammar
does not know is dressed, or only written down in a hurry where it is not even a question in English. Numbers, names and
placeholders stay as they are, and the reply is not touched.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from streams.events import Turn

LANES = frozenset({"faq", "documents"})
"""Lanes of the replay buffer whose questions nobody asked in a chat."""

_TURNED: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), others)
    for pattern, others in (
        (
            r"what (?:can you tell me|else should i know) about (?P<x>.+)",
            ("I would like to know more about {x}.", "Do you have information on {x}?", "Tell me about {x} please.",
             "I have a question about {x}."),
        ),
        (
            r"how (?:do|can|should|would|could) (?:i|we) (?P<x>.+)",
            ("I want to {x}, how does that work?", "Could you tell me how to {x}?", "What do I have to do to {x}?",
             "Is there a way to {x}?", "I am trying to {x}."),
        ),
        (
            r"(?:can|may|could) (?:i|we) (?P<x>.+)",
            ("Is it possible to {x}?", "Am I able to {x}?", "I would like to {x}, is that possible?"),
        ),
        (
            r"(?P<a>do|does|did) (?P<who>you|i|we|they) (?P<x>.+)",
            ("I would like to know if {who} {x}.", "Could you tell me whether {who} {x}?"),
        ),
        (
            r"(?P<w>what|where|when|who|which|why|how (?:long|much|many|often|far|soon)) (?P<is>is|are|was) (?P<x>.+)",
            ("Could you tell me {w} {x} {is}?", "I would like to know {w} {x} {is}."),
        ),
        (
            r"(?P<is>is|are) (?P<the>the|my|your|there|it|this|that) (?P<x>.+)",
            ("Quick question: {is} {the} {x}?", "Just to be sure, {is} {the} {x}?"),
        ),
    )
)  # fmt: skip
"""What a question begins with -> other ways to put it."""

_SHORT = 4
"""Words of a part that may stand before its verb: "what the fee is", but not a whole clause."""

_DRESSED: tuple[Callable[[str], str], ...] = (
    lambda q: f"Hi, {_lower(q)}", lambda q: f"Hello! {q}", lambda q: f"Quick question: {_lower(q)}",
    lambda q: f"{q} I could not find it on your page.", lambda q: f"I was wondering, {_lower(q)}",
    lambda q: _lower(q).rstrip("?"), lambda q: f"{q} Thanks!", lambda q: f"Sorry to bother you, {_lower(q)}",
)  # fmt: skip
_OPENED = (("Hi", "Hello, how can I help you?"), ("Hello there", "Hi, what can I do for you?"),
           ("Good morning", "Good morning, how may I help?"))  # fmt: skip


def in_a_chat(turns: tuple[Turn, ...], rng: random.Random) -> tuple[Turn, ...]:
    """The pair of a page as a chat: the question put otherwise, now and then behind a greeting and its answer."""
    first = next((at for at, turn in enumerate(turns) if turn.is_target), 0)
    asked = tuple(
        Turn(role="customer", text=otherwise(turn.text, rng)) if turn.role == "customer" else turn
        for turn in turns[:first]
    )
    opened, answered = rng.choice(_OPENED)
    greeting = (Turn(role="customer", text=opened), Turn(role="agent", text=answered)) if rng.random() < 1 / 3 else ()
    return (*greeting, *asked, *turns[first:])


def otherwise(question: str, rng: random.Random) -> str:
    """The question turned round where the grammar knows how, else dressed; one without words stays."""
    bare = question.strip().rstrip("?").strip()
    if not bare:
        return question
    if bare.split(" ", 1)[0].lower() not in _FIRST:
        return rng.choice((bare, bare.lower() if "<" not in bare else bare, question))
    turned = _turned(bare) if "?" not in bare else []
    return rng.choice(turned) if turned and rng.random() < 2 / 3 else rng.choice(_DRESSED)(question.strip())


def _turned(bare: str) -> list[str]:
    for pattern, others in _TURNED:
        found = pattern.fullmatch(bare)
        if found is not None and ("is" not in found.groupdict() or len(found["x"].split()) <= _SHORT):
            parts = {name: part if name == "x" else part.lower() for name, part in found.groupdict().items()}
            return [other.format(**parts) for other in others]
    return []


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


_FIRST = frozenset(
    ["what", "where", "when", "who", "which", "why", "how", "can", "may", "could", "do", "does", "did", "is", "are",
     "was", "will", "should", "would", "has", "have", "must"]
)  # fmt: skip
