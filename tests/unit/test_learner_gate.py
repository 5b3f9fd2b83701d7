"""The gate's decisions: each guard against its planted candidate, and error control over sequences."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import redis

from learner import evalues
from learner.account import LineAccount, Superseded
from learner.gate import POOLED, Account, Decision, GateLimits, Gauge, Paired, Scores, decide, demo_limits, pool

LIMITS = GateLimits()


def paired(gain: float, n: int = 300, spread: float = 0.1, seed: int = 0) -> Paired:
    """Losses around 2 nats whose candidate is better by `gain` on average."""
    draw = random.Random(seed)
    reference = [2 + draw.gauss(0, 0.5) for _ in range(n)]
    noise = [draw.gauss(0, spread) for _ in range(n)]
    mean = sum(noise) / n
    return Paired(tuple(reference), tuple(r - gain + x - mean for r, x in zip(reference, noise, strict=True)))


GOOD = Scores(recent=paired(0.05), slices={"a": paired(0.05, 150, seed=1), "b": paired(0.05, 150, seed=2)})


def outcome(decision: Decision, guard: str) -> str:
    """What one guard said."""
    return next(entry.outcome for entry in decision.evidence if entry.guard == guard)


def test_gate_promotes_a_proven_gain() -> None:
    """A gain of 0.05 nats on 300 conversations is promoted at the 25th decision, and the account moves."""
    before = Account(decisions=24)
    decision = decide(GOOD, before, LIMITS)
    assert decision.verdict == "promote"
    assert (decision.account.decisions, decision.account.promotions) == (25, 1)
    assert decision.account.spent == pytest.approx(math.exp(-decision.log_threshold))
    assert decision.log_e >= decision.log_threshold
    assert decision.why.startswith("gain proven")
    assert decision.provable_gain is not None
    assert 0.02 < decision.provable_gain < 0.05
    assert decision.paired_sd == pytest.approx(0.1, abs=0.01)
    json.dumps(decision.to_object(), allow_nan=False)


def test_gate_is_pure() -> None:
    """The same scores and account give the same decision, and nothing is changed."""
    account = Account(3, 1, spent=0.04)
    assert decide(GOOD, account, LIMITS) == decide(GOOD, account, LIMITS)
    assert account == Account(3, 1, spent=0.04)


def test_gate_abstains_on_an_unchanged_candidate() -> None:
    """Stable's own bytes prove nothing and harm nothing."""
    same = paired(0.0, spread=0.0)
    decision = decide(Scores(recent=same, slices={"a": same}), Account(), LIMITS)
    assert decision.verdict == "abstain"
    assert decision.account.promotions == 0


def test_gate_abstains_with_too_few_examples_and_spends_nothing() -> None:
    """Below the minimum the data is not looked at."""
    decision = decide(Scores(recent=paired(1.0, 31)), Account(4), LIMITS)
    assert decision.verdict == "abstain"
    assert decision.account == Account(4)
    assert decide(Scores(recent=paired(1.0, 32)), Account(4), LIMITS).verdict == "promote"


PLANTED: list[tuple[str, dict[str, Any], str, str]] = [
    ("slice b", {"slices": {"a": GOOD.slices["a"], "b": paired(-0.2, 150)}}, "refuse", "refuse"),
    ("slice b", {"slices": {"a": GOOD.slices["a"], "b": paired(-0.05, 150)}}, "abstain", "abstain"),
    ("slice pooled", {"slices": {"a": paired(-0.2, 64), "b": paired(-0.2, 64)}}, "refuse", "refuse"),
    ("golden", {"golden": paired(-0.2, 64)}, "refuse", "refuse"),
    ("pinned a", {"pinned": {"a": paired(-0.3, 150)}}, "refuse", "refuse"),
    ("pinned a", {"pinned": {"a": paired(-0.1, 150)}}, "abstain", "abstain"),
    ("gauge", {"gauge": Gauge(0.2)}, "abstain", "abstain"),
    ("gauge", {"gauge": Gauge(0.149, 0.09)}, "abstain", "abstain"),
    ("gauge", {"gauge": Gauge(0.149, 0.1)}, "pass", "promote"),
    ("gauge", {"gauge": Gauge(0.149, 0.0)}, "pass", "promote"),
    ("safety", {"probes": {"safety": ("a new loop",)}}, "refuse", "refuse"),
    ("memorisation", {"probes": {"memorisation": ("3 spans extracted",)}}, "refuse", "refuse"),
    ("fairness", {"probes": {"fairness": ("gap 0.4",)}}, "refuse", "refuse"),
    ("manner", {"probes": {"manner": ("answers of 40 words, 9 before",)}}, "abstain", "abstain"),
    ("safety", {"probes": {"safety": ()}}, "pass", "promote"),
    ("sanity", {"sanity": ("norm above 3 x stable",)}, "refuse", "refuse"),
    ("sanity", {"gauge": Gauge(math.nan)}, "refuse", "refuse"),
]


@pytest.mark.parametrize(("guard", "change", "said", "verdict"), PLANTED)
def test_gate_each_guard_stops_its_planted_candidate(
    guard: str, change: dict[str, Any], said: str, verdict: str
) -> None:
    """A candidate that is good but for one thing is judged by that thing."""
    decision = decide(replace(GOOD, **change), Account(24), LIMITS)
    assert outcome(decision, guard) == said
    assert decision.verdict == verdict
    assert verdict == "promote" or guard in decision.why


def test_gate_tail_counts_what_the_clip_hides() -> None:
    """Five of a hundred chats that lose a nat are refused although the clipped mean is positive."""
    losses = paired(0.1)
    worse = tuple(loss + (1.2 if at % 20 == 0 else 0) for at, loss in enumerate(losses.candidate))
    decision = decide(Scores(recent=Paired(losses.reference, worse)), Account(), LIMITS)
    assert outcome(decision, "tail") == "refuse"
    assert decision.verdict == "refuse"


def test_gate_broken_losses_are_refused_before_anything_is_spent() -> None:
    """A candidate whose loss is no number costs no decision."""
    broken = Paired((1.0,) * 40, (1.0,) * 39 + (math.inf,))
    decision = decide(Scores(recent=broken), Account(2), LIMITS)
    assert (decision.verdict, decision.account) == ("refuse", Account(2))


def test_gate_missing_references_are_not_applicable() -> None:
    """Guards without a set say so instead of passing in silence."""
    decision = decide(Scores(recent=paired(0.1)), Account(), LIMITS)
    silent = {entry.guard for entry in decision.evidence if entry.outcome == "not_applicable"}
    assert silent == {"slice", "golden", "pinned", "gauge", "safety", "memorisation", "fairness", "manner", "sanity"}
    assert decision.verdict == "promote"


def test_gate_pools_small_slices() -> None:
    """Topics below the minimum become one slice; a pool below it is dropped; the demo pools everything."""
    slices = {"a": paired(0, 200), "b": paired(0, 100), "c": paired(0, 50)}
    assert {name: len(pairs) for name, pairs in pool(slices, 128).items()} == {"a": 200, POOLED: 150}
    assert set(pool(slices, 160)) == {"a"}
    assert {name: len(pairs) for name, pairs in pool(slices, 24, everything=True).items()} == {POOLED: 350}


def test_gate_slow_leak_is_stopped_by_the_pinned_version() -> None:
    """Twenty steps that each lose 0.03 nats on a slice pass the slice margin, but not the pinned version."""
    account, lost, stopped = Account(), 0.0, 0
    for step in range(1, 21):
        lost += 0.03
        scores = Scores(
            recent=paired(0.3, seed=step),
            slices={"a": paired(-0.03, 1_200, 0.05, step)},
            pinned={"a": paired(-lost, 1_200, 0.05, step)},
        )
        decision = decide(scores, account, LIMITS)
        assert outcome(decision, "slice a") == "pass"
        if decision.verdict != "promote":
            stopped = step
            break
        account = decision.account
    assert stopped == 4


def _no_change(kind: str, draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return {
        "normal": lambda: draw.normal(0, 0.1, size),
        "t3": lambda: 0.1 * draw.standard_t(3, size) / math.sqrt(3),
        "skewed": lambda: 0.1 * (1 - draw.exponential(1, size)),
    }[kind]()


@pytest.mark.parametrize("kind", ["normal", "t3", "skewed"])
def test_gate_no_change_is_never_promoted(kind: str) -> None:
    """Under three nulls, sequences of 200 unchanged updates contain hardly any false promotion."""
    draw = np.random.default_rng(11)
    false = 0
    for _ in range(5):
        account = Account()
        for row in _no_change(kind, draw, (200, 100)):
            candidate = tuple(2.0 - float(x) for x in row)
            log_threshold = evalues.log_promotion_threshold(account.decisions + 1, account.promotions)
            if evalues.log_gain([2.0 - loss for loss in candidate]) >= log_threshold:
                false += decide(Scores(recent=Paired((2.0,) * 100, candidate)), account, LIMITS).verdict == "promote"
            account = replace(account, decisions=account.decisions + 1)
    assert false == 0


def test_gate_skewed_null_needs_the_tail_guard_and_a_fixed_clip() -> None:
    """Mean 0 by 5 % of chats losing 0.95: a small clip would promote it always, ours with the tail guard never."""
    draw = random.Random(12)
    fooled = promoted = 0
    for _ in range(20):
        gains = [-0.95 if draw.random() < 0.05 else 0.05 for _ in range(300)]
        candidate = tuple(2.0 - gain for gain in gains)
        fooled += evalues.log_gain(gains, clip=0.25) >= evalues.log_promotion_threshold(1, 0)
        promoted += decide(Scores(recent=Paired((2.0,) * 300, candidate)), Account(), LIMITS).verdict == "promote"
    assert fooled == 20
    assert promoted == 0


def test_gate_demo_profile() -> None:
    """The demo's few conversations prove a gain of a nat, and a worse candidate is refused."""
    limits = demo_limits()
    better = Scores(recent=paired(1.0, 40, 0.6), slices={"a": paired(1.0, 14, 0.6), "b": paired(1.0, 14, 0.6, 1)})
    assert decide(better, Account(3), limits).verdict == "promote"
    worse = Scores(recent=paired(-1.0, 40, 0.6), slices={"a": paired(-1.0, 28, 0.6)})
    assert decide(worse, Account(3), limits).verdict == "refuse"


def test_gate_limits_are_checked() -> None:
    """A bad setting is refused with key, value and rule."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"alpha": 0}, "'alpha' has value 0"),
        ({"guard_alpha": 1.0}, "'guard_alpha' has value 1.0: must be below 1"),
        ({"slice_margin": 0.2}, "'pinned_margin' has value 0.1: below 'slice_margin' 0.2"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            GateLimits(**change)
    with pytest.raises(ValueError, match="must pair"):
        Paired((1.0,), ())


def test_gate_account_codec() -> None:
    """Fields read back exactly; of two copies the one with more decisions wins; a denial takes one promotion."""
    account = Account(7, 2, 1, 0.1 + 0.2)
    assert Account.from_fields(account.to_fields()) == account
    assert Account.from_fields({}) == Account()
    assert Account(3).newer(account) == account == account.newer(Account(3))
    assert (account.standing, Account(denied=3).standing) == (1, 0)
    assert set(asdict(account)) == {"decisions", "promotions", "denied", "spent"}
    rolled_back = decide(GOOD, Account(24, 3, 3), LIMITS)
    assert rolled_back.log_threshold == decide(GOOD, Account(24), LIMITS).log_threshold
    assert rolled_back.log_threshold > decide(GOOD, Account(24, 3), LIMITS).log_threshold


def test_gate_account_survives_restart_and_fences(redis_client: redis.Redis) -> None:
    """The account outlives its process; an older owner, or an older account, cannot write."""
    first = LineAccount(redis_client, "a")
    epoch = first.claim()
    assert first.load() == Account()
    account = decide(GOOD, first.load(), LIMITS).account
    first.save(account, epoch)
    first.save(account, epoch)
    second = LineAccount(redis_client, "a")
    assert second.load() == account
    newer = second.claim()
    assert newer > epoch
    assert not first.owned(epoch)
    with pytest.raises(Superseded):
        first.save(replace(account, decisions=9), epoch)
    with pytest.raises(Superseded):
        second.save(Account(), newer)
    second.deny(1, newer)
    second.deny(0, newer)
    second.save(account, newer)
    assert second.load() == replace(account, denied=1)
    with pytest.raises(Superseded):
        first.deny(2, epoch)
    assert LineAccount(redis_client, "b").load() == Account()
