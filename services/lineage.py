"""What a version learned from: the training steps that it and its ancestors hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from learner.registry import BASE, Manifest, Registry


@dataclass(frozen=True)
class Learned:
    """What a version learned from: trajectory -> last step, its ancestors' included."""

    steps: Mapping[int, int]

    def holds(self, run: int, step: int) -> bool:
        """Whether the version contains a step."""
        return step <= self.steps.get(run, 0)


def lineage(manifests: Iterable[Manifest]) -> Learned:
    """Every trajectory of a version's `ancestry`, with its last step there."""
    steps: dict[int, int] = {}
    for manifest in manifests:
        run = int(manifest.training.run)
        steps[run] = max(steps.get(run, 0), manifest.training.steps[1])
    return Learned(steps)


def ancestry(registry: Registry, version: str) -> Iterator[Manifest]:
    """The version and its ancestors, the base left out. Raises `learner.registry.Unknown`."""
    while version != BASE:
        manifest = registry.manifest(version)
        yield manifest
        version = manifest.parent
