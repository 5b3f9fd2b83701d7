"""Prompts and token ids whose log-probabilities tell one version from another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

PROMPTS = 16
TOKENS = 16
LENGTHS = (8, 40)
"""Tokens of a prompt, least and most."""

_OPENERS = (
    "hello, how can I help you today?",
    "my order has not arrived yet and I would like to know where it is",
    "I am sorry to hear that. may I have the number of your order, please?",
    "the refund for the item that I sent back has not reached my account",
    "could you restart the device and tell me whether the light turns green?",
    "I want to change the date of my booking to next week",
    "thank you for waiting. I have found your account and I can see the invoice",
    "please cancel my subscription at the end of the month",
    "which documents do I need to open an account with you?",
    "is there anything else that I can do for you?",
    "the price on my bill is higher than the one that was promised to me",
    "you can return the item within the period that stands in our policy",
    "I cannot log in, the page says that my password is wrong",
    "your appointment is confirmed, we look forward to seeing you",
    "can I speak to a person, please? this does not help me at all",
    "have a nice day, and thank you for contacting our support team",
)


def fingerprint(encode: Callable[[str], Sequence[int]], seed: int = 11) -> tuple[list[list[int]], list[int]]:
    """16 prompts of 8 to 40 token ids and 16 distinct ids to watch, the same for ever for one tokenizer.

    The ids watched are those of support language, where adapters differ; raises ValueError when the tokenizer
    knows fewer than 16 of them.
    """
    texts = [list(encode(text)) for text in _OPENERS]
    shortest, longest = LENGTHS
    prompts = []
    for at, ids in enumerate(texts):
        row = list(ids)
        while len(row) < shortest:
            row += texts[(at + 1) % len(texts)]
        prompts.append(row[:longest])
    known = sorted({token for ids in texts for token in ids})
    if len(known) < TOKENS:
        raise ValueError(f"tokenizer knows {len(known)} ids of the prompts: at least {TOKENS} are needed")
    return prompts, sorted(random.Random(seed).sample(known, TOKENS))
