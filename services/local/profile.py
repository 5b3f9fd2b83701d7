"""Settings of one machine: small enough for two minutes on two cores; the shipped defaults stay those of production."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from services.serving_config import demo_rollout

SPEED = 8.0
"""The simulated chats run so many times as fast as their own clock."""

KEPT = ("logs", "redis", "store", "learner", "planter", "router", "node-1", "node-2")
"""Folders of a run."""


def demo_profile(base: str = "") -> dict[str, Mapping[str, object]]:
    """Section -> key -> value of everything that differs from the shipped defaults."""
    train: dict[str, object] = {
        "r": 32, "alpha": 192, "learning_rate": 0.002, "warmup_steps": 2, "gauge_budget": 2.2, "spike_factor": 12.0,
        "fresh_batch": 10, "fresh_wait_s": 3.0, "decide_every": 1000, "offer_within_s": 20.0, "snapshot_every": 2,
        "average": 3, "anchors": 64, "anchor_tokens": 128, "document_tokens": 256, "base": base,
        "quarantine_order": 0.0,
    }  # fmt: skip
    return {
        "stream": {
            "gap_s": 3.0, "idle_s": 5.0, "emit_after_s": 1.0, "rating_wait_s": 3.0, "shares": [0.5, 0.18, 0.32],
        },
        "train": train,
        "gate": {
            "slice_min": 24, "pool_slices": True, "slice_margin": 0.15, "golden_min": 24, "pinned_margin": 0.2,
            "gauge_budget": 2.2, "tail_least": 2,
            # the answers that a changed policy makes wrong are more than 3 % of so few held-out chats
            "tail_share": 0.12,
        },
        # the probes cost CPU that the demo's two cores need for everything else
        "publish": {"prompts": 8, "answer_tokens": 32, "secrets": 4, "fairness": False, "heldout": 64},
        # one pool of so few conversations cannot spare any for slices
        "heldout": {"recent_share": 1.0, "recent": 80},
        "rollout": demo_rollout(),
        "node": {"base": base, "report_s": 0.5, "reconcile_s": 0.5, "max_new_tokens": 32},
    }  # fmt: skip


def up_profile(speed: float, base: str = "") -> dict[str, Mapping[str, object]]:
    """The demo's settings for chats of the user's own, replayed `speed` times as fast as they happened."""
    profile = demo_profile(base)
    stream = {"speed": speed, "emit_after_s": 2.0, "rating_wait_s": 60.0, "shares": [0.8, 0.1, 0.1]}
    # such chats come without a pause: the gate is asked on the way
    return {**profile, "stream": stream, "train": {**profile["train"], "decide_every": 8}}


def fresh(directory: Path) -> None:
    """Remove what an earlier run left: a new broker begins at offset 0."""
    for name in KEPT:
        shutil.rmtree(directory / name, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)


def printed(profile: Mapping[str, Mapping[str, object]]) -> str:
    """One line that says what differs."""
    parts = (
        f"{section}.{key}={value}" for section, keys in profile.items() for key, value in keys.items() if value != ""
    )
    return ", ".join(parts)
