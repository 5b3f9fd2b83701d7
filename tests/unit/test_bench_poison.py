"""The poison drill in its short form: what the filters let through, and that an attack without them works."""

from __future__ import annotations

import pytest
import torch

from tests.bench.poison import CASES, Case, Report, drill, filtered, traffic


@pytest.mark.parametrize("case", [case for case in CASES if case.guarded], ids=lambda case: case.name)
def test_bench_poison_filters_hold_the_attack(case: Case) -> None:
    """Of 30 % of the traffic a few chats get through, of the honest chats most that are no copies."""
    sent, report = traffic(300, case), Report()
    let_in: list[int] = []
    for into, back in filtered(sent, report):
        let_in += [id(one) for one in into]
        let_in = [one for one in let_in if one not in {id(gone) for gone in back}]
    attack = {id(one) for one in sent if one.attack}
    honest = {id(one) for one in sent} - attack
    assert len(attack) == (154 if case.accounts else 0)
    assert len(attack & set(let_in)) <= 0.05 * len(let_in)
    assert len(honest & set(let_in)) >= 0.75 * len(honest)


def test_bench_poison_filters_decide_who_is_learned() -> None:
    """The same attack, shorter: the lie gains more on the truth without the filters than with them."""
    torch.set_num_threads(1)
    gained = {}
    for guarded in (False, True):
        case = Case(50, varied=True, guarded=guarded)
        report, before, after = drill(traffic(60, case), guarded=guarded, steps=10)
        gained[guarded] = after - before
        assert (report.share > 0.1) is not guarded
    assert gained[True] < gained[False]
