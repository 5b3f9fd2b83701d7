"""Settings of the learner and of the demo's base; torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{type(config).__name__} {name!r} has value {value!r}: must be above 0, and finite")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"{type(config).__name__} {name!r} has value {value!r}: must be 0 or more, and finite")


def _shares(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{type(config).__name__} {name!r} has value {value!r}: must lie in 0..1")


@dataclass(frozen=True)
class BaseConfig:
    """Shape and recipe of a small base that is trained from generated conversations."""

    layers: int = 4
    hidden: int = 192
    heads: int = 3
    """Heads of 64: a size that vLLM's CPU attention knows."""
    ff: int = 512
    vocab: int = 2048
    context: int = 1024
    """Longest sequence, tokens."""
    tokens: int = 1_200_000
    """Training tokens; 0.8 M beat 0.25 M although the generator's own loss was flat by then."""
    window: int = 256
    """Tokens of one training row."""
    batch: int = 16
    """Rows of one training step."""
    muon_lr: float = 0.02
    adam_lr: float = 4e-3
    init_std: float = 0.03
    seed: int = 17

    def __post_init__(self) -> None:
        _positive(self, *(field.name for field in fields(self) if field.name != "seed"))
        if self.hidden % self.heads:
            raise ValueError(f"BaseConfig 'hidden' has value {self.hidden}: must be a multiple of 'heads' {self.heads}")


@dataclass(frozen=True)
class TrainConfig:
    """The online learner of one line; defaults are for bases of 0.5B and more, the demo sets its own."""

    line: str = "a"
    """Line letter of the versions that are published."""
    lines: tuple[str, ...] = ()
    """Further lines that the same process trains on the same base; each wants its table, `replay.lines`."""
    r: int = 16
    """LoRA rank, one of vLLM's."""
    alpha: int = 32
    """LoRA scale is alpha / r."""
    learning_rate: float = 2e-4
    """Constant after warm-up: no decay knows where an endless stream ends."""
    beta2: float = 0.99
    warmup_steps: int = 20
    """After each cold start and rollback, steps."""
    clip_norm: float = 1.0
    """Largest norm of the gradient that is applied."""
    fresh_share: float = 0.25
    rehearsal_share: float = 0.50
    anchor_share: float = 0.25
    """Shares of a step's tokens, together 1."""
    recent_share: float = 0.0
    """Share of rehearsal that is drawn from the newest samples instead of from all: a line whose facts change often."""
    fresh_batch: int = 8
    """Fresh conversations of a step."""
    fresh_wait_s: float = 2.0
    """A step runs with what it has once its oldest fresh sample has waited this long, seconds."""
    document_tokens: int = 512
    """Longest document, tokens; a longer chat is cut into windows with the newest context."""
    step_tokens: int = 8192
    """Most tokens of one step, all components."""
    snapshot_every: int = 5
    """Steps between snapshots of the trajectory."""
    average: int = 4
    """Newest snapshots whose mean is offered to the gate."""
    decide_every: int = 10
    """Fewest steps between candidates for the gate: looking spends error budget."""
    decide_latest: int = 0
    """Most steps between candidates; in between one is offered only when the prequential loss has fallen.
    0: always after `decide_every`."""
    offer_within_s: float = 0.0
    """Age of the oldest step that no candidate holds at which one is offered, whatever `decide_every` says; half of it
    once nothing more waits to be learned, later while the version before has not reached a customer. 0: never."""
    checkpoint_every: int = 25
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    lease_s: float = 120.0
    """How long drawn samples are held before they may be drawn again, seconds."""
    weight_min: float = 0.05
    weight_max: float = 2.0
    """A reply's weight is cut to this range; 0 means no target."""
    arm_max: float = 4.0
    """Largest weight of a reply for the rarity of its rollout arm, 1 / p."""
    signal_share: float = 0.30
    """Most tokens of a batch that rated or edited replies may hold; where fewer replies than that are rated, their loss
    counts as a part of so many."""
    customer_share: float = 0.02
    """Most tokens of any 100 steps that one customer may hold, once 50 customers are active."""
    quarantine_nats: float = 1.5
    quarantine_mads: float = 4.0
    """An example waits apart when its loss exceeds the lane's median by max(nats, mads * MAD)."""
    quarantine_density: float = 1.4
    """It waits too when its replies take so many times the tokens a byte of the lane's median; 0: never."""
    quarantine_order: float = 0.35
    """It waits too when its words are less ordered than this share of its lane's median: when hardly more of its pairs
    of neighbours are known than by chance; 0: never."""
    spike_factor: float = 5.0
    """A step is skipped when its gradient norm exceeds the running median by this factor."""
    apo_beta: float = 0.1
    """Sharpness of the rating objective on summed log-probabilities."""
    dpo_beta: float = 2.0
    """Sharpness of the edit objective on length-normalised log-probabilities."""
    heads: bool = True
    """Learn to classify customers' turns (sentiment, intent) beside the replies."""
    head_weight: float = 0.1
    """Weight of the heads' cross-entropy where it steers the adapter."""
    head_rate: float = 1e-2
    """Learning rate of the heads' own weights."""
    head_detached_steps: int = 200
    """Steps after each cold start and rollback in which the heads do not steer the adapter."""
    gauge_budget: float = 0.15
    """KL(base, candidate) on anchors that is no alarm, nats; calibrate as 1.5 x the plateau of a run."""
    curated_anchors: bool = False
    """Draw half of the anchors from the buffer's lane `anchor`, which people fill."""
    anchors: int = 128
    """Anchors that the base writes itself, half of them for the gauge, chats."""
    anchor_tokens: int = 160
    """Length of a self-made anchor, tokens."""
    seed: int = 1
    threads: int = 1
    """torch's CPU threads: more ranks, not more threads, use more cores."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is `cuda` where there is one; `cuda` where there is none is refused at the start."""
    base: str = ""
    """Folder of the base model; empty = the demo's base that is shipped."""
    directory: str = ".driftline/learner"
    """Where checkpoints, the draw log and cached anchors lie."""

    def __post_init__(self) -> None:
        _positive(
            self, "r", "alpha", "learning_rate", "clip_norm", "fresh_batch", "document_tokens", "step_tokens",
            "snapshot_every", "average", "decide_every", "checkpoint_every", "keep_checkpoints", "lease_s",
            "weight_min", "weight_max", "arm_max", "spike_factor", "threads", "anchor_tokens", "head_rate",
            "fresh_share", "apo_beta", "dpo_beta",
        )  # fmt: skip
        _not_negative(
            self, "warmup_steps", "fresh_wait_s", "decide_latest", "offer_within_s", "quarantine_nats",
            "quarantine_mads", "quarantine_density", "head_weight", "head_detached_steps", "gauge_budget", "anchors",
            "seed",
        )  # fmt: skip
        _shares(self, "fresh_share", "rehearsal_share", "anchor_share", "recent_share", "quarantine_order")
        _shares(self, "signal_share", "customer_share")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"TrainConfig 'beta2' has value {self.beta2!r}: must be 0 or more, and below 1")
        for line in (self.line, *self.lines):
            if len(line) != 1 or not "a" <= line <= "z":
                raise ValueError(f"TrainConfig 'line' has value {line!r}: must be a letter a to z")
        total = self.fresh_share + self.rehearsal_share + self.anchor_share
        if abs(total - 1) > 1e-6:  # rounding of decimal shares
            raise ValueError(f"TrainConfig 'fresh_share', 'rehearsal_share', 'anchor_share' sum to {total}: must be 1")
        if self.r not in {8, 16, 32, 64, 128, 256}:
            raise ValueError(f"TrainConfig 'r' has value {self.r}: must be a rank that vLLM serves (8, 16, 32 ...)")
        if self.weight_min > self.weight_max:
            raise ValueError(f"TrainConfig 'weight_min' {self.weight_min} is above 'weight_max' {self.weight_max}")


LIVE = ("learning_rate", "clip_norm")
"""Settings of the optimiser that a running line may take over from a tuner; others need a new trajectory."""


def tuned(config: TrainConfig, params: Mapping[str, float]) -> TrainConfig:
    """The settings with those of `LIVE` replaced. Raises ValueError for other ones and for values that are refused."""
    foreign = sorted(set(params) - set(LIVE))
    if foreign:
        raise ValueError(f"tuned {foreign[0]!r} has value {params[foreign[0]]!r}: only {', '.join(LIVE)} change live")
    changed: dict[str, Any] = {name: float(value) for name, value in params.items()}
    return replace(config, **changed)


@dataclass(frozen=True)
class PublishConfig:
    """What is asked of a candidate beside the gate's sets; 0 or False leaves a probe out."""

    prompts: int = 64
    """Safety prompts that are answered greedily."""
    answer_tokens: int = 48
    """Longest answer of a probe, tokens."""
    secrets: int = 32
    """Rare values that the memorisation probe tries."""
    fairness: bool = True
    """Probe pairs of texts that differ in a name, an age or an origin."""
    head_chats: int = 128
    """Trained chats from which a head on the base learns, for comparison in the model card; 0 leaves heads out."""
    heldout: int = 200
    """Newest test conversations of the reported loss."""

    def __post_init__(self) -> None:
        _not_negative(self, "prompts", "secrets", "head_chats", "heldout")
        _positive(self, "answer_tokens")
