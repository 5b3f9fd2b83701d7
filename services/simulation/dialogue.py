"""Support conversations drawn from the grammars: who says what, what was solved, which personal data fell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from services.simulation import people
from services.simulation.draw import chance, pick
from services.simulation.grammar import BASE, LIVE, Intent, Shop, Slot, Step, expand, load
from services.simulation.policy import Fact
from services.simulation.style import PLAIN, STYLES, Parts, Style, written

CUSTOMERS_SHARE = 0.7
"""Distinct customers as a share of conversations: some people write again."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A personal value in a turn: its kind (`card`, `email` ...) and how it is written there."""

    turn: int
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One chat with its ground truth."""

    conversation_id: str
    shop: str
    intent: str
    style: str
    turns: tuple[tuple[str, str], ...]
    """(role, text), role customer or agent."""
    resolved: bool
    planted: tuple[Planted, ...]
    customer: Mapping[str, str]
    """`id`, and for some `name` and `email`, as a platform knows its customer."""
    value: str = ""
    """Of a policy question: the value that held when it was answered."""


def conversations(
    seed: int,
    count: int,
    *,
    facts: Collection[Fact] | None = None,
    shops: Sequence[str] | None = None,
    fact_share: float = 0.3,
    news: float = 0.0,
    personal: float = 0.15,
) -> Iterator[Conversation]:
    """Chats of the live shops (or of `shops`), the same for the same arguments.

    `facts` are the policies whose new value holds by now; `fact_share` of the chats ask for a policy, `news` of those
    for one that has changed; `personal` is the chance that a customer's turn volunteers personal data.
    """
    changed = frozenset(fact.key for fact in facts or ())
    rng = Random(f"conversations/{seed}")
    kinds = [load(key) for key in shops or LIVE]
    pool = max(1, int(count * CUSTOMERS_SHARE))
    for number in range(count):
        shop = pick(rng, kinds)
        customer = _customer(seed, int(rng.random() * pool))
        scene = _Scene(shop, rng, changed, customer, personal=personal)
        yield scene.conversation(f"sim-{seed}-{number:06d}", fact_share, news)


def base_conversations(seed: int, count: int) -> Iterator[Conversation]:
    """Chats that the base model learns from: other shops, random policies, placeholders for personal data."""
    rng = Random(f"base/{seed}")
    kinds = [load(key) for key in BASE]
    for number in range(count):
        shop = pick(rng, kinds)
        scene = _Scene(shop, rng, frozenset(), {"id": f"cust-{number}"}, personal=0.03, masked=True)
        yield scene.conversation(f"base-{seed}-{number:06d}", fact_share=0.12)


def _customer(seed: int, number: int) -> dict[str, str]:
    rng = Random(f"customer/{seed}/{number}")
    who = people.name(rng)
    known = {"id": f"cust-{seed}-{number:05d}"}
    if chance(rng, 0.6):  # the share of customers that a platform knows by name
        known |= {"name": who, "email": people.email(rng, who)}
    return known


class _Scene:
    """One chat being written: its shop, its customer, and the values that its slots have taken."""

    def __init__(
        self, shop: Shop, rng: Random, changed: Collection[str], customer: Mapping[str, str], *,
        personal: float, masked: bool = False,
    ) -> None:  # fmt: skip
        self._shop = shop
        self._rng = rng
        self._changed = changed
        self._customer = customer
        self._personal = personal
        self._masked = masked
        self._values: dict[str, str] = {"shop": shop.name}
        self._turns: list[tuple[str, str]] = []
        self._planted: list[Planted] = []

    def conversation(self, conversation_id: str, fact_share: float, news: float = 0.0) -> Conversation:
        """Write the whole chat."""
        rng, shop = self._rng, self._shop
        asks = bool(shop.facts) and chance(rng, fact_share)
        intent = pick(rng, shop.facts if asks else shop.intents)
        changed = [fact for fact in shop.facts if f"{shop.key}.{fact.name}" in self._changed]
        if asks and changed and news and chance(rng, news):
            intent = pick(rng, changed)
        style = pick(rng, STYLES)
        if intent.values:
            self._values["value"] = self._value_of(intent)
        if chance(rng, 0.3):  # the share of chats that begin with greetings
            self._say("customer", self._rule("hello"), style)
            self._say("agent", self._rule("hello_agent"))
        self._steps(intent.steps, style)
        resolved = chance(rng, style.patience)
        self._end(style, resolved=resolved)
        return Conversation(
            conversation_id, shop.key, intent.name, style.name, tuple(self._turns), resolved,
            tuple(self._planted), self._customer, self._values.get("value", ""),
        )  # fmt: skip

    def _value_of(self, fact: Intent) -> str:
        if not fact.changes:
            return pick(self._rng, fact.values)
        old, new = fact.values
        return new if f"{self._shop.key}.{fact.name}" in self._changed else old

    def _steps(self, steps: Sequence[Step], style: Style) -> None:
        skipping = False
        opened = False
        for step in steps:
            if step.optional and step.role == "customer":
                skipping = chance(self._rng, 0.5)  # half of the asides are left out
            if step.optional and skipping:
                continue
            parts: Parts = []
            expand(pick(self._rng, step.lines), self._shop.rules, self._rng, parts)
            if step.role == "customer":
                parts = self._opening(parts, style) if not opened else parts
                opened = True
                if chance(self._rng, self._personal):
                    parts = [*parts, " ", *self._rule("volunteer")]
            self._say(step.role, parts, style if step.role == "customer" else PLAIN)

    def _opening(self, parts: Parts, style: Style) -> Parts:
        if style.before and not self._turns:
            parts = [*self._rule(style.before), ", ", *parts]
        return [*parts, " ", *self._rule(style.after)] if style.after else parts

    def _end(self, style: Style, *, resolved: bool) -> None:
        if not resolved:
            self._say("customer", self._rule("unhappy"), style)
            self._say("agent", self._rule("handover"))
            return
        self._say("customer", self._rule("thanks"), style)
        if chance(self._rng, 0.35):  # the share of agents that ask whether there is more
            self._say("agent", self._rule("anything_else"))
            self._say("customer", self._rule("no"), style)
        self._say("agent", self._rule("bye"))

    def _say(self, role: str, parts: Parts, style: Style = PLAIN) -> None:
        texts: list[str] = []
        for part in written(parts, style, self._rng):
            if isinstance(part, str):
                texts.append(part)
                continue
            value = self._fill(part)
            texts.append(value)
            if part.name in people.MAKERS and not self._masked:
                self._planted.append(Planted(len(self._turns), part.name, value))
        text = "".join(texts).strip()
        self._turns.append((role, text[:1].upper() + text[1:] if role == "agent" else text))

    def _fill(self, slot: Slot) -> str:
        value = self._values.get(slot.name)
        if value is None:
            value = self._values[slot.name] = self._draw(slot.name)
        return value

    def _draw(self, name: str) -> str:
        rng = self._rng
        if name in people.MAKERS:
            if self._masked:
                return f"<{people.LABELS[name]}_1>"
            return self._customer.get(name) or people.MAKERS[name](rng)
        if name in self._shop.rules:
            parts = self._rule(name)
            return "".join(part for part in parts if isinstance(part, str))
        return _number(name, rng)

    def _rule(self, name: str) -> Parts:
        parts: Parts = []
        expand(pick(self._rng, self._shop.rules[name]), self._shop.rules, self._rng, parts)
        return parts


def _number(name: str, rng: Random) -> str:
    """The value of a slot that holds a number. Raises KeyError for a slot that nothing fills."""
    ranges = {"n": (2, 9), "n2": (10, 60), "year": (2009, 2024)}
    if name in ranges:
        low, high = ranges[name]
        return str(low + int(rng.random() * (high - low + 1)))
    euros = {"amount": (40, 900), "amount2": (3, 39)}
    low, high = euros[name]
    whole = low + int(rng.random() * (high - low))
    return f"{whole} euros" if chance(rng, 0.6) else f"{whole}.{int(rng.random() * 10)}0 euros"
