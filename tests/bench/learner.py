"""Tokens a second of one training step beside TRL and a PEFT loop: `driftline bench learner [--trl-python PYTHON]`.

Same base, chats, labels, rank and thread; rounds are interleaved; medians of processor time, over real tokens.
`--trl-python` is an interpreter of an environment with TRL (its requirements do not belong into ours).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from learner.adapter import load_base, new_lora
from learner.adapter.tree import MICRO_BATCH
from learner.allocator import keep_freed_memory
from learner.batch import Document
from learner.checkpoint import Checkpoint, Checkpoints
from learner.config import TrainConfig
from learner.update import new_trajectory, step
from services.simulation.dialogue import conversations
from tests.bench._course import SHIPPED, encoded
from tests.bench._heading import heading, table

PEERS = (
    ("TRL, checkpointing off", "trl", False),
    ("TRL, its defaults", "trl", True),
    ("PEFT + transformers loop", "peft", False),
)
WARM = 2


def main(argv: list[str]) -> int:
    """Print the table. Returns 0."""
    parser = argparse.ArgumentParser(prog="driftline bench learner", description=__doc__)
    parser.add_argument("--trl-python", default="", help="interpreter with TRL; without it the peers are left out")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--chats", type=int, default=24, help="chats a step")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the learner does
    steps = chosen(args.steps, args.chats)
    tokens = median(sum(len(document.ids) for document in documents) for documents in steps)
    found: dict[str, list[float]] = {"driftline": []}
    for _ in range(args.rounds):
        found["driftline"].append(median(ours(steps)))
        for name, peer, checkpointing in PEERS if args.trl_python else ():
            request = {"peer": peer, "checkpointing": checkpointing, "r": 8, "micro": MICRO_BATCH}
            found.setdefault(name, []).append(median(theirs(args.trl_python, steps, request)))
    own = median(found["driftline"])
    rows = [["step", "ms", "tokens/CPU-s", "driftline is"]]
    for name, seconds in found.items():
        middle = median(seconds)
        rows.append([name, f"{middle * 1000:.0f}", f"{tokens / middle:,.0f}", f"{middle / own:.2f} x"])
    sys.stdout.write(heading("learner", argv) + "\n" + table(rows) + "\n")
    sys.stdout.write(f"checkpoint and snapshot of one version: {copying() * 1000:.0f} ms of the loop's time\n")
    return 0


def chosen(steps: int, chats: int) -> list[list[Document]]:
    """Documents of each step, from simulated chats."""
    base = load_base(SHIPPED)
    found = list(conversations(11, (steps + WARM) * chats, personal=0.0))
    config = TrainConfig()
    return [
        [
            document
            for nth, chat in enumerate(found[at * chats : (at + 1) * chats])
            for document in encoded(base, chat.turns, "fresh", f"{nth:04x}", config)
        ]
        for at in range(steps + WARM)
    ]


def ours(steps: list[list[Document]]) -> list[float]:
    """Seconds of each of our steps, guards, clipping and optimiser included."""
    base = load_base(SHIPPED)
    config = TrainConfig(r=8, alpha=16, learning_rate=1e-2)
    trajectory = new_trajectory(new_lora(base.shape, 8, 16, torch.Generator()), base.shape.vocab, config)
    found = []
    for documents in steps:
        started = time.process_time()
        step(base, trajectory, documents)
        found.append(time.process_time() - started)
    return found[WARM:]


def theirs(python: str, steps: list[list[Document]], request: dict[str, Any]) -> list[float]:
    """Seconds of each of a peer's steps, in a process of its own."""
    rows = [[_row(document) for document in documents[: len(documents) // 8 * 8]] for documents in steps]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps({**request, "base": str(SHIPPED), "folder": folder, "batches": rows}))
        script = Path(__file__).with_name("_peers.py")
        done = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{request['peer']} failed:\n{done.stderr[-2000:]}")
    seconds: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds


def _row(document: Document) -> dict[str, list[int]]:
    labels = [-100] * len(document.ids)
    for reply in document.replies:
        labels[reply.start : reply.stop] = document.ids[reply.start : reply.stop]
    return {"input_ids": list(document.ids), "labels": labels}


def copying() -> float:
    """Seconds that the loop itself spends on one version: snapshot, mean of four, durable checkpoint."""
    base = load_base(SHIPPED)
    flat = new_lora(base.shape, 16, 32, torch.Generator()).flat
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), 3)
        started = time.perf_counter()
        ring = [flat.clone() for _ in range(4)]
        torch.stack(ring).mean(0)
        tensors = {name: flat.clone() for name in ("flat", "adam.exp_avg", "adam.exp_avg_sq")}
        checkpoints.save(Checkpoint(1, tensors | {f"ring.{n}": one for n, one in enumerate(ring)}, {}))
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
