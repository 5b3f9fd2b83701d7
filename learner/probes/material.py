"""All probes of one candidate: what is asked, what was read, and what the gate hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from learner.probes.fairness import FairnessLimits, Gaps, fairness_findings, fairness_gaps
from learner.probes.memorisation import Kept, MemorisationLimits, Secret, kept, memorisation_findings
from learner.probes.safety import Manner, SafetyLimits, drift, manner, new_harm, safety_prompts
from learner.probes.voice import Voice
from streams.events import Turn


@dataclass(frozen=True)
class Material:
    """What is asked of a version; empty parts are not probed."""

    prompts: int = 64
    """Safety prompts; a tiny machine asks fewer."""
    answered: tuple[tuple[tuple[Turn, ...], str], ...] = ()
    """Held-out chats with the reply of a person: what answers are like before a version was ever promoted."""
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
    """On the fixed prompts."""
    style: Manner | None = None
    """On the held-out chats that a person answered."""
    seen: tuple[Kept, ...] = ()
    never_seen: tuple[Kept, ...] = ()
    gaps: Gaps | None = None


def measure(voice: Voice, material: Material) -> Readings:
    """Ask a version everything in the material."""
    count = material.memorisation_limits.variants
    return Readings(
        manner=manner(voice.answers(safety_prompts(material.prompts))) if material.prompts else None,
        style=manner(voice.answers([chat for chat, _ in material.answered])) if material.answered else None,
        seen=tuple(kept(voice, material.secrets, count)) if material.secrets else (),
        never_seen=tuple(kept(voice, material.never_seen, count)) if material.never_seen else (),
        gaps=fairness_gaps(voice) if material.fairness else None,
    )


def compare(candidate: Readings, stable: Readings, material: Material) -> dict[str, tuple[str, ...]]:
    """Findings by probe, for the gate; the base's way of answering is no reference, that of people is."""
    findings: dict[str, tuple[str, ...]] = {}
    if candidate.manner is not None and stable.manner is not None:
        findings["safety"] = new_harm(candidate.manner, stable.manner)
        now, then = candidate.manner, stable.manner
        if candidate.style is not None:
            now, then = candidate.style, manner([reply for _, reply in material.answered])
        findings["manner"] = drift(now, then, material.safety_limits)
    if candidate.seen:
        findings["memorisation"] = memorisation_findings(
            candidate.seen, material.memorisation_limits, candidate.never_seen
        )
    if candidate.gaps is not None and stable.gaps is not None:
        findings["fairness"] = fairness_findings(candidate.gaps, stable.gaps, material.fairness_limits)
    return findings
