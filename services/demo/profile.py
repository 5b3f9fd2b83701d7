"""The demo's settings: small enough for two minutes on two cores; the shipped defaults stay those of production."""

from __future__ import annotations

from collections.abc import Mapping

from services.serving_config import demo_rollout

SPEED = 8.0
"""The simulated chats run so many times as fast as their own clock."""


def demo_profile(base: str = "") -> dict[str, Mapping[str, object]]:
    """Section -> key -> value of everything that differs from the shipped defaults."""
    train: dict[str, object] = {
        "learning_rate": 0.01, "warmup_steps": 5, "gauge_budget": 0.6, "decide_every": 10, "base": base,
    }  # fmt: skip
    return {
        "stream": {
            "gap_s": 3.0, "idle_s": 5.0, "emit_after_s": 2.0, "rating_wait_s": 5.0, "shares": [0.8, 0.1, 0.1],
        },
        "train": train,
        "gate": {
            "slice_min": 24, "pool_slices": True, "slice_margin": 0.15, "golden_min": 24, "pinned_margin": 0.2,
            "gauge_budget": 0.6, "tail_least": 2, "tail_share": 0.03,
        },
        "rollout": demo_rollout(),
        "node": {"base": base, "report_s": 0.5, "reconcile_s": 1.0},
    }  # fmt: skip


def printed(profile: Mapping[str, Mapping[str, object]]) -> str:
    """One line that says what differs."""
    parts = (
        f"{section}.{key}={value}" for section, keys in profile.items() for key, value in keys.items() if value != ""
    )
    return ", ".join(parts)
