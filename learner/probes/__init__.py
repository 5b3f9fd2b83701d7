"""What a candidate says and has kept, beyond its loss: prompts and checks for the gate's probes. Torch-free.

    fingerprint    token ids whose log-probabilities prove which weights answer
    safety         fixed prompts, answered greedily: toxicity and personal data; manner: loops, silence, length
    memorisation   rare values of single customers against random values of the same form
    fairness       likelihood and tone over pairs that differ in a name, an age or an origin

A `Voice` is a version that can be asked; `measure` asks it everything, `compare` gives the gate's findings.
"""

from learner.probes.fairness import FairnessLimits, fairness_findings
from learner.probes.fingerprint import fingerprint
from learner.probes.material import Material, Readings, compare, measure
from learner.probes.memorisation import MemorisationLimits, Secret, memorisation_findings, rare_values
from learner.probes.safety import SafetyLimits, safety_prompts
from learner.probes.voice import Continued, Voice

__all__ = [
    "Continued",
    "FairnessLimits",
    "Material",
    "MemorisationLimits",
    "Readings",
    "SafetyLimits",
    "Secret",
    "Voice",
    "compare",
    "fairness_findings",
    "fingerprint",
    "measure",
    "memorisation_findings",
    "rare_values",
    "safety_prompts",
]
