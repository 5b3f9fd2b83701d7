"""`driftline bench augment --data DIR`: what augmented copies do to held-out loss where chats are few.

A few chats of one real domain (STAR) are read again and again, as rehearsal does, with copies and without; both arms
take the same chats in the same order, copies come on top within their share of tokens. Held-out loss is of other chats
of the domain, as they are and as a hurried customer types them (a fifth of the letters' slips that copies may have, all
in lower case); the difference is paired by chat, its interval a bootstrap, seeds together.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from learner.adapter import Base, Tree, load_base, new_lora, tree_of
from learner.batch import Drawn, documents
from learner.copies import Copies
from learner.measures import difference_interval
from learner.update import new_trajectory, step
from streams.augment import MOST_TYPOS, AugmentConfig, typing_noise
from streams.events import Sample, Turn
from tests.bench._course import DEMO, SHIPPED, Chat, Held, losses_on, real
from tests.bench._heading import heading, table

BATCH = 6
"""Chats of a step."""


def sample_of(chat: Chat, key: str) -> Sample:
    """A chat as a sample of the train split whose replies are learned."""
    turns = tuple(Turn(role=role, text=text, is_target=role == "agent") for role, text in chat)  # type: ignore[arg-type]
    return Sample(
        sample_id=f"{key}/sft/0", conversation=key, customer=key, lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0,
    )  # fmt: skip


def trained(base: Base, samples: dict[str, Sample], how: AugmentConfig, steps: int, seed: int) -> Tree:
    """The line after so many steps over the samples, with copies as configured."""
    rng, copies = random.Random(seed), Copies(base.chat, DEMO, how)
    lora = new_lora(base.shape, DEMO.r, DEMO.alpha, torch.Generator().manual_seed(seed))
    trajectory = new_trajectory(lora, base.shape.vocab, DEMO)
    for number in range(steps):
        taken = {key: samples[key] for key in rng.sample(sorted(samples), BATCH)}
        chosen = [
            document
            for key, sample in taken.items()
            for document in documents(base.chat, sample, Drawn("rehearsal", key, lane="chat", customer=key), DEMO)
        ]
        step(base, trajectory, [*chosen, *copies.of(taken, chosen, seed, number)])
    return tree_of(base, trajectory.lora)


def hurried(chat: Chat, rng: random.Random) -> Chat:
    """The chat as a customer types it who does not look: slips and no capitals."""
    return [
        (role, typing_noise(text.lower(), MOST_TYPOS / 5, rng) if role == "customer" else text) for role, text in chat
    ]


def row(name: str, arms: Sequence[Sequence[Held]]) -> list[str]:
    """Mean loss of both arms and the paired difference."""
    tokens = [float(count) for _, count in arms[0]]
    losses = [[loss for loss, _ in arm] for arm in arms]
    gain = difference_interval(losses[1], losses[0], tokens)
    means = [f"{sum(one) / sum(tokens):.3f}" for one in losses]
    return [name, *means, f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"]


def main(argv: list[str]) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--chats", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    domain = real(args.data, 1, args.chats)[0]
    base = load_base(SHIPPED)
    samples = {f"{at:06x}": sample_of(chat, f"{at:06x}") for at, chat in enumerate(domain.train)}
    rows = [["held-out loss, nats a reply token", "without", "with copies", "difference (95 %)"]]
    plain: list[list[Held]] = [[], []]
    noisy: list[list[Held]] = [[], []]
    rng = random.Random(0)
    typed = [hurried(chat, rng) for chat in domain.test]
    for seed in range(args.seeds):
        for at, how in enumerate((AugmentConfig(), AugmentConfig(copies=2))):
            tree = trained(base, samples, how, args.steps, seed)
            plain[at] += losses_on(tree, domain.test)
            noisy[at] += losses_on(tree, typed)
    told = f"{args.chats} chats, {args.steps} steps"
    rows += [row(f"{told}: as written", plain), row(f"{told}: typed in a hurry", noisy)]
    sys.stdout.write(f"{heading('augment', argv)}   domain {domain.name}\n{table(rows)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
