"""`driftline base`: trains the demo's small base model again, from the simulator's conversations of other shops."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from learner.config import BaseConfig
from services.options import natural, positive
from services.preconditions import writable
from services.simulation.dialogue import base_conversations

if TYPE_CHECKING:
    from services.settings import Settings

SEED = 20
"""Of the shipped base's conversations; live traffic has seeds, shops and facts of its own."""

TOKENS_PER_CHAT = 70
"""What a generated chat has on average: as many are drawn as one pass over the training tokens needs."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("out", type=Path, help="folder to write: config.json, model.safetensors, tokenizer files")
    parser.add_argument("--tokens", type=positive, default=BaseConfig().tokens, help="training tokens")
    parser.add_argument("--seed", type=natural, default=SEED, help="seed of the conversations")


def run(args: argparse.Namespace, _settings: Settings) -> int:
    """Write the base; progress goes to the terminal. Returns 0. Raises SettingsError for an odd size or folder."""
    writable(args.out, "OUT")
    import torch  # noqa: PLC0415 - other commands must not pay for it

    from learner.base import train_base  # noqa: PLC0415 - loads torch

    torch.set_num_threads(1)
    config = replace(BaseConfig(), tokens=args.tokens)
    chats = [chat.turns for chat in base_conversations(args.seed, args.tokens // TOKENS_PER_CHAT)]

    def report(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0 or step == steps:
            print(f"\rstep {step}/{steps}  loss {loss:.3f}", end="", flush=True)  # noqa: T201 - a terminal command

    train_base(chats, args.out, config, report)
    print(f"\n{args.out}")  # noqa: T201 - as above
    return 0
