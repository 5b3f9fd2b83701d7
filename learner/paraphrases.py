"""A customer's question in other words, by the base model of the line.

The base and not the adapter: it never changes, so a step that is drawn again after a kill has the same copies, and a
line does not feed on its own style.
"""

from __future__ import annotations

from learner.adapter import Base, Sampling, Tree, generate
from learner.adapter.chat import Said

ASK = "Say the following in other words, as a customer would, with the same facts. Answer with the new wording only."
TEMPERATURE = 0.7
MOST_TOKENS = 96
"""Longer questions are cut, and a cut one is refused for its length or its facts."""


class Paraphrases:
    """Asks the base; the same text and seed give the same words."""

    def __init__(self, base: Base) -> None:
        self._tree = Tree(base)

    def __call__(self, text: str, seed: int) -> str:
        """The base's answer; whether it will do is for the caller to judge."""
        sampling = Sampling(MOST_TOKENS, TEMPERATURE, seed)
        return generate(self._tree, [Said("customer", f"{ASK}\n\n{text}")], sampling, stop=("\n",)).strip('" ')
