"""From candidate to version: what is judged is what is shipped.

The files are written, read back, scored, and given to the gate; the account is stored before the decision is acted
on; a promoted candidate is committed to the registry from those very bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from learner.account import LineAccount
from learner.adapter import Base, Lora, Score, Tree, adapter_files, load_adapter, logprobs, read_lora, score
from learner.adapter.lora import settings_of
from learner.anchors import Gauge
from learner.config import PublishConfig
from learner.gate import Decision, GateLimits, Paired, Scores, decide
from learner.gate import Gauge as GaugeReading
from learner.heldout import HeldOut, SetLimits, choose, counted, human_targets
from learner.probes import Material, Readings, compare, fingerprint, measure, rare_values
from learner.registry import (
    WEIGHTS_FILE,
    Eval,
    Facts,
    Foundation,
    Probe,
    Registry,
    Training,
    Trust,
    file_sha256,
    verify,
)
from learner.train import BASE, Candidate
from learner.voice import TreeVoice
from streams.events import Sample, Turn

PINNED_S = 7 * 86_400.0
"""Age up to which a promoted version may be the pinned one, seconds."""

TREES = 4
"""Versions kept in memory beside the base, and published ones of which everything measured is kept."""


class Examples(Protocol):
    """The evaluation side of the replay buffer."""

    def val(self) -> list[Sample]:
        """Stored validation samples: the gate's alone."""

    def golden(self) -> list[Sample]:
        """Curated samples that no version may get worse on."""

    def test(self) -> list[Sample]:
        """Stored test samples, newest last: for reports."""

    def train(self) -> list[Sample]:
        """Some samples that were trained on, for the memorisation probe."""


@dataclass(frozen=True)
class Identity:
    """Who publishes: constants of a run."""

    epoch: int
    """Of the line's owner; an older owner cannot publish."""
    commit: str
    seed: int


@dataclass(frozen=True)
class Held:
    """Loss on test conversations."""

    examples: int
    nll: float
    """Of the version, nats a reply token; 0 without examples."""
    base_nll: float


@dataclass(frozen=True)
class Judged:
    """What became of a candidate."""

    candidate: Candidate
    decision: Decision
    gated_against: str
    version: str | None
    """Its id if it was published."""
    digest: str
    size: int
    seconds: float
    report: Callable[[], Held] = field(repr=False)
    """Scores it on test conversations: of no use to the decision, so the version goes out first."""
    stable_kl: float | None = None
    """KL(base || stable) on the gauge's anchors, nats; None if nothing was scored."""

    @cached_property
    def heldout(self) -> Held:
        """What is told of it."""
        return self.report()


class Versions:
    """Published weights and trees of the fleet's base, fetched and verified once."""

    def __init__(self, base: Base, foundation: Foundation, registry: Registry, trust: Trust, directory: Path) -> None:
        self._base = base
        self.foundation = foundation
        self.registry = registry
        self._trust = trust
        self._directory = directory
        self._trees: dict[str, Tree] = {}

    def lora(self, version: str) -> Lora:
        """The verified weights of a version. Raises RegistryError."""
        folder = self._directory / version
        if not folder.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            self.registry.fetch(version, self._directory)
        verify(folder, self._trust, self.foundation)
        return read_lora(self._base.shape, folder, self._base.device)

    def tree(self, version: str) -> Tree:
        """The tree of a version, or of the base. Raises RegistryError."""
        if version == BASE:
            return Tree(self._base)
        if version not in self._trees:
            lora = self.lora(version)
            while len(self._trees) >= TREES:
                self._trees.pop(next(iter(self._trees)))
            self._trees[version] = Tree(self._base, lora.layers(self._base.dtype), lora)
        return self._trees[version]


class Judge:
    """Judges one line's candidates; runs in the worker's thread alone."""

    def __init__(
        self, base: Base, versions: Versions, account: LineAccount, examples: Examples, gauge: Gauge, *,
        identity: Identity, config: PublishConfig, limits: GateLimits, sets: SetLimits,
        clock: Callable[[], float], directory: Path,
    ) -> None:  # fmt: skip
        self._base = base
        self._foundation = versions.foundation
        self._registry = versions.registry
        self._versions = versions
        self._account = account
        self._examples = examples
        self._gauge = gauge
        self._identity = identity
        self._config = config
        self._limits = limits
        self._sets = sets
        self._clock = clock
        self._directory = directory
        self._uses: dict[str, int] = {}
        self._known: dict[tuple[str, str], Score] = {}
        self._readings: dict[str, Readings] = {}
        self._gauges: dict[str, float] = {}
        self._published: deque[str] = deque(maxlen=TREES)

    def consider(self, candidate: Candidate, stable: str) -> Judged:
        """Decide about a candidate, publish it if it is promoted. Raises RegistryError, redis.RedisError, OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._directory, prefix="candidate-"))
        try:
            return self._consider(candidate, stable, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def reconsider(self, version: str, stable: str) -> Decision:
        """Gate a published version again because stable changed; it keeps its id."""
        self._prune(stable, version)
        held = choose(self._examples.val(), self._uses, self._sets)
        return self._decide(self._versions.tree(version), held, stable, version)

    def forget(self) -> None:
        """Drop cached scores and readings: an erased customer's chats are among them."""
        stored = {sample.sample_id for sample in self._examples.val()}
        self._known, self._readings = {}, {}
        self._uses = {name: count for name, count in self._uses.items() if name in stored}

    def promoted(self, version: str) -> None:
        """Rollout made a version stable: it may be pinned from now on. Raises redis.RedisError."""
        self._account.promoted(version, self._clock())

    def _consider(self, candidate: Candidate, stable: str, folder: Path) -> Judged:
        started = self._clock()
        self._prune(stable, candidate.parent)
        paths = adapter_files(candidate.lora, self._base.name, folder)
        tree = load_adapter(self._base, folder)
        held = choose(self._examples.val(), self._uses, self._sets)
        decision = self._decide(tree, held, stable, candidate.name)
        version, digest = None, ""
        if decision.verdict == "promote":
            evaluated = self._evaluated(candidate, tree, held, decision, stable)
            facts = self._facts(candidate, tree, evaluated, file_sha256(paths[WEIGHTS_FILE]))
            owned = self._account.owned
            version = self._registry.publish(paths, facts, lambda: owned(self._identity.epoch))
            digest = self._registry.manifest(version).digest
            self._keep(candidate.name, version)
        size = sum(path.stat().st_size for path in paths.values())
        seconds = self._clock() - started
        known, report = self._gauges.get(stable), lambda: self._heldout(tree)
        return Judged(candidate, decision, stable, version, digest, size, seconds, report, known)

    def _decide(self, tree: Tree, held: HeldOut, stable: str, version: str) -> Decision:
        if len(held.recent) < self._limits.recent_min:  # no look is taken: nothing is worth scoring
            return decide(Scores(Paired()), self._account.load(), self._limits)
        golden = [wanted for sample in self._examples.golden() if (wanted := human_targets(sample)) is not None]
        samples = [*held.everything, *golden]
        new = self._losses(tree, version, samples)
        old = self._losses(self._versions.tree(stable), stable, samples)

        def paired(chosen: Sequence[Sample], reference: Mapping[str, Score]) -> Paired:
            ids = [sample.sample_id for sample in chosen]
            return Paired(tuple(reference[i].loss for i in ids), tuple(new[i].loss for i in ids))

        pinned: dict[str, Paired] = {}
        best = self._pinned(stable)
        if best is not None:
            known = self._losses(self._versions.tree(best), best, samples)
            pinned = {topic: paired(chosen, known) for topic, chosen in held.slices.items()}
        scores = Scores(
            recent=paired(held.recent, old),
            slices={topic: paired(chosen, old) for topic, chosen in held.slices.items()},
            golden=paired(golden, old) if golden else None,
            pinned=pinned,
            gauge=GaugeReading(self._gauge_of(version, tree), self._gauge_of(stable, self._versions.tree(stable))),
            sanity=(),
        )
        account = self._account.load()
        decision = decide(scores, account, self._limits)
        if decision.verdict == "promote":  # probes cost more than all scores: only what would be promoted is asked
            decision = decide(replace(scores, probes=self._probed(tree, held, stable, version)), account, self._limits)
        self._account.save(decision.account, self._identity.epoch)
        if decision.account.decisions > account.decisions:
            self._uses = counted(self._uses, held)
        return decision

    def _losses(self, tree: Tree, version: str, samples: Iterable[Sample]) -> dict[str, Score]:
        """Score by sample id; scores of published versions are kept."""
        wanted = list(samples)
        missing = [s for s in wanted if not version or (version, s.sample_id) not in self._known]
        found = dict(zip((s.sample_id for s in missing), score(tree, [s.turns for s in missing]), strict=True))
        if version:
            self._known |= {(version, name): result for name, result in found.items()}
            return {s.sample_id: self._known[version, s.sample_id] for s in wanted}
        return found

    def _nll(self, tree: Tree, version: str, samples: Sequence[Sample]) -> float:
        scores = self._losses(tree, version, samples).values()
        tokens = sum(one.tokens for one in scores)
        return sum(one.loss * one.tokens for one in scores) / tokens if tokens else 0.0

    def _heldout(self, tree: Tree) -> Held:
        found = [wanted for sample in self._examples.test() if (wanted := human_targets(sample)) is not None]
        chosen = found[-self._config.heldout :]
        return Held(len(chosen), self._nll(tree, "", chosen), self._nll(Tree(self._base), BASE, chosen))

    def _probed(self, tree: Tree, held: HeldOut, stable: str, version: str) -> dict[str, tuple[str, ...]]:
        """Findings by probe; a version that was published is not asked again, neither as candidate nor as stable."""
        config = self._config
        if not config.prompts and not config.secrets and not config.fairness:
            return {}
        seen = rare_values(self._examples.train(), config.secrets) if config.secrets else []
        never = rare_values(held.everything, config.secrets) if config.secrets else []
        answered = answered_by_people(held.recent)[: config.prompts] if stable == BASE else []
        material = Material(config.prompts, tuple(answered), tuple(seen), tuple(never), config.fairness)
        if version not in self._readings:
            self._readings[version] = measure(TreeVoice(tree, config.answer_tokens), material)
        if stable not in self._readings:
            voice = TreeVoice(self._versions.tree(stable), config.answer_tokens)
            self._readings[stable] = measure(voice, replace(material, answered=(), secrets=(), never_seen=()))
        readings = self._readings[version]
        if not material.answered:  # people are the reference only before the first promotion
            readings = replace(readings, style=None)
        return compare(readings, self._readings[stable], material)

    def _gauge_of(self, version: str, tree: Tree) -> float:
        if version not in self._gauges:
            self._gauges[version] = self._gauge.of(tree)
        return self._gauges[version]

    def _pinned(self, stable: str) -> str | None:
        """The best version promoted in the last seven days; None if it is stable itself or there is none."""
        registry = self._registry
        known = self._account.promotions(self._clock() - PINNED_S)
        there = [version for version in known if registry.gone(version) is None]
        best = min(there, key=lambda version: (registry.manifest(version).eval.nll_per_token, version), default=None)
        return None if best == stable else best

    def _keep(self, candidate: str, version: str) -> None:
        """What was measured of a candidate is known of the version that it became."""
        self._published.append(version)
        self._known |= {(version, name): found for (of, name), found in self._known.items() if of == candidate}
        if candidate in self._gauges:
            self._gauges[version] = self._gauges[candidate]
        if candidate in self._readings:
            self._readings[version] = self._readings[candidate]

    def _prune(self, stable: str, also: str) -> None:
        """Forget the scores and readings of versions that nothing is compared with any more."""
        kept = {BASE, stable, also, self._pinned(stable), *self._published}
        self._known = {key: value for key, value in self._known.items() if key[0] in kept}
        self._readings = {name: value for name, value in self._readings.items() if name in kept}
        self._gauges = {name: value for name, value in self._gauges.items() if name in kept}

    def _evaluated(self, candidate: Candidate, tree: Tree, held: HeldOut, decision: Decision, stable: str) -> Eval:
        samples = held.everything
        return Eval(
            set_digest=held.digest,
            examples=len(samples),
            nll_per_token=self._nll(tree, candidate.name, samples),
            base_nll_per_token=self._nll(Tree(self._base), BASE, samples),
            parent_nll_per_token=self._nll(self._versions.tree(candidate.parent), candidate.parent, samples),
            decision="promote",
            gated_against=stable,
            log_e=decision.log_e,
            log_threshold=decision.log_threshold,
        )

    def _facts(self, candidate: Candidate, tree: Tree, evaluated: Eval, weights: str) -> Facts:
        return Facts(
            line=candidate.line,
            parent=candidate.parent,
            base=self._foundation.base,
            base_config=self._foundation.config,
            lora=settings_of(candidate.lora),
            probe=self._probe(tree, self._versions.tree(candidate.parent)),
            eval=evaluated,
            training=Training(
                git_commit=self._identity.commit,
                seed=self._identity.seed,
                run=str(candidate.run),
                steps=candidate.steps,
                fresh_from=candidate.fresh_from,
                fresh_to=candidate.fresh_to,
                offsets=dict(candidate.offsets),
                replay_snapshot=f"{candidate.run}-{candidate.steps[1]}",
                epoch=self._identity.epoch,
            ),
            weights_sha256=weights,
        )

    def _probe(self, tree: Tree, parent: Tree) -> Probe:
        prompts, watched = fingerprint(self._base.chat.text_ids)
        own, base, old = (
            tuple(tuple(row) for row in logprobs(of, prompts, watched)) for of in (tree, Tree(self._base), parent)
        )
        return Probe(
            prompts=tuple(tuple(prompt) for prompt in prompts),
            token_ids=tuple(watched),
            logprobs=own,
            base_logprobs=base,
            parent_logprobs=old,
        )


def answered_by_people(samples: Sequence[Sample]) -> list[tuple[tuple[Turn, ...], str]]:
    """The beginning of each chat up to its first scored reply, and that reply."""
    found = []
    for sample in samples:
        at = next((n for n, turn in enumerate(sample.turns) if turn.is_target), 0)
        if at:
            found.append((sample.turns[:at], sample.turns[at].text))
    return found
