"""The publish gate: does the evidence allow this candidate to replace the live version? Pure and torch-free.

A gain on recent validation conversations must be proven by an e-value at the level that e-LOND leaves for this
decision, so that false promotions stay rare over an endless sequence. Guards (slices, golden set, pinned version,
anchor gauge, tail, probes, sanity) must all pass besides, so they need no correction. What is merely unproven
abstains: training goes on and gains accumulate. What is proven harm refuses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean, stdev
from typing import Any, Literal

from learner import evalues

Outcome = Literal["pass", "abstain", "refuse", "not_applicable"]
Verdict = Literal["promote", "refuse", "abstain"]

PROBES: dict[str, Outcome] = {"safety": "refuse", "memorisation": "refuse", "fairness": "refuse", "manner": "abstain"}
"""Guards whose findings the caller gathers, and what any finding means; an immature way of answering is no harm."""

POOLED = "pooled"
"""Name of the slice into which topics below the minimum go."""


@dataclass(frozen=True)
class Paired:
    """Losses of the same conversations under a reference and the candidate, nats, each a mean over reply tokens."""

    reference: tuple[float, ...] = ()
    candidate: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.reference) != len(self.candidate):
            raise ValueError(f"reference has {len(self.reference)} losses, candidate {len(self.candidate)}: must pair")

    def __len__(self) -> int:
        return len(self.reference)

    @property
    def gains(self) -> list[float]:
        """loss(reference) - loss(candidate) of each conversation: above 0 is better."""
        return [old - new for old, new in zip(self.reference, self.candidate, strict=True)]

    def joined(self, other: Paired) -> Paired:
        """Both sets in one."""
        return Paired(self.reference + other.reference, self.candidate + other.candidate)


@dataclass(frozen=True)
class Gauge:
    """KL(base || version) on unlabelled anchors, nats a token; stable's is 0 while the base itself is live."""

    candidate: float
    stable: float = 0.0


@dataclass(frozen=True)
class Scores:
    """Everything measured of one candidate, from its shipped bytes; None or absent means there is no such reference."""

    recent: Paired
    """Newest validation conversations against stable."""
    slices: Mapping[str, Paired] = field(default_factory=dict)
    """By topic, apart from `recent`, against stable."""
    golden: Paired | None = None
    pinned: Mapping[str, Paired] = field(default_factory=dict)
    """By topic, against the best version promoted in the last seven days."""
    gauge: Gauge | None = None
    probes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Findings by name of `PROBES`, empty when all is well."""
    sanity: tuple[str, ...] | None = None
    """What is wrong with the file itself."""


@dataclass(frozen=True)
class GateLimits:
    """Margins and minima of the gate; the defaults are for bases of 0.5B and more."""

    alpha: float = 0.05
    """Bound on the false share of promotions over an endless sequence."""
    recent_min: int = 32
    """Fewer conversations abstain; the e-value is valid at any number."""
    slice_min: int = 128
    """Topics with fewer conversations are pooled; a pool below it is not applicable."""
    pool_slices: bool = False
    """Pool all topics into one slice."""
    slice_margin: float = 0.05
    """Largest increase of the loss on a slice or the golden set, nats."""
    golden_min: int = 32
    pinned_margin: float = 0.10
    """Largest increase against the pinned version, nats: small permitted steps must not add up."""
    gauge_budget: float = 0.15
    """Largest KL to the base on anchors, nats; calibrate as 1.5 x its plateau under the default mix."""
    gauge_step: float = 0.05
    """Largest rise of it over stable's, nats, once that exceeds half the budget."""
    tail_least: int = 1
    """Conversations that may get worse by more than the clip, whatever their share."""
    tail_share: float = 0.01
    guard_alpha: float = 0.05
    """Level of the one-sided bounds."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not isinstance(value, bool) and not value > 0:
                raise ValueError(f"GateLimits {setting.name!r} has value {value!r}: must be above 0")
        for name in ("alpha", "guard_alpha", "tail_share"):
            if getattr(self, name) >= 1:
                raise ValueError(f"GateLimits {name!r} has value {getattr(self, name)!r}: must be below 1")
        if self.pinned_margin < self.slice_margin:
            raise ValueError(
                f"GateLimits 'pinned_margin' has value {self.pinned_margin}: below 'slice_margin' {self.slice_margin}"
            )


def demo_limits() -> GateLimits:
    """The demo's profile: few conversations, but gains of a nat and more."""
    return GateLimits(
        slice_min=24, pool_slices=True, slice_margin=0.15, golden_min=24, pinned_margin=0.20, gauge_budget=0.6,
        tail_least=2, tail_share=0.03,
    )  # fmt: skip


@dataclass(frozen=True)
class Account:
    """What a line's gate has spent, for ever: decisions that looked at data, promotions that stand, alpha."""

    decisions: int = 0
    promotions: int = 0
    denied: int = 0
    """Versions that were rolled back or withdrawn; never falls."""
    spent: float = 0.0
    """Sum of the levels used so far."""

    @property
    def standing(self) -> int:
        """Promotions not rolled back since: each gives alpha back. Denials of other origin only make it smaller."""
        return max(self.promotions - self.denied, 0)

    def newer(self, other: Account) -> Account:
        """Of two copies, the one with more decisions; a checkpoint and the store may differ after a crash."""
        return other if other.decisions > self.decisions else self

    def to_fields(self) -> dict[str, str]:
        """The fields of the hash `{line:<line>}`; floats survive exactly."""
        return {f"gate_{name}": repr(value) for name, value in asdict(self).items()}

    @classmethod
    def from_fields(cls, stored: Mapping[str, str]) -> Account:
        """Read the fields back; an empty hash is a new account."""

        def count(name: str) -> int:
            return int(stored.get(f"gate_{name}", 0))

        return cls(count("decisions"), count("promotions"), count("denied"), float(stored.get("gate_spent", 0.0)))


@dataclass(frozen=True)
class Evidence:
    """What one guard saw: n examples, the `value` that was compared with `limit`, and what followed."""

    guard: str
    outcome: Outcome
    n: int = 0
    value: float = 0.0
    limit: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Decision:
    """The gate's answer with the evidence of each guard, and the account to store before acting on it."""

    verdict: Verdict
    evidence: tuple[Evidence, ...]
    account: Account
    log_e: float = 0.0
    log_threshold: float = 0.0
    paired_sd: float = 0.0
    """Spread of the paired differences of `recent`, nats; above 0.15 power collapses."""
    provable_gain: float | None = None
    """Smallest gain that these examples could have proven at this decision, nats."""
    looked: bool = False
    """Whether there were examples enough; without, no error budget was spent and the candidate may be asked again."""

    @property
    def why(self) -> str:
        """The guards that did not pass, or the proof."""
        stopped = [entry for entry in self.evidence if entry.outcome in {"abstain", "refuse"}]
        if not stopped:
            return f"gain proven: log e {self.log_e:.1f} >= {self.log_threshold:.1f}"
        worst = "refuse" if self.verdict == "refuse" else "abstain"
        return "; ".join(
            f"{entry.guard}: {entry.detail or f'{entry.value:.3g} against {entry.limit:.3g}'}"
            for entry in stopped
            if entry.outcome == worst
        )

    def to_object(self) -> dict[str, Any]:
        """Plain JSON values for records, manifest and model card."""
        return asdict(self) | {"why": self.why}


def decide(scores: Scores, account: Account, limits: GateLimits) -> Decision:
    """Promote, refuse or abstain. Pure: the same scores and account give the same decision."""
    sanity = _sanity(scores)
    if sanity.outcome == "refuse":
        return Decision("refuse", (sanity,), account)
    gains = scores.recent.gains
    looked = len(gains) >= limits.recent_min
    after = account
    log_threshold = evalues.log_promotion_threshold(account.decisions + 1, account.standing, limits.alpha)
    if looked:
        spent = account.spent + math.exp(-log_threshold)
        after = replace(account, decisions=account.decisions + 1, spent=spent)
    gain = _gain(gains, log_threshold, limits)
    evidence = (gain, *_guards(scores, limits), *_probes(scores), sanity)
    outcomes = {entry.outcome for entry in evidence}
    verdict: Verdict = "refuse" if "refuse" in outcomes else "abstain" if "abstain" in outcomes else "promote"
    if verdict == "promote":
        after = replace(after, promotions=after.promotions + 1)
    return Decision(
        verdict,
        evidence,
        after,
        log_e=gain.value,
        log_threshold=log_threshold,
        paired_sd=stdev(gains) if len(gains) > 1 else 0.0,
        provable_gain=evalues.provable_gain(gains, log_threshold) if looked else None,
        looked=looked,
    )


def pool(slices: Mapping[str, Paired], least: int, *, everything: bool = False) -> dict[str, Paired]:
    """Slices of at least `least` conversations; smaller ones, or all, joined as one, dropped if still too small."""
    kept = {} if everything else {name: pairs for name, pairs in slices.items() if len(pairs) >= least}
    rest = Paired()
    for name in sorted(slices.keys() - kept.keys()):
        rest = rest.joined(slices[name])
    if len(rest) >= least:
        kept[POOLED] = rest
    return kept


def _gain(gains: list[float], log_threshold: float, limits: GateLimits) -> Evidence:
    if len(gains) < limits.recent_min:
        return Evidence("gain", "abstain", len(gains), 0.0, log_threshold, f"fewer than {limits.recent_min} examples")
    log_e = evalues.log_gain(gains)
    outcome: Outcome = "pass" if log_e >= log_threshold else "abstain"
    detail = f"gain {fmean(gains):.3f} nats, log e {log_e:.1f} of {log_threshold:.1f}"
    return Evidence("gain", outcome, len(gains), log_e, log_threshold, detail)


def _guards(scores: Scores, limits: GateLimits) -> list[Evidence]:
    slices = pool(scores.slices, limits.slice_min, everything=limits.pool_slices)
    pinned = pool(scores.pinned, limits.slice_min, everything=limits.pool_slices)
    golden = {} if scores.golden is None or len(scores.golden) < limits.golden_min else {"": scores.golden}
    found = []
    for guard, sets, margin in (
        ("slice", slices, limits.slice_margin),
        ("golden", golden, limits.slice_margin),
        ("pinned", pinned, limits.pinned_margin),
    ):
        found += [_no_worse(f"{guard} {name}".strip(), pairs, margin, limits) for name, pairs in sorted(sets.items())]
        if not sets:
            found.append(Evidence(guard, "not_applicable", limit=margin, detail="no set of the least size"))
    return [*found, _gauge(scores.gauge, limits), _tail(scores, limits)]


def _no_worse(guard: str, pairs: Paired, margin: float, limits: GateLimits) -> Evidence:
    """Passes when an increase above the margin is ruled out; refuses when it is proven."""
    increases = [-gain for gain in pairs.gains]
    low, high = evalues.mean_bounds(increases, limits.guard_alpha)
    outcome: Outcome = "pass" if high <= margin else "refuse" if low > margin else "abstain"
    detail = f"loss {fmean(increases):+.3f} nats, between {low:+.3f} and {high:+.3f}, margin {margin:g}"
    return Evidence(guard, outcome, len(pairs), high, margin, detail)


def _gauge(gauge: Gauge | None, limits: GateLimits) -> Evidence:
    if gauge is None:
        return Evidence("gauge", "not_applicable", limit=limits.gauge_budget, detail="no anchors")
    limit = limits.gauge_budget
    if gauge.stable > limits.gauge_budget / 2:
        limit = min(limit, gauge.stable + limits.gauge_step)
    return Evidence("gauge", "pass" if gauge.candidate <= limit else "abstain", value=gauge.candidate, limit=limit)


def _tail(scores: Scores, limits: GateLimits) -> Evidence:
    """Conversations beyond the e-value's clip: it cannot see how bad those are."""
    gains = [gain for pairs in (scores.recent, *scores.slices.values()) for gain in pairs.gains]
    worse = sum(gain < -evalues.CLIP_NATS for gain in gains)
    limit = max(limits.tail_least, limits.tail_share * len(gains))
    detail = f"{worse} of {len(gains)} conversations worse by more than {evalues.CLIP_NATS:g} nats"
    return Evidence("tail", "pass" if worse <= limit else "refuse", len(gains), worse, limit, detail)


def _probes(scores: Scores) -> list[Evidence]:
    found = []
    for name, meaning in PROBES.items():
        findings = scores.probes.get(name)
        if findings is None:
            found.append(Evidence(name, "not_applicable", detail="not probed"))
        else:
            outcome = meaning if findings else "pass"
            found.append(Evidence(name, outcome, value=len(findings), detail="; ".join(findings)))
    return found


def _sanity(scores: Scores) -> Evidence:
    """A file that is broken, or whose losses are no numbers, is refused before anything is spent."""
    findings = list(scores.sanity or ())
    sets = [scores.recent, *scores.slices.values(), *scores.pinned.values()]
    sets += [] if scores.golden is None else [scores.golden]
    losses = [loss for pairs in sets for loss in pairs.candidate]
    losses += [] if scores.gauge is None else [scores.gauge.candidate]
    broken = sum(not math.isfinite(loss) for loss in losses)
    if broken:
        findings.append(f"{broken} of {len(losses)} losses are not finite")
    if findings:
        return Evidence("sanity", "refuse", value=len(findings), detail="; ".join(findings))
    return Evidence("sanity", "not_applicable" if scores.sanity is None else "pass")
