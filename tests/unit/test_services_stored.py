from __future__ import annotations

import redis

from services.stored import Stored
from streams.events import Sample, Split, Turn
from streams.replay import ReplayConfig, Tables, open_tables

KEY = b"k" * 16


def _sample(number: int, split: Split, line: str = "a", *, old: bool = False) -> Sample:
    turns = (
        Turn(role="customer", text=f"question {number}"),
        Turn(role="agent", text=f"{'old' if old else 'new'} answer {number}", is_target=True),
    )
    return Sample(
        sample_id=f"e{number}/sft/0", conversation=f"c{number}", customer=f"k{number}", lane="chat", split=split,
        line=line, turns=turns, received_at=2e9, completed_at=1e6 - number,
    )  # fmt: skip


def _outdated(sample: Sample) -> bool:
    return sample.turns[-1].text.startswith("old")


def _tables(client: redis.Redis) -> Tables:
    client.flushall()
    tables = open_tables(client, ReplayConfig(require_aof=False), KEY, "e", configure=True)
    tables.insert([_sample(1, "val"), _sample(2, "val", "b"), _sample(3, "val", old=True)])
    tables.insert([_sample(4, "test"), _sample(5, "test"), _sample(6, "test", old=True)])
    tables.golden.insert([_sample(7, "test"), _sample(8, "test", "b"), _sample(9, "test", old=True)])
    return tables


def test_stored_reads_the_lines_own_samples(redis_client: redis.Redis) -> None:
    """Each table gives the line's samples, those of a superseded fact left out, reports' ones with the newest last."""
    stored = Stored(_tables(redis_client), "a", KEY, _outdated)
    assert [one.conversation for one in stored.val()] == ["c1"]
    assert [one.conversation for one in stored.test()] == ["c5", "c4"]
    assert [one.conversation for one in stored.golden()] == ["c7"]
    assert stored.train() == []


def test_stored_retires_what_states_an_old_fact(redis_client: redis.Redis) -> None:
    """A superseded fact leaves every held-out table, or the gate would refuse the truth for ever; other lines stay."""
    tables = _tables(redis_client)
    assert Stored(tables, "a", KEY, _outdated).retire(_outdated) == 3
    left = Stored(tables, "a", KEY, lambda _sample: False)
    assert [len(found) for found in (left.val(), left.test(), left.golden())] == [1, 2, 1]
    assert [one.conversation for one in Stored(tables, "b", KEY, _outdated).golden()] == ["c8"]
