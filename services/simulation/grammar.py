"""Dialogue grammars: text files of alternatives, read once, from which chats are drawn.

A grammar file names a shop and lists rules, intents and facts:

    %shop Alder Goods            who speaks
    = item                       a rule: one alternative a line
    - desk lamp
    == order_status              an intent: steps; lines of one step are alternatives
    c: where is (my|the) {item}?
    a: Let me look. <wait>
    c?: optional steps are skipped together
    a?: with the answer that follows them
    a+: a second message by the same speaker
    !! refund_days = 14 days -> 30 days       a fact: old and new value (or `7 days | 21 days`: drawn for each chat)
    c: how long can I return things?
    a: Within {value}.

In text, `(x|y|)` is a choice, `{slot}` a value that stays the same in one chat, `<rule>` a rule drawn afresh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from random import Random

from services.simulation.draw import pick

BASE = ("retail", "bank", "travel", "telecom", "software", "utilities", "delivery", "clinic", "rental", "tickets")
"""Shops whose wording the base model learns."""

LIVE = ("harbour", "tessera", "lumen")
"""Shops that only the live chats know: wording, products and policies are new to the base model."""

_TOKEN = re.compile(r"[(|)]|\{\w+\}|<\w+>|[^(|){<]+|.")
_FACT = re.compile(r"!! (\w+) = (.+)")


@dataclass(frozen=True)
class Slot:
    """A value that is drawn once in a chat."""

    name: str


@dataclass(frozen=True)
class Rule:
    """A reference to a rule that is drawn afresh."""

    name: str


Node = str | Slot | Rule | tuple["Sequence_", ...]
Sequence_ = tuple["Node", ...]


@dataclass(frozen=True)
class Step:
    """One message of a dialogue: who speaks, whether it may be left out, and its alternatives."""

    role: str
    optional: bool
    lines: tuple[Sequence_, ...]


@dataclass(frozen=True)
class Intent:
    """What a customer wants, as the steps of its dialogue."""

    name: str
    steps: tuple[Step, ...]
    values: tuple[str, ...] = ()
    """Of facts: the values that `{value}` takes; empty for other intents."""
    changes: bool = False
    """Whether the values are old and new (else one is drawn for each chat)."""


@dataclass(frozen=True)
class Shop:
    """One business: its name, its rules (own ones before the common ones), its intents and its facts."""

    key: str
    name: str
    rules: Mapping[str, tuple[Sequence_, ...]] = field(repr=False)
    intents: tuple[Intent, ...] = field(repr=False)
    facts: tuple[Intent, ...] = field(repr=False)

    def intent(self, name: str) -> Intent:
        """The intent or fact of this name. Raises KeyError."""
        for intent in self.intents + self.facts:
            if intent.name == name:
                return intent
        raise KeyError(f"{self.key} has no intent {name}")


@cache
def load(key: str) -> Shop:
    """The shop of a grammar file. Raises FileNotFoundError for an unknown key, ValueError for a bad file."""
    folder = files("services.simulation").joinpath("shops")
    common = _parse("common", folder.joinpath("common.txt").read_text())
    shop = _parse(key, folder.joinpath(f"{key}.txt").read_text())
    return Shop(key, shop.name, {**common.rules, **shop.rules}, shop.intents, shop.facts)


def compiled(text: str) -> Sequence_:
    """A line of a grammar as nodes. Raises ValueError when its brackets do not match."""
    words = _TOKEN.findall(text)
    nodes, rest = _sequence(words, 0)
    if rest != len(words):
        raise ValueError(f"unbalanced brackets in {text!r}")
    return nodes


def expand(nodes: Sequence_, rules: Mapping[str, tuple[Sequence_, ...]], rng: Random, out: list[str | Slot]) -> None:
    """Draw a line: append its literal parts and its slots to `out`."""
    for node in nodes:
        if isinstance(node, str | Slot):
            out.append(node)
            continue
        choices = rules[node.name] if isinstance(node, Rule) else node
        expand(pick(rng, choices), rules, rng, out)


def _sequence(words: list[str], at: int) -> tuple[Sequence_, int]:
    nodes: list[Node] = []
    while at < len(words) and words[at] not in "|)":
        word = words[at]
        if word == "(":
            node, at = _choice(words, at + 1)
            nodes.append(node)
        elif len(word) > 1 and word[0] in "{<":
            nodes.append(Slot(word[1:-1]) if word[0] == "{" else Rule(word[1:-1]))
        else:
            nodes.append(word)
        at += 1
    return tuple(nodes), at


def _choice(words: list[str], at: int) -> tuple[tuple[Sequence_, ...], int]:
    choices: list[Sequence_] = []
    while True:
        nodes, at = _sequence(words, at)
        choices.append(nodes)
        if at == len(words):
            raise ValueError(f"bracket is not closed in {''.join(words)!r}")
        if words[at] == ")":
            return tuple(choices), at
        at += 1


def _parse(key: str, text: str) -> Shop:
    name = key
    rules: dict[str, tuple[Sequence_, ...]] = {}
    intents: list[Intent] = []
    facts: list[Intent] = []
    for block in re.split(r"\n(?==|!!|%)", "\n" + text.strip()):
        head, *lines = [line for line in block.strip().split("\n") if line and not line.startswith("#")] or [""]
        if head.startswith("%shop "):
            name = head.removeprefix("%shop ")
        elif head.startswith("== "):
            intents.append(Intent(head[3:], _steps(lines)))
        elif head.startswith("= "):
            rules[head[2:]] = tuple(compiled(line.removeprefix("- ")) for line in lines)
        elif match := _FACT.fullmatch(head):
            changes = " -> " in match[2]
            values = tuple(v.strip() for v in match[2].split("->" if changes else "|"))
            facts.append(Intent(match[1], _steps(lines), values, changes))
        elif head:
            raise ValueError(f"{key}: cannot read {head!r}")
    return Shop(key, name, rules, tuple(intents), tuple(facts))


def _steps(lines: list[str]) -> tuple[Step, ...]:
    steps: list[tuple[str, list[Sequence_]]] = []
    for line in lines:
        mark, _, text = line.partition(": ")
        if mark.endswith("+") or not steps or steps[-1][0] != mark:
            steps.append((mark.removesuffix("+"), []))
        steps[-1][1].append(compiled(text))
    roles = {"c": "customer", "a": "agent"}
    return tuple(Step(roles[mark[0]], mark.endswith("?"), tuple(alternatives)) for mark, alternatives in steps)
