from __future__ import annotations

import json
import random

from learner.batch import Document, Drawn
from learner.config import TrainConfig
from learner.guard import Guard, Spikes

CONFIG = TrainConfig()


def chat(key: int, lane: str = "chat") -> Document:
    return Document((1, 2), (), Drawn("fresh", f"{key:04x}", lane=lane))


def see(guard: Guard, key: int, loss: float, lane: str = "chat") -> tuple[bool, list[str]]:
    document = chat(key, lane)
    kept = guard.accepts(document, loss)
    return kept, guard.observe([(document, loss, kept)])


def test_guard_sets_gibberish_apart_and_keeps_good_chats() -> None:
    """With 20 % gibberish at least 95 % of it waits, and at most 3 % of the good chats do."""
    rng, guard = random.Random(1), Guard(2048, CONFIG)
    good_apart = bad_apart = good = bad = 0
    for key in range(1000):
        noise = key > 40 and rng.random() < 0.2
        kept, _ = see(guard, key, rng.gauss(5.2, 0.4) if noise else abs(rng.gauss(1.2, 0.45)))
        good, bad = good + (not noise), bad + noise
        good_apart, bad_apart = good_apart + (not noise and not kept), bad_apart + (noise and not kept)
    assert bad_apart >= 0.95 * bad
    assert good_apart <= 0.03 * good


def test_guard_follows_a_new_topic() -> None:
    """A lane whose chats all change comes back after half a window: those that waited are readmitted."""
    rng, guard = random.Random(2), Guard(2048, CONFIG)
    for key in range(60):
        see(guard, key, abs(rng.gauss(0.8, 0.2)))
    waited, back = 0, list[str]()
    for key in range(100, 130):
        kept, readmitted = see(guard, key, rng.gauss(4.0, 0.3))
        waited += not kept
        back += readmitted
    assert 8 <= waited <= 16
    assert len(back) == waited
    assert not guard.waiting


def test_guard_follows_a_topic_at_which_the_base_guesses() -> None:
    """A topic so far from the base that it is lost on it is a topic too; single chats of that kind are not."""
    rng, guard = random.Random(3), Guard(2048, CONFIG)
    for key in range(60):
        see(guard, key, abs(rng.gauss(0.8, 0.2)))
        if key % 5 == 4:
            assert not see(guard, 1000 + key, 8.6)[0] or key < 16
    assert guard.waiting
    back = [key for at in range(100, 130) for key in see(guard, at, rng.gauss(8.6, 0.3))[1]]
    assert f"{100:04x}" in back
    assert see(guard, 200, 8.6)[0]


def test_guard_starts_with_a_base_that_guesses() -> None:
    """While nothing is known of a lane no loss is too high; once it is learned, guessing is."""
    guard = Guard(2048, CONFIG)
    for key in range(16):
        assert see(guard, key, 8.3)[0]
    for key in range(100, 300):
        see(guard, key, 1.0)
    assert not see(guard, 999, 7.3)[0]
    assert see(guard, 1000, 8.0, lane="unseen")[0]


def test_guard_state_survives() -> None:
    """A guard that was saved as JSON judges as before."""
    guard = Guard(2048, CONFIG)
    for key in range(40):
        see(guard, key, 1.0 + key % 3 / 10)
    see(guard, 41, 6.0)
    other = Guard(2048, CONFIG)
    other.load(json.loads(json.dumps(guard.state())))
    assert other.state() == guard.state()
    assert not other.accepts(chat(50), 6.0)
    other.forget(["0029"])
    assert not other.waiting


def test_guard_spikes_skip_and_three_are_lost() -> None:
    """A non-finite or far too large gradient is skipped; three skips in twenty steps end the trajectory."""
    spikes = Spikes(5.0)
    for _ in range(20):
        assert spikes.accepts(1.0)
    assert not spikes.accepts(float("nan"))
    assert not spikes.accepts(float("inf"))
    assert spikes.accepts(4.9)
    assert not spikes.lost
    assert not spikes.accepts(5.1)
    assert spikes.lost
    spikes.clear()
    assert not spikes.lost
