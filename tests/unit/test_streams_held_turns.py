"""Turns that scrub holds: judged with the next one, released in time, given up with their partition, never lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis

from streams.config import StreamConfig
from streams.events import decode_clean
from streams.held_turns import HeldTurns
from streams.ledger import Outcome
from streams.outbox import Output
from streams.scrub import Keys, Quarantined, Scrubber, ScrubConfig
from streams.scrub_stage import ScrubStage, ScrubStore
from tests.chat_records import message

KEYS = Keys("k1", {"k1": b"r" * 32}, b"f" * 32)
CONFIG = StreamConfig()


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def stage(client: redis.Redis, clock: Clock) -> ScrubStage:
    scrubber = Scrubber(ScrubConfig(hold_s=5), KEYS)
    store = ScrubStore(client, CONFIG, "e1", 1_000)
    return ScrubStage(scrubber, store, KEYS, CONFIG, held=HeldTurns(5, clock))


def states(client: redis.Redis) -> int:
    """Conversations whose state is stored."""
    return sum(1 for _ in client.scan_iter("scrub:fixed:*"))


def texts(outputs: Sequence[Output]) -> list[str | None]:
    return [decode_clean(record.value or b"").text for output in outputs for record in output.records]


def test_held_turn_leaves_in_front_of_the_next(redis_client: redis.Redis) -> None:
    """It holds its record until the turn that decides it; both are masked; others in the partition go on."""
    made = stage(redis_client, Clock())
    held, other = made.run([message(0, "starts 400"), message(1, "hello there", "c-2")])
    assert (held.records, texts([other]), made.holding) == ((), ["hello there"], 1)
    assert states(redis_client) == 1  # of c-2 alone: a held turn changes nothing that is stored
    assert held.hold is not None
    (decided,) = made.run([message(1, "then 0012 3456")])
    assert texts([decided]) == ["starts <ACCOUNT_ID_1>", "then <ACCOUNT_ID_2>"]
    assert (decided.frees, made.holding, states(redis_client)) == ((held.hold,), 0, 2)


def test_held_turn_and_the_next_in_one_batch(redis_client: redis.Redis) -> None:
    """The same when both arrive together."""
    made = stage(redis_client, Clock())
    held, decided = made.run([message(0, "starts 400"), message(1, "then 0012 3456")])
    assert texts([held, decided]) == ["starts <ACCOUNT_ID_1>", "then <ACCOUNT_ID_2>"]
    assert decided.frees == (held.hold,)


def test_held_turn_leaves_alone_when_nothing_follows(redis_client: redis.Redis) -> None:
    """After the time, or at once when the worker stops."""
    clock = Clock()
    made = stage(redis_client, clock)
    (held,) = made.run([message(0, "starts 400")])
    assert made.release(everything=False) == []
    clock.now = 5.0
    (alone,) = made.release(everything=False)
    assert (len(texts([alone])), alone.frees, made.holding) == (1, (held.hold,), 0)
    made.run([message(0, "from 300", "c-3")])
    assert len(texts(made.release(everything=True))) == 1


def test_held_turn_of_a_revoked_partition_is_given_up(redis_client: redis.Redis) -> None:
    """Its next owner reads it again; nothing here waits for it any more, and nothing is produced of it."""
    made = stage(redis_client, Clock())
    (held,) = made.run([message(0, "starts 400")])
    made.revoke(2)
    (freed,) = made.release(everything=False)
    assert (freed.records, freed.frees, made.holding) == ((), (held.hold,), 0)


def test_held_turn_survives_another_workers_write(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that has to be scrubbed again holds and releases as if it had been the first time."""
    made = stage(redis_client, Clock())
    (held,) = made.run([message(0, "starts 400")])
    save, tries = ScrubStore.save, []

    def refused_once(self: ScrubStore, *arguments: Any) -> bool:
        tries.append(1)
        return len(tries) > 1 and save(self, *arguments)

    monkeypatch.setattr(ScrubStore, "save", refused_once)
    (decided,) = made.run([message(1, "then 0012 3456")])
    assert (len(texts([decided])), decided.frees) == (2, (held.hold,))


def test_held_turn_is_read_again_after_a_crash(redis_client: redis.Redis) -> None:
    """Another worker that starts at the held record gives what the first would have given."""
    batch = [message(0, "starts 400"), message(1, "then 0012 3456")]
    stage(redis_client, Clock()).run(batch[:1])
    assert texts(stage(redis_client, Clock()).run(batch)) == ["starts <ACCOUNT_ID_1>", "then <ACCOUNT_ID_2>"]


def test_held_turn_that_cannot_be_masked_becomes_a_letter(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn behind it goes on, and so does one that fails when it is released alone."""
    clock = Clock()
    made = stage(redis_client, clock)
    real = Scrubber._now

    def failing(self: Scrubber, arrived: Any, state: Any) -> Any:
        if "400" in arrived.event.text:
            raise Quarantined("residual_digits")
        return real(self, arrived, state)

    monkeypatch.setattr(Scrubber, "_now", failing)
    (held,) = made.run([message(0, "starts 400")])
    (decided,) = made.run([message(1, "thank you")])
    assert [entry.outcome for _, entry in decided.moves] == [Outcome.DEAD_LETTERED]
    assert (len(decided.records), decided.frees) == (2, (held.hold,))
    made.run([message(0, "starts 400", "c-9")])
    clock.now = 9.0
    (alone,) = made.release(everything=False)
    assert [entry.reason for _, entry in alone.moves] == ["residual_digits"]
