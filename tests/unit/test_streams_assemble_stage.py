"""The assembler's stage over a real Redis: once, in order, whatever is repeated, killed or taken over."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.assemble.store import AssembleStore
from streams.assemble_stage import AssembleStage, Produced
from streams.clock import SETTLE_S, StreamClock
from streams.config import StreamConfig
from streams.events import CleanEvent, Relane, Sample, decode_example, encode_record
from streams.lanes import Incoming
from streams.ledger import Entry, Ledger, Outcome
from streams.near_copies_store import RedisCopies
from streams.quality import QualityConfig
from streams.topics import CHATS_REJECTED, EXAMPLES
from tests.conversations import START, Counted, clean, conversation

KEY = b"k" * 32
CONFIG = StreamConfig()
QUALITY = QualityConfig(customer_daily=1_000, cluster_hourly=1_000)
LATER = START + 10_000_000


class Wall:
    """A wall clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Now, seconds."""
        return self.now


def stage(
    client: redis.Redis, wall: Wall, config: StreamConfig = CONFIG, quality: QualityConfig = QUALITY, count: Any = None
) -> AssembleStage:
    store = AssembleStore(client, config, quality, KEY, "e1")
    clock = StreamClock(client, "e1", wall)
    return AssembleStage(store, RedisCopies(client, quality), clock, config, quality=quality, key=KEY, count=count)


def incoming(events: Sequence[CleanEvent], first: int = 0) -> list[Incoming]:
    return [Incoming(0, first + n, b"k", encode_record(e), e.received_at) for n, e in enumerate(events)]


def finish(worker: AssembleStage, wall: Wall) -> Produced:
    """Everything that leaves once both topics have been read to their end, long after."""
    wall.now = LATER
    produced: Produced = {}
    for _ in range(40):
        found = worker.turn({0: True}, {0: True}, {}, list(produced))
        produced.update(found)
        wall.now += SETTLE_S + CONFIG.rating_wait_s
    return produced


def samples(produced: Produced) -> dict[str, Sample]:
    """The samples by id, without tags: which of two conversations contradicts the other hangs on who comes first."""
    found = {}
    for (_, name), pending in produced.items():
        record = decode_example(pending.value) if pending.topic == EXAMPLES else None
        if isinstance(record, Sample):
            found[name] = msgspec.structs.replace(record, tags=())
    return found


def entries(client: redis.Redis, events: Sequence[CleanEvent]) -> dict[str, Entry | None]:
    ledger = Ledger(client, KEY, 1_000)
    return dict(
        zip(
            [e.event_id for e in events],
            ledger.read([ledger.digest(e.event_id) for e in events]),
            strict=True,
        )
    )


def undisturbed(
    client: redis.Redis, events: Sequence[CleanEvent], config: StreamConfig
) -> tuple[dict[str, Sample], dict[str, Entry | None]]:
    """Samples and ledger entries of events that come in order, once; the server is empty afterwards."""
    client.flushall()
    wall = Wall()
    worker = stage(client, wall, config)
    worker.run(incoming(events))
    found = samples(finish(worker, wall)), entries(client, events)
    client.flushall()
    return found


def test_assemble_stage_files_arrivals_as_waiting(redis_client: redis.Redis) -> None:
    """Turn, ledger entry and offset bit are one write; a second arrival changes nothing."""
    events = conversation("c", 4, close=False)
    worker = stage(redis_client, Wall())
    worker.run(incoming(events))
    assert set(entries(redis_client, events).values()) == {Entry(Outcome.WAITING, "", 1)}
    before = redis_client.hgetall("asm:c:c")
    worker.run(incoming(events))
    worker.run(incoming(events, first=50))
    assert redis_client.hgetall("asm:c:c") == before


def test_assemble_stage_late_turn_is_rejected(redis_client: redis.Redis) -> None:
    """A turn below one that has left never rewrites history: rejected, no effect."""
    events = conversation("c", 4)
    wall = Wall()
    worker = stage(redis_client, wall)
    worker.run(incoming([e for e in events if e.seq != 1]))
    finish(worker, wall)
    worker.run(incoming([events[1]], first=10))
    assert entries(redis_client, [events[1]])["c.1"] == Entry(Outcome.REJECTED, "late", 0)


def test_assemble_stage_cut_survives_until_delivery(redis_client: redis.Redis) -> None:
    """A record that was cut is produced again by the next owner until its delivery is reported."""
    wall = Wall()
    worker = stage(redis_client, wall)
    worker.run(incoming(conversation("c", 4)))
    first = worker.turn({0: True}, {0: True}, {0: LATER}, [])
    assert list(samples(first)) == ["c.3/sft/0"]
    again = stage(redis_client, wall).turn({0: True}, {0: True}, {}, [])
    assert again == first
    assert not stage(redis_client, wall).turn({0: True}, {0: True}, {}, list(again))


def test_assemble_stage_woken_owner_cannot_cut(redis_client: redis.Redis) -> None:
    """A former owner with an old copy of the conversation is stopped by its generation."""
    wall = Wall()
    old, new = stage(redis_client, wall), stage(redis_client, wall)
    events = conversation("c", 4)
    old.run(incoming(events[:3]))
    new.run(incoming(events[3:], first=3))
    assert list(samples(finish(new, wall))) == ["c.3/sft/0"]
    assert not samples(finish(old, wall))


def test_assemble_stage_caps_one_customer(redis_client: redis.Redis) -> None:
    """Samples of one customer above the daily cap are rejected with their events."""
    wall = Wall()
    worker = stage(redis_client, wall, quality=replace(QUALITY, customer_daily=2))
    chats = [conversation(f"c{n}", 2, seed=n) for n in range(4)]
    named = [
        CleanEvent(**{**{f: getattr(e, f) for f in e.__struct_fields__}, "customer": "k1:ann"})
        for c in chats
        for e in c
    ]
    worker.run(incoming(named))
    assert len(samples(finish(worker, wall))) == 2
    outcomes = [e.reason for e in entries(redis_client, named).values() if e is not None and e.reason]
    assert outcomes.count("customer_cap") == 4


def test_assemble_stage_every_rejection_leaves_its_record(redis_client: redis.Redis) -> None:
    """Late, capped, noise, without reply: reason, score and text on chats.rejected, and a count, as the ledger says."""
    wall, counted = Wall(), Counted()
    worker = stage(redis_client, wall, quality=replace(QUALITY, customer_daily=1), count=counted)
    spam = "CONGRATULATIONS!! You WON a free prize, click http://win-cash.biz now and claim your $1000 gift card"
    chats = [
        [*conversation("cap0", 2), *conversation("cap1", 2, seed=3)],
        [clean("spam", 0), clean("spam", 1, role="agent", text=spam)],
        [clean("alone", 0), clean("alone", 1, type="conversation_closed", turns=1)],
        [event for event in conversation("late", 4) if event.seq != 1],
    ]
    events = [
        msgspec.structs.replace(event, customer="k1:ann" if event.conversation.startswith("cap") else None)
        for chat in chats
        for event in chat
    ]
    worker.run(incoming(events))
    produced = finish(worker, wall)
    behind = conversation("late", 4)[1]
    worker.run(incoming([behind], first=90))
    produced |= worker.turn({0: True}, {0: True}, {}, list(produced))
    found = [json.loads(pending.value) for pending in produced.values() if pending.topic == CHATS_REJECTED]
    why = {row["event_id"]: (row["reason"], row.get("text")) for row in found}
    filed = {name: entry for name, entry in entries(redis_client, [*events, behind]).items() if entry is not None}
    assert {name: reason for name, (reason, _) in why.items()} == {
        name: entry.reason for name, entry in filed.items() if entry.outcome == Outcome.REJECTED
    }
    assert {reason for reason, _ in why.values()} == {"customer_cap", "spam", "no_reply", "late"}
    texts = {event.event_id: event.text for event in [*events, behind]}
    assert all(text == texts[name] for name, (_, text) in why.items())
    scores = {row["reason"]: row["score"] for row in found}
    assert scores["late"] == scores["customer_cap"] == 1
    assert QUALITY.spam <= scores["spam"] < 1
    assert counted.found["rejected", "customer_cap"] == 2
    assert counted.found["rejected", "spam"] == counted.found["rejected", "late"] == 1
    again = stage(redis_client, wall).turn({0: True}, {0: True}, {}, [])
    assert f"{behind.event_id}/rejected/0" in {name for _, name in again}  # until its delivery is reported


def test_assemble_stage_shows_bad_answers_to_the_canary(redis_client: redis.Redis) -> None:
    """A bad rating of a version's answer is an outcome for the rollout, produced before the event is acknowledged."""
    answered = clean("c", 1, role="assistant", text="the refund takes five days", adapter="v1", answer_id="a1")
    worker = stage(redis_client, Wall())
    outputs = worker.run(
        incoming([clean("c", 0), answered, clean("c", 2, type="feedback", rating=0.0, answer_id="a1")])
    )
    (record,) = outputs[2].records
    assert record.topic == "rollout.outcomes"
    assert b'"answer_id":"a1"' in (record.value or b"")
    assert not outputs[1].records


def test_assemble_stage_full_server_changes_nothing(redis_client: redis.Redis) -> None:
    """On a full server the arrival fails before its first write, and succeeds when there is room again."""
    worker, events = stage(redis_client, Wall()), conversation("c", 4)
    redis_client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.ResponseError, match=r"OOM|maxmemory"):
            worker.run(incoming(events))
        assert not list(redis_client.scan_iter("asm:c:*"))
    finally:
        redis_client.config_set("maxmemory", "0")
    worker.run(incoming(events))
    assert None not in entries(redis_client, events).values()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_assemble_stage_same_samples_whatever_happens(redis_client: redis.Redis, rng: random.Random) -> None:
    """Any order within the window, any duplication, any kill point: the same samples, each event once."""
    config = replace(CONFIG, emit_after_s=1e9)  # a restarted worker's clock is lower: only completion cuts here
    chats = [conversation(f"c{n}", rng.randrange(1, 8), seed=n) for n in range(5)]
    orderly = [event for chat in chats for event in chat]
    expected, filed = undisturbed(redis_client, orderly, config)
    wall = Wall()
    log = orderly + rng.sample(orderly, len(orderly) // 3)
    rng.shuffle(log)
    records = incoming(log)
    at = 0
    while at < len(records):
        worker = stage(redis_client, wall, config)
        upto = rng.randrange(at, len(records)) + 1
        for first in range(at, upto, 5):
            worker.run(records[first : min(first + 5, upto)])
        at = upto if upto == len(records) else rng.randrange(at, upto) + 1
    assert samples(finish(worker, wall)) == expected
    assert entries(redis_client, orderly) == filed


class Dying(redis.Redis):
    """A connection whose process dies at its nth command: before the server has it, or after it acted."""

    left = 0
    after = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """The answer, unless this is the last command."""
        self.left -= 1
        if self.left == 0 and not self.after:
            raise redis.ConnectionError
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis' own is untyped
        if self.left == 0:
            raise redis.ConnectionError
        return answer


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_assemble_stage_dies_at_any_command(redis_client: redis.Redis, redis_url: str, seed: int) -> None:
    """Killed at any command again and again, with cuts and lost reports between: the same samples, each event once."""
    rng = random.Random(seed)
    config = replace(CONFIG, emit_after_s=1e9)
    chats = [conversation(f"c{n}", rng.randrange(1, 8), seed=n) for n in range(4)]
    orderly = [event for chat in chats for event in chat]
    expected, filed = undisturbed(redis_client, orderly, config)
    wall = Wall()
    log = orderly + rng.sample(orderly, len(orderly) // 3)
    rng.shuffle(log)
    records, committed = incoming(log), 0
    everything: Produced = {}
    while committed < len(records):
        mortal = cast(Dying, Dying.from_url(redis_url))
        mortal.left, mortal.after = rng.randrange(1, 30), rng.choice((True, False))
        try:
            at, worker = committed, stage(mortal, wall, config)
            unsent: list[tuple[int, str]] = []
            while at < len(records):
                upto = min(len(records), at + rng.randrange(1, 6))
                worker.run(records[at:upto])
                newest = max(record.at for record in records[:upto])
                at, produced = upto, worker.turn({0: False}, {0: True}, {0: newest}, unsent)
                everything |= produced
                unsent = [place for place in produced if rng.random() < 0.5]  # the others' reports are lost
                committed = at if rng.random() < 0.5 else committed
            committed = at
        except redis.ConnectionError:
            continue
        finally:
            mortal.close()
    everything |= finish(stage(redis_client, wall, config), wall)
    assert samples(everything) == expected
    assert entries(redis_client, orderly) == filed


LATE = START + 5_000
"""Longer than `idle_s` after the last turn of a short chat."""


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("late", "becomes"),
    [
        ([{"type": "feedback", "rating": 1.0, "target_seq": 0}], [Entry(Outcome.REJECTED, "no_target", 1)]),
        ([{"type": "conversation_closed", "turns": 9}], [Entry(Outcome.ACCEPTED, "", 1)]),
        (
            [{"type": "feedback", "rating": 0.0}, {"type": "feedback", "rating": 1.0, "target_seq": 0}],
            [Entry(Outcome.WAITING, "", 1), Entry(Outcome.REJECTED, "no_target", 1)],
        ),
    ],
    ids=["feedback on no reply", "close that counts missing turns", "an annotation beside it"],
)
def test_assemble_stage_settles_what_comes_after_an_idle_conversation_ended(
    redis_client: redis.Redis, late: list[dict[str, Any]], becomes: list[Entry], *, restarted: bool
) -> None:
    """Behind a gap, it is looked at once while the conversation may still go on, and settled when that has ended.

    An annotation that was cut waits on `examples`, where the next stage settles it.
    """
    wall = Wall()
    worker = stage(redis_client, wall)
    worker.run(incoming(conversation("c", 4, close=False)))
    for _ in range(2):
        worker.turn({0: False}, {0: True}, {0: LATE}, [])
        wall.now += 2 * SETTLE_S
    assert redis_client.hget("asm:c:c", "l") == b"3"
    assert not redis_client.exists("asm:open:0")
    events = [clean("c", 5 + n, received_at=LATE, **fields) for n, fields in enumerate(late)]
    worker.run(incoming(events, first=10))
    worker.turn({0: False}, {0: True}, {0: LATE}, [])
    worker = stage(redis_client, wall) if restarted else worker
    finish(worker, wall)
    assert list(entries(redis_client, events).values()) == becomes
    assert not redis_client.exists("asm:open:0")


def _told(name: str, reply: str, customer: str, agent: str) -> list[CleanEvent]:
    """A closed chat of one question and one reply."""
    question = "How long do I have to send the blue jacket back to you?"
    return [
        clean(name, 0, text=question, customer=customer),
        clean(name, 1, role="agent", text=reply, agent_id=agent),
        clean(name, 2, type="conversation_closed", turns=2),
    ]


def test_assemble_stage_holds_what_contradicts_until_others_agree(redis_client: redis.Redis) -> None:
    """One account's contradiction waits in quarantine until three customers were told so by three agents."""
    true = "You can send it back within 30 days of delivery, and the label is in the box."
    wall = Wall()
    worker = stage(redis_client, wall, replace(CONFIG, shares=(1.0, 0.0, 0.0)))
    lanes: dict[str, str] = {}
    moves: list[Relane] = []
    chats = [(f"t{n}", true, f"customer-{n}", f"agent-{n}") for n in range(3)]
    chats += [("l0", true.replace("30", "90"), "one", "agent-1"), ("l1", true.replace("30 days", "90 days"), "one", "")]
    chats += [(f"n{n}", true.replace("30", "90").replace("can", "may"), f"new-{n}", f"agent-{n + 5}") for n in range(2)]
    for at, chat in enumerate(chats):
        worker.run(incoming(_told(*chat), first=at * 3))
        for pending in finish(worker, wall).values():
            record = decode_example(pending.value) if pending.topic == EXAMPLES else None
            if isinstance(record, Sample):
                lanes[record.conversation] = record.lane
            elif isinstance(record, Relane):
                moves.append(record)
    assert {name: lanes.get(name) for name in ("t0", "l0")} == {"t0": "chat", "l0": "quarantine"}
    assert moves
    assert {(move.lane, "l0.1" in move.targets) for move in moves} == {("chat", True)}
