"""The part of `driftline evaluate` that loads models."""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from learner.adapter import Base, Tree, load_adapter, load_base
from learner.evaluate import evaluate, generation, windows
from learner.heads import HeadConfig, Labelled, head_report
from learner.probes.fairness import fairness_gaps
from learner.registry import BASE, Gone
from learner.shape import base_folder
from learner.voice import TreeVoice
from services.chat_files import read_chats
from services.publishers import registry_of
from streams.events import Turn

if TYPE_CHECKING:
    from services.settings import Settings


TEST_EVERY = 5
"""One of so many labelled rows is kept for the test of a head."""


def report_on(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Read the chats, load the versions, measure. Raises RegistryError, OSError, ValueError."""
    chats = read_chats(args.data, args.format, scrubbed=args.scrub)[: args.limit]
    trees = trees_of(args, settings)
    subject = "adapter" if "adapter" in trees else BASE
    base = trees[BASE].base
    pieces = [piece for chat in chats for piece in windows(base.chat, chat, base.shape.context)]
    report = evaluate(trees, pieces, subject) | {"adapter": args.adapter, "data": args.data.name, "chats": len(chats)}
    if args.answers:
        report["answers"] = {name: generation(TreeVoice(tree), chats, args.answers) for name, tree in trees.items()}
    if args.fairness:
        report["fairness"] = {name: asdict(fairness_gaps(TreeVoice(tree))) for name, tree in trees.items()}
    if args.classify:
        rows = labelled_rows(args.classify, args.label)
        train = [one for at, one in enumerate(rows) if at % TEST_EVERY]
        report["heads"] = head_report(trees, train, rows[::TEST_EVERY], HeadConfig())
    return report


def labelled_rows(path: Path, label: str) -> list[Labelled]:
    """Customer turns with their class, shuffled by a fixed seed. Raises ValueError when no row has both."""
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rb") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    found = [
        Labelled((Turn(role="customer", text=row["text"]),), str(row[label]))
        for row in rows
        if row.get("text") and row.get(label) is not None
    ]
    if not found:
        raise ValueError(f"{path.name}: no row has text and {label!r}")
    random.Random(1).shuffle(found)
    return found


def trees_of(args: argparse.Namespace, settings: Settings) -> dict[str, Tree]:
    """The base, the adapter if one is named, and its parent where the store still has it."""
    torch.set_num_threads(settings.train.threads)
    base = load_base(args.base_model or base_folder(settings.train.base))
    trees = {BASE: Tree(base)}
    if args.adapter == BASE:
        return trees
    if Path(args.adapter).is_dir():
        return trees | {"adapter": load_adapter(base, Path(args.adapter))}
    return trees | _versions(base, args.adapter, settings)


def _versions(base: Base, version: str, settings: Settings) -> dict[str, Tree]:
    registry = registry_of(settings.registry, lambda: 0.0)
    trees = {}
    with TemporaryDirectory() as folder:
        trees["adapter"] = load_adapter(base, registry.fetch(version, Path(folder)))
        parent = registry.manifest(version).parent
        if parent != BASE:
            try:
                trees["parent"] = load_adapter(base, registry.fetch(parent, Path(folder)))
            except Gone:
                sys.stderr.write(f"driftline evaluate: parent {parent} is gone; compared with the base only\n")
    return trees
