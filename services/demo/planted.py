"""What the demo plants to be caught: an unchanged candidate, a damaged adapter, one that is worse with customers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from confluent_kafka import Producer
from safetensors.torch import load_file, save_file

from learner.account import LineAccount
from learner.adapter import Base, Lora, load_base
from learner.anchors import Gauge, load_anchors
from learner.batch import Drawn, documents
from learner.gate import Account, Decision
from learner.heldout import HeldOut
from learner.publish import Identity, Judge, Versions
from learner.registry import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Facts,
    Registry,
    base_identity,
    file_sha256,
    load_signer,
)
from learner.registry.manifest import File
from learner.shape import base_folder
from learner.train import BASE, Candidate
from learner.update import new_trajectory, step
from services.publishers import trusted
from services.rollout_records import VersionRecord, encode
from services.stored import Stored
from services.topic_feed import producer_settings
from streams.events import Sample
from streams.replay import open_tables
from streams.scrub.identity import ledger_key
from streams.topics import VERSIONS

if TYPE_CHECKING:
    from learner.adapter import Tree
    from services.local.stack import Stack
    from services.settings import Settings

SHUFFLED_STEPS = 30
SHUFFLED_BATCH = 10


class Careless(Registry):
    """A registry that publishes without looking, as a saboteur with the signing key would."""

    def _inspect(self, entries: list[File], facts: Facts) -> dict[str, Any]:
        """Claim the parent's figures for whatever the file holds."""
        del entries
        claimed: dict[str, Any] = msgspec.to_builtins(self.manifest(facts.parent).tensors)
        return claimed


class Ungated(Judge):
    """A judge that promotes without looking: the demo puts its own regression past the gate."""

    def _decide(self, tree: Tree, held: HeldOut, stable: str, version: str) -> Decision:
        """Promote."""
        del tree, held, stable, version
        return Decision("promote", (), Account())


class Aside(LineAccount):
    """The line's account as it stands, for a decision that must not be booked to the learner."""

    def save(self, account: Account, epoch: int) -> None:
        """Store nothing."""


@dataclass(frozen=True)
class Planted:
    """A version that the demo put into the store, and when it said so, seconds of the monotonic clock."""

    version: str
    at: float


class Planter:
    """Everything that offering a version takes, beside the learner."""

    def __init__(self, stack: Stack, settings: Settings) -> None:
        torch.set_num_threads(1)
        self._settings = settings
        self._directory = stack.directory / "planter"
        self._redis = stack.redis()
        folder = base_folder(settings.train.base)
        self._base: Base = load_base(folder)
        self._foundation = base_identity(folder, folder.name)
        self._registry = self._open(Registry)
        self._versions = Versions(
            self._base, self._foundation, self._registry, trusted(settings.registry), self._directory / "versions"
        )
        key = ledger_key(settings.keys.keys())
        tables = open_tables(self._redis, settings.replay, key, settings.kafka.epoch)
        self._stored = Stored(tables, settings.train.line, key, lambda _sample: False)
        self._producer = Producer(producer_settings(settings.kafka.asked_once("planter")))
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="regression")
        self._regression: Future[Lora]

    def offer_unchanged(self, stable: str) -> Decision:
        """The real gate's decision about stable's own bytes, offered as a candidate."""
        return self._judge(Judge, Aside(self._redis, self._settings.train.line)).reconsider(stable, stable)

    def publish_damaged(self, stable: str) -> Planted:
        """Publish stable's weights with one tensor of NaN, signed with the right key."""
        manifest = self._registry.manifest(stable)
        with tempfile.TemporaryDirectory() as folder:
            source = self._registry.fetch(stable, Path(folder))
            weights = load_file(source / WEIGHTS_FILE)
            name = min(weights)
            weights[name] = torch.full_like(weights[name], float("nan"))
            save_file(weights, source / WEIGHTS_FILE, metadata={"format": "pt"})
            facts = Facts(
                line=manifest.line, parent=stable, base=manifest.base, base_config=self._foundation.config,
                lora=manifest.lora, probe=manifest.probe, training=self._now(manifest.training),
                eval=msgspec.structs.replace(manifest.eval, gated_against=stable),
                weights_sha256=file_sha256(source / WEIGHTS_FILE),
            )  # fmt: skip
            files = {name: source / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
            version = self._open(Careless).publish(files, facts)
        return self._announce(version, stable)

    def prepare_regression(self, start: str, seed: int) -> None:
        """Begin to train a version on replies shuffled between conversations, beside everything else."""
        self._regression = self._aside.submit(self._shuffled, start, seed)

    def publish_regression(self, stable: str) -> Planted:
        """Publish what was prepared. Raises ValueError when its training failed."""
        lora = self._regression.result()
        now = self._wall()
        candidate = Candidate(lora, self._settings.train.line, 0, (0, SHUFFLED_STEPS), stable, now, now, {}, 0)
        account = Aside(self._redis, self._settings.train.line)
        judged = self._judge(Ungated, account).consider(candidate, stable)
        assert judged.version is not None
        return self._announce(judged.version, stable)

    def _shuffled(self, stable: str, seed: int) -> Lora:
        config = replace(
            self._settings.train, learning_rate=0.012, warmup_steps=1, quarantine_nats=100.0, spike_factor=1e9
        )
        samples = shuffled([s for s in self._stored.train() if s.pair is None], seed)
        lora = self._versions.lora(stable) if stable != BASE else None
        if lora is None:
            raise ValueError("a regression needs a stable version to start from")
        trajectory = new_trajectory(lora, self._base.shape.vocab, config)
        draw = Random(seed)
        for _ in range(SHUFFLED_STEPS):
            chosen = draw.sample(samples, min(SHUFFLED_BATCH, len(samples)))
            made = [
                document
                for number, sample in enumerate(chosen)
                for document in documents(self._base.chat, sample, Drawn("rehearsal", str(number)), config)
            ]
            step(self._base, trajectory, made)
        return trajectory.lora.with_flat(trajectory.lora.flat.detach())

    def _judge(self, kind: type[Judge], account: LineAccount) -> Judge:
        settings = self._settings
        directory = Path(settings.train.directory)
        # what is past the gate anyway needs no probes and no report
        config = replace(settings.publish, prompts=0, secrets=0, heldout=1) if kind is Ungated else settings.publish
        anchors = load_anchors(self._base, settings.train.anchors, settings.train.anchor_tokens, directory)
        return kind(
            self._base, self._versions, account, self._stored, Gauge(self._base, anchors.gauge),
            identity=Identity(self._epoch(), "demo", 0), config=config, limits=settings.gate,
            sets=settings.heldout, clock=self._wall, directory=self._directory / "candidates",
        )  # fmt: skip

    def _open(self, kind: type[Registry]) -> Registry:
        config = self._settings.registry
        return kind(config.directory, trusted(config), self._wall, signer=load_signer(config.key))

    def _announce(self, version: str, stable: str) -> Planted:
        manifest = self._registry.manifest(version)
        record = VersionRecord(
            id=version, digest=manifest.digest, parent=stable, size=sum(file.size for file in manifest.files),
            fresh_from=self._wall(), fresh_to=self._wall(), epoch=self._epoch(), decision="promote",
            gated_against=stable,
        )  # fmt: skip
        self._producer.produce(VERSIONS, key=version.encode(), value=encode(record))
        self._producer.flush(5)
        return Planted(version, time.monotonic())

    def _epoch(self) -> int:
        return int(self._redis.hget(f"{{line:{self._settings.train.line}}}", "epoch") or 0)

    def _now(self, training: Any) -> Any:
        return msgspec.structs.replace(training, fresh_from=self._wall(), fresh_to=self._wall(), epoch=self._epoch())

    @staticmethod
    def _wall() -> float:
        return time.clock_gettime(time.CLOCK_REALTIME)


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The same samples with every target's text taken from another conversation."""
    texts = [turn.text for sample in samples for turn in sample.turns if turn.is_target]
    Random(seed).shuffle(texts)
    source = iter(texts)

    def turns(sample: Sample) -> tuple[Any, ...]:
        return tuple(
            msgspec.structs.replace(turn, text=next(source), weight=1.0, label="unknown") if turn.is_target else turn
            for turn in sample.turns
        )

    return [msgspec.structs.replace(sample, turns=turns(sample)) for sample in samples]


def refusals(nodes: Mapping[str, Any], version: str) -> dict[str, str]:
    """Node -> reason of those that quarantined a version."""
    return {
        name: record.versions[version].reason
        for name, record in nodes.items()
        if version in record.versions and record.versions[version].reason
    }
