"""What the loop, the judge and the rollout say to each other: candidates go out, notices come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from learner.adapter import Lora
from learner.feed import Plan
from learner.heads import Head

Kind = Literal[
    "published", "unproven", "postponed", "failed", "harmful", "promoted", "denied", "drifted", "settled", "spiked"
]  # fmt: skip

BASE = "base"
"""Reserved version id: the base model alone."""


@dataclass(frozen=True)
class Candidate:
    """A version that may be: what the worker judges and publishes."""

    lora: Lora
    """Mean of the newest snapshots, fp32 on the CPU."""
    line: str
    run: int
    steps: tuple[int, int]
    """First and last step since the parent."""
    parent: str
    fresh_from: float
    fresh_to: float
    """Kafka timestamps of the events that completed the fresh samples since the parent, seconds."""
    offsets: Mapping[str, tuple[int, int]]
    examples: int
    """Fresh samples since the parent."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """Auxiliary heads as they stood at the last step."""

    @property
    def name(self) -> str:
        """What it is called before it has an id."""
        return f"{self.line}-step{self.steps[1]}"


@dataclass(frozen=True)
class Notice:
    """Something that the loop must hear of before its next step."""

    kind: Kind
    """published: a candidate became `version`. unproven: it did not. postponed: the gate had too few examples to look
    at one. failed: an error kept it from judging one. harmful: it refused one for harm. promoted: stable is `version`.
    denied: `version` was rolled back or withdrawn. drifted, settled: the anchor gauge is above budget, or far below.
    spiked: the loop's own, after too many skipped steps since `version`."""
    version: str
    step: int = 0
    """Of a candidate: its last step."""
    run: int = 0
    """Of a candidate: its trajectory; one that has ended meanwhile is not sent back again."""


@dataclass
class Window:
    """What was trained since the parent."""

    first: int = 0
    """First step."""
    fresh_from: float = 0.0
    fresh_to: float = 0.0
    keys: list[tuple[int, str]] = field(default_factory=list)
    """(step, key) of fresh samples: they go to quarantine if this turns out harmful."""
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, plan: Plan) -> None:
        """Book one step's fresh samples."""
        for sample in plan.fresh.values():
            at = sample.completed_at
            self.fresh_from = min(self.fresh_from or at, at)
            self.fresh_to = max(self.fresh_to, at)
            for partition, (low, high) in sample.offsets.items():
                have = self.offsets.get(partition, (low, high))
                self.offsets[partition] = (min(have[0], low), max(have[1], high))
        self.keys += [(plan.step, key) for key in plan.fresh]
