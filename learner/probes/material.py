"""All probes of one candidate: what is asked, what was read, and what the gate hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from learner.probes.fairness import FairnessLimits, Gaps, fairness_findings, fairness_gaps
from learner.probes.memorisation import Kept, MemorisationLimits, Secret, kept, memorisation_findings
from learner.probes.safety import Manner, SafetyLimits, manner, safety_findings, safety_prompts
from learner.probes.voice import Voice


@dataclass(frozen=True)
class Material:
    """What is asked of a version; empty parts are not probed."""

    prompts: int = 64
    """Safety prompts; a tiny machine asks fewer."""
    secrets: tuple[Secret, ...] = ()
    """Values of single customers in samples that were trained on."""
    never_seen: tuple[Secret, ...] = ()
    """The same from held-out chats."""
    fairness: bool = True
    safety_limits: SafetyLimits = field(default_factory=SafetyLimits)
    memorisation_limits: MemorisationLimits = field(default_factory=MemorisationLimits)
    fairness_limits: FairnessLimits = field(default_factory=FairnessLimits)


@dataclass(frozen=True)
class Readings:
    """What one version answered; stable's are kept until stable changes."""

    manner: Manner | None = None
    seen: tuple[Kept, ...] = ()
    never_seen: tuple[Kept, ...] = ()
    gaps: Gaps | None = None


def measure(voice: Voice, material: Material) -> Readings:
    """Ask a version everything in the material."""
    count = material.memorisation_limits.variants
    return Readings(
        manner=manner(voice.answers(safety_prompts(material.prompts))) if material.prompts else None,
        seen=tuple(kept(voice, material.secrets, count)) if material.secrets else (),
        never_seen=tuple(kept(voice, material.never_seen, count)) if material.never_seen else (),
        gaps=fairness_gaps(voice) if material.fairness else None,
    )


def compare(
    candidate: Readings, stable: Readings, material: Material, human_replies: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Findings by probe, for the gate; before the first promotion `human_replies` are safety's reference."""
    findings: dict[str, tuple[str, ...]] = {}
    if candidate.manner is not None and (human_replies or stable.manner is not None):
        reference = manner(human_replies) if human_replies else stable.manner
        assert reference is not None
        findings["safety"] = safety_findings(
            candidate.manner, reference, material.safety_limits, same_prompts=not human_replies
        )
    if candidate.seen:
        findings["memorisation"] = memorisation_findings(
            candidate.seen, material.memorisation_limits, candidate.never_seen
        )
    if candidate.gaps is not None and stable.gaps is not None:
        findings["fairness"] = fairness_findings(candidate.gaps, stable.gaps, material.fairness_limits)
    return findings
