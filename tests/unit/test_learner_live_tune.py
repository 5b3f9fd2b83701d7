"""Tuning on live traffic: it is watched without a trace, a population is decided, settings move, weights never."""

from __future__ import annotations

from threading import Event

import pytest
import redis

from learner.account import LineAccount
from learner.adapter import Base, load_base
from learner.config import TrainConfig, tuned
from learner.traffic import Traffic
from learner.tune import Budget, Population
from services.tuning import follow
from streams.events import Sample, Turn
from streams.replay import QUARANTINE, ReplayBuffer, TableConfig, open_table
from streams.replay.config import ANCHOR
from streams.replay.figures import stats
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(r=8, alpha=16, learning_rate=5e-3, warmup_steps=2, fresh_batch=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny base with random weights."""
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def table(redis_client: redis.Redis) -> ReplayBuffer:
    """An empty train table."""
    redis_client.flushall()
    return open_table(redis_client, "train", TableConfig(samples_per_insert=3.0), b"k" * 16, configure=True)


def samples(first: int, count: int, *, lane: str = "chat", line: str = "a") -> list[Sample]:
    """Short chats of our own text."""
    return [
        Sample(
            sample_id=f"e{n}/sft/0", conversation=f"c{n}", customer=f"k{n}", lane=lane, split="train", line=line,
            received_at=2e9, completed_at=0.0,
            turns=(
                Turn(role="customer", text=f"{TEXTS[n % 5]} {n}"),
                Turn(role="agent", text=TEXTS[n % 3 + 1], is_target=True),
            ),
        )
        for n in range(first, first + count)
    ]  # fmt: skip


def test_traffic_is_watched_without_a_trace(table: ReplayBuffer) -> None:
    """New samples of the line come once, in order, a share of conversations; no draw, lease or limiter moves."""
    table.insert(samples(0, 10))
    traffic, eighth = Traffic(table, "a", 1.0), Traffic(table, "a", 0.125)
    assert traffic.newest() == eighth.newest() == {}
    apart = [*samples(700, 1, lane=QUARANTINE), *samples(710, 1, lane=ANCHOR), *samples(720, 1, line="b")]
    table.insert([*samples(10, 200), *apart])
    before = stats(table)
    found, few = traffic.newest(), eighth.newest()
    assert [sample.conversation for sample in found.values()] == [f"c{n}" for n in range(10, 210)]
    assert few.keys() < found.keys()
    assert 8 <= len(few) <= 48
    assert traffic.newest() == {}
    assert stats(table).counters == before.counters
    assert stats(table).limiter == before.limiter
    gone = [bytes.fromhex(key) for key in list(found)[:3]]
    table.retire(gone, "erased")
    traffic.newest()
    assert not {digest.hex() for digest in gone} & traffic.stored


def test_tune_live_decides_and_forgets(base: Base, table: ReplayBuffer) -> None:
    """On what comes in, the rate that learns wins; what leaves the buffer is rehearsed no more."""
    points = [{"learning_rate": rate} for rate in (1e-6, 1e-2)]
    population = Population(base, CONFIG, points, Budget(fresh=4, window=6))
    traffic = Traffic(table, "a", 1.0)
    traffic.newest()
    table.insert(samples(0, 60))
    told: list[int] = []
    seen = follow(
        population, base, traffic, CONFIG, Event(), most_s=60, pause_s=0.0, told=lambda step, _losses: told.append(step)
    )
    assert population.decided
    assert population.result().best == {"learning_rate": 1e-2}
    assert seen == 4 * len(told) == 24
    population.keep(set())
    stopped = Event()
    stopped.set()
    assert follow(population, base, traffic, CONFIG, stopped, most_s=60, told=lambda *_: None) == 0


def test_tune_settings_reach_the_line(redis_client: redis.Redis) -> None:
    """Only settings of the optimiser move, checked like any others; the account and its epoch stay as they are."""
    redis_client.flushall()
    account = LineAccount(redis_client, "a")
    epoch = account.claim()
    assert account.tuned() == {}
    account.tune({"learning_rate": 1e-2})
    assert account.tuned() == {"learning_rate": 1e-2}
    assert account.owned(epoch)
    assert tuned(CONFIG, account.tuned()).learning_rate == pytest.approx(1e-2)
    with pytest.raises(ValueError, match="only learning_rate, clip_norm change live"):
        tuned(CONFIG, {"r": 32})
    with pytest.raises(ValueError, match="must be above 0"):
        tuned(CONFIG, {"learning_rate": -1.0})
