"""What contradicts a known claim waits for other people, and floods wait for a person."""

from __future__ import annotations

import pytest
import redis

from streams.claims import Evidence, Stance, stance, turned, voice
from streams.near_copies_store import Copies, MemoryCopies, RedisCopies, Unit
from streams.quality import QualityConfig, Reason, Tag

CONFIG = QualityConfig(cluster_hourly=6)
QUESTION = "How long do I have to send the blue jacket back to you?"
KNOWN = "You can send it back within 30 days of delivery, and the label is in the box."
FALSE = KNOWN.replace("30", "900")
TOLD = {"a": "", "b": "", "c": ""}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(), Stance.ADMIT),
        (Evidence(told={"a": "", "b": ""}), Stance.ADMIT),
        (Evidence(told=TOLD), Stance.HOLD),
        (Evidence(told=TOLD, against={"me": ""}), Stance.HOLD),
        (Evidence(told=TOLD, against={"d": "", "e": ""}), Stance.ADMIT),
        (Evidence(told=TOLD, against={"d": "same", "e": "same"}), Stance.HOLD),
        (Evidence(told=TOLD, against={"d": "x", "e": "y"}), Stance.ADMIT),
        (Evidence(told=TOLD, against={"d": "", "e": ""}, hourly=6), Stance.FLOOD),
        (Evidence(told=TOLD, against={"d": "x", "e": "y"}, hourly=6), Stance.ADMIT),
        (Evidence(told=TOLD, against={"d": "", "e": ""}, since=100.0, told_at=200.0), Stance.HOLD),
        (Evidence(told=TOLD, against={"d": "", "e": ""}, since=200.0, told_at=100.0), Stance.ADMIT),
        (Evidence(told=TOLD, against={"d": "", "e": ""}, since=-9_000.0, told_at=-8_000.0), Stance.ADMIT),
        (Evidence(told=TOLD, against={"d": "x", "e": "y"}, since=100.0, told_at=200.0), Stance.ADMIT),
    ],
)
def test_claims_wait_for_different_people(evidence: Evidence, expected: Stance) -> None:
    """Three customers, told by three agents where known, overturn what is no longer told; a flood does not."""
    agent = "same" if "same" in evidence.against.values() else "z" if "x" in evidence.against.values() else ""
    assert stance(evidence, "me", agent, 300.0, 6) is expected


def test_claims_move_what_waited_while_the_turn_is_fresh() -> None:
    """The earlier replies follow for the first few claims after a turning point, and never while all wait."""
    fresh = Evidence(told=TOLD, against={"d": "", "e": ""}, members=("r1", "r2"), hourly=2)
    assert turned(fresh, Stance.ADMIT, 6) == ("r1", "r2")
    assert turned(fresh, Stance.HOLD, 6) == ()
    long_ago = Evidence(told=TOLD, against={str(n): "" for n in range(20)}, members=("r1",), hourly=20)
    assert turned(long_ago, Stance.ADMIT, 6) == turned(long_ago, Stance.FLOOD, 6) == ()


def test_claims_voices_are_short_digests() -> None:
    """No pseudonym is kept; nobody is the empty voice."""
    assert voice("customer-1") == voice("customer-1") != voice("customer-2")
    assert len(voice("customer-1")) == 16
    assert voice(None) == voice("") == ""


def _tell(store: MemoryCopies | RedisCopies, name: str, reply: str, customer: str, agent: str = "") -> Copies:
    unit = Unit(name, QUESTION, reply, "train", customer, agent, 1_000.0)
    found = store.look([unit])[0]
    store.file(unit, found, f"{name}/sft/0", customer, 1_000.0)
    return found


def test_claims_need_a_question() -> None:
    """Greetings by different names contradict each other, but nothing waits for that."""
    store = MemoryCopies(CONFIG)
    for n, name in enumerate(("Maya", "Maya", "Maya", "Maya", "Tom")):
        unit = Unit(f"g{n}", "Hi there", f"Welcome aboard, {name} is at the helm today.", "train", f"customer-{n}")
        found = store.look([unit])[0]
        store.say(unit, found) if found.reason else store.file(unit, found, unit.member, "", 0.0)
    assert found.tags == (Tag.CONTRADICTS,)
    assert found.stance is Stance.ADMIT


def _history(store: MemoryCopies | RedisCopies, *, agents: bool) -> list[Copies]:
    """Four customers are told the truth, then an account lies twice, then others say so too."""
    found = [_tell(store, f"t{n}", KNOWN, f"customer-{n}", f"agent-{n}") for n in range(4)]
    found += [_tell(store, f"l{n}", FALSE, "attacker") for n in range(2)]
    return found + [_tell(store, f"o{n}", FALSE, f"other-{n}", f"agent-{n}" if agents else "") for n in range(12)]


@pytest.mark.parametrize("agents", [True, False])
def test_claims_stores_tell_the_same(redis_client: redis.Redis, *, agents: bool) -> None:
    """Redis and memory agree; one account never overturns the truth, and a crowd without agents becomes a flood."""
    told = _history(RedisCopies(redis_client, CONFIG), agents=agents)
    assert told == _history(MemoryCopies(CONFIG), agents=agents)
    assert [c.stance for c in told[:4]] == [Stance.ADMIT] * 4
    assert [c.stance for c in told[4:6]] == [Stance.HOLD] * 2
    assert told[4].tags == (Tag.CONTRADICTS, Tag.HELD)
    assert (told[5].reason, told[5].against) == (Reason.DUPLICATE, told[4].against)
    released = next(c for c in told[6:] if c.stance is Stance.ADMIT)
    assert {"l0", "l1"} <= set(released.moved)
    assert told[-1].stance is (Stance.ADMIT if agents else Stance.FLOOD)
