"""Policies as facts that change: how customers ask for them, and which value an answer states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from services.simulation.draw import pick
from services.simulation.grammar import LIVE, Slot, expand, load


@dataclass(frozen=True)
class Fact:
    """One policy of one shop, with the value that held and the one that comes."""

    shop: str
    name: str
    old: str
    new: str

    @property
    def key(self) -> str:
        """`shop.name`."""
        return f"{self.shop}.{self.name}"

    def question(self, rng: Random) -> str:
        """One of the ways in which customers ask for it."""
        return self._line(0, rng, "")

    def answer(self, rng: Random, *, changed: bool) -> str:
        """What an agent says while the old or the new value holds."""
        return self._line(1, rng, self.new if changed else self.old)

    def questions(self, count: int = 6) -> list[str]:
        """Up to `count` distinct ways of asking, always the same ones."""
        rng = Random(self.key)
        return sorted({self.question(rng) for _ in range(8 * count)})[:count]

    def states(self, answer: str) -> str | None:
        """`old` or `new`, whichever value the answer states; None when it states neither or both."""
        old, new = (stated(value, answer) for value in (self.old, self.new))
        return None if old == new else "old" if old else "new"

    def _line(self, step: int, rng: Random, value: str) -> str:
        shop = load(self.shop)
        lines = shop.intent(self.name).steps[step].lines
        parts: list[str | Slot] = []
        expand(pick(rng, lines), shop.rules, rng, parts)
        return "".join(part if isinstance(part, str) else self._slot(part, rng, value) for part in parts)

    def _slot(self, slot: Slot, rng: Random, value: str) -> str:
        if slot.name == "value":
            return value
        rules = load(self.shop).rules
        parts: list[str | Slot] = []
        # Slots without a rule are amounts; any will do in a question.
        expand(rules.get(slot.name, (("900 euros",),))[0], rules, rng, parts)
        return "".join(part for part in parts if isinstance(part, str))


def facts(shops: Sequence[str] = LIVE) -> tuple[Fact, ...]:
    """The policies of these shops that can change."""
    return tuple(
        Fact(key, intent.name, intent.values[0], intent.values[1])
        for key in shops
        for intent in load(key).facts
        if intent.changes
    )


def stated(value: str, answer: str) -> bool:
    """Whether an answer states a value such as `14 days`, whatever the casing, spacing or hyphen."""
    number, _, unit = value.partition(" ")
    stem = re.escape(unit.removesuffix("s"))
    pattern = rf"(?<![\w.,]){re.escape(number)}[\s-]*{stem}s?(?!\w)"
    return re.search(pattern, answer, re.IGNORECASE) is not None
