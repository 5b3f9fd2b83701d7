"""When the gate is asked: always by default, else when the prequential loss has fallen, and never later than set."""

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
        looks.observe(loss)
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
        looks.observe(loss)
        if looks.due(step):
            found.append(step)
    assert found == looks_at(losses)
    looks.clear()
    looks.observe(None)
    assert looks.due(80)
