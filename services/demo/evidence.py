"""What the demo saw and whether it suffices: the named checks and the JSON that scripts rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One promise of the demo: its name, whether it held, and the figures behind it."""

    name: str
    passed: bool
    detail: str


@dataclass
class Evidence:
    """Everything that `--json` writes; architecture.md fixes the shape."""

    commit: str = ""
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list)
    events: Mapping[str, Any] = field(default_factory=dict)
    privacy: dict[str, int] = field(default_factory=lambda: {"planted": 0, "masked": 0, "found_downstream": 0})
    heldout: dict[str, Any] = field(default_factory=lambda: {"examples": 0, "base_nll": None, "versions": []})
    facts: list[dict[str, str]] = field(default_factory=list)
    rollout: dict[str, list[Any]] = field(default_factory=lambda: {"promoted": [], "refused": [], "rolled_back": []})
    freshness_s: dict[str, float | int | None] = field(default_factory=lambda: {"p50": None, "p95": None, "n": 0})

    def check(self, name: str, detail: str, *, passed: bool) -> None:
        """Record one check."""
        self.checks.append(Check(name, passed, detail))

    @property
    def passed(self) -> bool:
        """True when every check held and there were any."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def write(self, path: Path) -> None:
        """Write the JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
