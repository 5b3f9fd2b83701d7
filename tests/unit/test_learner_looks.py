"""When the gate is asked: by steps, by a fall of the prequential loss, and by the clock."""

from __future__ import annotations

import itertools
import random

from learner.config import TrainConfig
from learner.looks import Looks

CONFIG = TrainConfig(decide_every=10, decide_latest=60)


def looks_at(losses: list[float], config: TrainConfig = CONFIG) -> list[int]:
    """The steps after which the gate is asked."""
    looks = Looks(config)
    found = []
    for step, loss in enumerate(losses, start=1):
        looks.observe(loss, float(step))
        if looks.due(step):
            found.append(step)
    return found


def noisy(levels: list[float], seed: int) -> list[float]:
    """Ten steps on each level."""
    draw = random.Random(seed)
    return [draw.gauss(level, 0.1) for level in levels for _ in range(10)]


def test_looks_default_is_every_so_many_steps() -> None:
    """Without a latest step the loss does not matter."""
    assert looks_at(noisy([1.0] * 5, 1), TrainConfig(decide_every=10)) == [10, 20, 30, 40, 50]


def test_looks_follow_a_line_that_learns_and_leave_a_still_one_alone() -> None:
    """Each fall is looked at; a stationary stream is looked at far less often, yet never later than set."""
    assert looks_at(noisy([3.0, 2.0, 1.5, 1.2, 1.0], 2)) == [10, 20, 30, 40, 50]
    still = [looks_at(noisy([1.0] * 100, seed)) for seed in range(20)]
    gaps = [later - earlier for steps in still for earlier, later in itertools.pairwise(steps)]
    assert max(gaps) <= 60
    assert sum(map(len, still)) / (20 * 100) < 0.5


def test_looks_wait_for_a_new_topic_to_be_learned() -> None:
    """A jump of the loss is no gain; the fall from its peak is one, though it still lies above what was before."""
    found = looks_at(noisy([1.0, 1.0, 3.0, 3.0, 2.0], 3))
    assert 30 not in found
    assert 50 in found


def test_looks_survive_a_checkpoint() -> None:
    """Stopped and restored anywhere, the same steps are looked at."""
    losses = noisy([2.0, 1.9, 1.9, 2.5, 2.0, 1.9, 1.9], 4)
    looks, found = Looks(CONFIG), list[int]()
    for step, loss in enumerate(losses, start=1):
        again = Looks(CONFIG)
        again.load(looks.state())
        looks = again
        looks.observe(loss, float(step))
        if looks.due(step):
            found.append(step)
    assert found == looks_at(losses)
    looks.clear()
    looks.observe(None, 80.0)
    assert looks.due(80)


TIMED = TrainConfig(offer_within_s=24.0)


def test_looks_by_the_clock_wait_for_the_end_of_a_backlog() -> None:
    """What was learned is offered after half the time once nothing waits, else after all of it, and only once."""
    looks = Looks(TIMED)
    assert not looks.overdue(1000.0, backlog=False, held_up=False)
    looks.observe(1.0, 100.0)
    looks.observe(1.0, 120.0)
    seen = [(at, backlog) for at in (111.0, 112.0, 123.0, 124.0) for backlog in (False, True)]
    found = [looks.overdue(at, backlog=backlog, held_up=False) for at, backlog in seen]
    assert found == [False, False, True, False, True, False, True, True]
    looks.offered()
    assert not looks.overdue(1000.0, backlog=False, held_up=False)


def test_looks_by_the_clock_are_held_up_but_not_for_ever() -> None:
    """A version that has not reached a customer holds the next offer up to four times as long."""
    looks = Looks(TIMED)
    looks.stepped(0.0)
    assert [looks.overdue(at, backlog=False, held_up=True) for at in (24.0, 95.0, 96.0)] == [False, False, True]


def test_looks_again_after_pauses_that_double() -> None:
    """An unproven candidate is offered again sooner than new steps would be; each further one waits twice as long."""
    looks, now, pauses = Looks(TIMED), 0.0, list[float]()
    looks.stepped(now)
    for _ in range(4):
        looks.offered()
        looks.unproven(now)
        began = now
        while not looks.overdue(now, backlog=True, held_up=True):
            now += 1.0
        pauses.append(now - began)
    assert pauses == [6.0, 12.0, 24.0, 48.0]
    looks.published()
    looks.unproven(now)
    assert looks.overdue(now + 6.0, backlog=False, held_up=False)


def test_looks_again_soon_where_the_gate_could_not_look() -> None:
    """Too few held-out examples cost a short pause."""
    looks = Looks(TIMED)
    looks.postponed(50.0)
    assert [looks.overdue(at, backlog=True, held_up=True) for at in (51.0, 52.0)] == [False, True]
