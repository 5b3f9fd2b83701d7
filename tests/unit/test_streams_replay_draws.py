"""The sampler against its own declaration: probabilities, weights, reproducibility."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from streams.replay import Draw, Mix, Part, Quota, ReplayBuffer, TableConfig, draw_seed, open_table
from streams.replay.mix import effective_size, importance, priority_bin
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables

LANES = ("a", "b", "c", "d", "anchor")
MIXTURE = Mix(
    (
        Part("fresh", "*", 0.2), Part("prio", "*", 0.3), Part("uniform", ("a", "c"), 0.2),
        Part("recent", "b", 0.1), Part("uniform", "anchor", 0.2),
    ),
    tau=0.5,
)  # fmt: skip
PRIO = Mix((Part("prio", "*", 1.0),))
BATCH = 256


@pytest.fixture(scope="module", params=sorted(executables()))
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of each server found."""
    folder: Path = tmp_path_factory.mktemp("redis")
    server = RedisServer(executables()[request.param], folder)
    connected = server.start()
    yield connected
    connected.close()
    server.kill()


def churned(client: redis.Redis, seed: int, items: int = 800) -> ReplayBuffer:
    """A table after inserts with eviction, trainings of random priority, retirements and leases."""
    client.flushall()
    rng = random.Random(seed)
    config = dataclasses.replace(
        TableConfig(), capacity=items * 3 // 4, quotas={"*": Quota(items), "d": Quota(items, "lowest")}
    )
    buffer = open_table(client, "train", config, KEY, configure=True)
    now = 1_000_000_000.0 + float(client.time()[0]) // 86_400 * 86_400
    buffer.insert([sample(i, received_at=now, lane=rng.choice(LANES)) for i in range(items)])
    for step in range(6):
        batch = buffer.draw(Mix((Part("uniform", "*", 1.0),)), 128, seed=seed + step)
        assert isinstance(batch, Draw)
        handles = [d.handle for d in batch.records]
        buffer.update(handles, [2 ** rng.gauss(0, 2) for _ in handles], run=1, step=step + 1)
        buffer.retire([h.digest for h in handles[:5]], "superseded")
    buffer.draw(Mix((Part("uniform", "*", 1.0),)), 32, seed=seed, lease_s=10_000)
    return buffer


def counted(
    buffer: ReplayBuffer, mix: Mix, alpha: float, first_seed: int, draws: int
) -> tuple[Counter[int], dict[int, float]]:
    """How often each slot was drawn, and the probability that was declared for it."""
    seen: Counter[int] = Counter()
    declared: dict[int, float] = {}
    for n in range(draws):
        batch = buffer.draw(mix, BATCH, seed=draw_seed(first_seed, n, "test"), alpha=alpha)
        assert isinstance(batch, Draw)
        assert len(batch.records) == BATCH
        for record in batch.records:
            assert declared.setdefault(record.handle.slot, record.p) == record.p
            seen[record.handle.slot] += 1
    return seen, declared


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("mix", "alpha"), [(PRIO, 0.0), (PRIO, 0.6), (PRIO, 1.0), (MIXTURE, 0.6)])
def test_draws_follow_the_declared_probabilities(client: redis.Redis, mix: Mix, alpha: float, seed: int) -> None:
    """Declared probabilities sum to 1 and the least is the least; a chi-square test has p > 0.001."""
    buffer = churned(client, seed)
    seen, declared = counted(buffer, mix, alpha, seed, 60)
    total = sum(seen.values())
    one = buffer.draw(mix, BATCH, seed=1, alpha=alpha)
    assert isinstance(one, Draw)
    # What was never drawn in 15,360 draws can only be the rarest items: they are pooled into one cell.
    left = 1 - sum(declared.values())
    assert -1e-9 < left < (one.eligible - len(declared) + 1e-6) * max(declared.values())
    assert min(declared.values()) >= one.least_p * (1 - 1e-9)
    cells = [(seen[slot], p * total) for slot, p in declared.items() if p * total >= 5]
    rest = total - sum(n for n, _ in cells), total - sum(e for _, e in cells)
    cells += [rest] if rest[1] >= 5 else []
    scale = sum(n for n, _ in cells) / sum(e for _, e in cells)
    assert chisquare([n for n, _ in cells], [e * scale for _, e in cells]).pvalue > 1e-3


def test_draws_weights_undo_the_mix(client: redis.Redis) -> None:
    """With beta 1 the weighted mean of a quantity is its mean over the table, within 3 standard errors."""
    buffer = churned(client, 5)
    everywhere = Mix((Part("prio", "*", 0.5), Part("uniform", "*", 0.5)))
    _, declared = counted(buffer, Mix((Part("uniform", "*", 1.0),)), 1.0, 9, 60)
    truth = sum(slot % 17 for slot in declared) / len(declared)
    means = []
    for n in range(60):
        batch = buffer.draw(everywhere, BATCH, seed=n, alpha=1.0)
        assert isinstance(batch, Draw)
        weights = importance([d.p for d in batch.records], batch.least_p, 1.0)
        assert max(weights) <= 1 + 1e-9
        means.append(sum(w * (d.handle.slot % 17) for w, d in zip(weights, batch.records, strict=True)) / sum(weights))
    mean = sum(means) / len(means)
    error = (sum((m - mean) ** 2 for m in means) / (len(means) - 1) / len(means)) ** 0.5
    assert abs(mean - truth) < 3 * error


def test_draws_fresh_hands_each_out_once(client: redis.Redis) -> None:
    """`fresh` is without replacement, and what it lacks goes to the other parts pro rata."""
    client.flushall()
    buffer = open_table(client, "train", TableConfig(), KEY, configure=True)
    now = float(client.time()[0])
    buffer.insert([sample(i, received_at=now, lane=LANES[i % 3]) for i in range(12)])
    buffer.insert([sample(i, received_at=now, lane="anchor") for i in range(20, 25)])
    mix = Mix((Part("fresh", "*", 0.5), Part("uniform", "anchor", 0.5)), tau=0.0)
    batch = buffer.draw(mix, 40, seed=3)
    assert isinstance(batch, Draw)
    fresh = [d.handle.slot for d in batch.records if d.part == 0]
    assert (len(fresh), len(set(fresh)), batch.drawn) == (12, 12, (12, 28))
    assert batch.shares == pytest.approx((0.3, 0.7))


def test_draws_are_the_same_on_every_server(tmp_path: Path) -> None:
    """Same seed, same state: the same bytes, whatever server holds the table."""
    answers = []
    for name, executable in executables().items():
        (tmp_path / name).mkdir()
        with RedisServer(executable, tmp_path / name) as server:
            buffer = churned(server.start(), 7)
            drawn = [buffer.draw(MIXTURE, 64, seed=seed) for seed in range(20)]
            answers.append([d.records for d in drawn if isinstance(d, Draw)])
    assert len(answers[0]) == 20
    assert all(answer == answers[0] for answer in answers)


def test_draws_follow_tau(client: redis.Redis) -> None:
    """tau 1 spreads over lanes by size, tau 0 equally."""
    client.flushall()
    buffer = open_table(client, "train", TableConfig(), KEY, configure=True)
    now = float(client.time()[0])
    buffer.insert([sample(i, received_at=now, lane="a" if i < 90 else "b") for i in range(100)])
    for tau, expected in ((1.0, 10), (0.0, 50)):
        batch = buffer.draw(Mix((Part("uniform", "*", 1.0),), tau=tau), 100, seed=1)
        assert isinstance(batch, Draw)
        assert sum(d.lane == 1 for d in batch.records) == expected


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_draws_bins_are_monotone_and_close(priority: float) -> None:
    """A bin is within a factor 2^(1/8) of its priorities, and never falls as the priority rises."""
    number = priority_bin(priority)
    assert 1 <= number <= 62
    assert priority_bin(priority * 2) >= number
    if 1 < number < 62:
        assert 2 ** (-1 / 8) * 0.999 <= priority / 2 ** ((number - 40) / 4) <= 2 ** (1 / 8) * 1.001


def test_draws_mix_refuses_shares_that_do_not_sum_to_one() -> None:
    """A mix says what its shares sum to."""
    with pytest.raises(ValueError, match="sum to"):
        Mix((Part("fresh", "*", 0.5),))


def test_draws_seed_is_stable_over_processes() -> None:
    """A seed does not depend on Python's own salted hash."""
    assert draw_seed(1, 2, "learner") == draw_seed(1, 2, "learner") == 0x7FFF_FFFF & draw_seed(1, 2, "learner")
    assert draw_seed(1, 2, "learner") != draw_seed(1, 3, "learner")


def test_draws_effective_size() -> None:
    """Equal weights count fully, one dominant weight counts as one."""
    assert effective_size([1.0] * 8) == 8
    assert effective_size([1.0, 0.0, 0.0]) == 1
    assert effective_size([]) == 0
