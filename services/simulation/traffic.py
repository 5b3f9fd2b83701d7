"""Simulated traffic: chats as they arrive at a broker, interleaved, late, twice, broken, with ground truth.

Records have the schema of chats.raw: `offset_ms`, `key`, and `value` (an object) or `value_raw` (a broken one).
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count as counter
from random import Random
from typing import Any

from services.simulation import noise
from services.simulation.dialogue import Conversation, conversations
from services.simulation.draw import chance, pick
from services.simulation.policy import Fact
from services.simulation.reaction import event_id

START_S = 1_767_323_045
"""The moment of the first record in the stream's own time, Unix seconds; only differences matter."""

TURNS = 8.5
"""Records of an average chat; turns a rate of records into a rate of chats."""

BREAKS = (
    "truncated_json", "not_json", "wrong_type", "unknown_role", "missing_field", "null_text", "empty_text",
    "huge_text", "bad_key",
)  # fmt: skip
"""Ways in which a record can be broken, as the truth names them."""


@dataclass(frozen=True)
class Mix:
    """What the traffic holds besides chats, as shares."""

    noise: float = 0.05
    """Noise conversations for each chat."""
    bad_replies: float = 0.01
    """Chats in which an agent's reply is spam, gibberish or abuse."""
    feedback: float = 0.35
    """Chats that are rated, edited, escalated or reopened."""
    unclosed: float = 0.05
    """Chats whose end nobody announces."""
    redelivered: float = 0.01
    """Records that come twice."""
    late: float = 0.006
    """Records that are held up for 20-90 s."""
    malformed: float = 0.003
    """Broken records for each good one."""
    floods: float = 0.002
    """Floods (thirty chats of one customer within seconds) for each chat."""
    gap_s: float = 12.0
    """Mean time between the turns of a chat, seconds."""
    fact_share: float = 0.3
    """Chats that ask for a policy."""
    news: float = 0.0
    """Of those, once a policy has changed, the ones that ask for it: what is new makes customers ask."""
    personal: float = 0.15
    """Chance that a customer's turn volunteers personal data."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record with what is true of it: personal data, noise, breakage, lateness, repetition."""

    offset_ms: int
    key: str | None
    value: Mapping[str, Any] | str
    """The event as an object, or the text of a record that is no JSON."""
    truth: tuple[Mapping[str, Any], ...] = ()

    def line(self) -> str:
        """The record as a JSON line, without its truth."""
        name = "value_raw" if isinstance(self.value, str) else "value"
        return json.dumps({"offset_ms": self.offset_ms, "key": self.key, name: self.value}, ensure_ascii=False)

    def raw(self) -> bytes:
        """The bytes that go into chats.raw."""
        text = self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)
        return text.encode()


def traffic(
    seed: int,
    count: int,
    rate: float = 20.0,
    *,
    facts: Collection[Fact] | None = None,
    shops: Sequence[str] | None = None,
    changes_at: float = 0.0,
    mix: Mix | None = None,
) -> Iterator[Record]:
    """`count` chats at about `rate` records a second, in order of arrival; the same for the same arguments.

    The policies in `facts` hold from the share `changes_at` of the chats on.
    """
    mix = mix or Mix()
    arrivals = _Arrivals(seed, rate, mix)
    turning = int(count * changes_at)
    for number in range(count):
        if number in (0, turning):
            changed = facts if number == turning else None
            chats = conversations(
                seed, count, facts=changed, shops=shops, fact_share=mix.fact_share, news=mix.news, personal=mix.personal
            )
            # Skipping keeps numbers and customers as they would be without a change.
            for _ in range(number):
                next(chats)
        yield from arrivals.chat(next(chats))
    yield from arrivals.rest()


class _Arrivals:
    """Open chats, merged by the time at which their next record arrives."""

    def __init__(self, seed: int, rate: float, mix: Mix) -> None:
        self._rng = Random(f"traffic/{seed}")
        self._seed = seed
        self._mix = mix
        self._gap_ms = 1000 * TURNS / rate
        self._now_ms = 0.0
        self._heap: list[tuple[int, int, Record]] = []
        self._numbers = counter()

    def chat(self, conversation: Conversation) -> Iterator[Record]:
        """Let one more chat begin, and give what arrives before it does."""
        rng, mix = self._rng, self._mix
        self._now_ms += rng.expovariate(1) * self._gap_ms
        yield from self._until(self._now_ms)
        self._conversation(conversation)
        if chance(rng, mix.noise):
            self._noise()
        if chance(rng, mix.floods):
            self._flood(conversation)

    def rest(self) -> Iterator[Record]:
        """What still arrives after the last chat began."""
        yield from self._until(float("inf"))

    def _until(self, limit_ms: float) -> Iterator[Record]:
        while self._heap and self._heap[0][0] <= limit_ms:
            yield heapq.heappop(self._heap)[2]

    def _conversation(self, chat: Conversation) -> None:
        rng, mix = self._rng, self._mix
        spoiled = int(rng.random() * len(chat.turns)) if chance(rng, mix.bad_replies) else -1
        at = self._now_ms
        for seq, (role, text) in enumerate(chat.turns):
            said, truth = text, _personal(chat, seq)
            if seq == spoiled and role == "agent":
                label = pick(rng, tuple(noise.KINDS))
                said, truth = noise.KINDS[label](rng), [{"kind": "noise", "label": label, "subtype": "reply"}]
            self._event(at, _message(chat, seq, role, said), truth)
            at += rng.expovariate(1) * mix.gap_s * 1000
        self._ending(chat, at)

    def _ending(self, chat: Conversation, at: float) -> None:
        rng, turns = self._rng, len(chat.turns)
        common = {"conversation_id": chat.conversation_id}
        if not chance(rng, self._mix.unclosed):
            resolved = chat.resolved if chance(rng, 0.8) else None
            closed = {"type": "conversation_closed", **common, "seq": turns, "turns": turns, "resolved": resolved}
            self._event(at, closed)
        if chance(rng, self._mix.feedback):
            at += rng.expovariate(1) * self._mix.gap_s * 1000
            self._event(at, {"type": "feedback", **common, "seq": turns + 1, **self._opinion(chat)})

    def _opinion(self, chat: Conversation) -> dict[str, Any]:
        rng = self._rng
        good = chat.resolved if chance(rng, 0.95) else not chat.resolved  # some misclick
        if not good and chance(rng, 0.4):
            return {"kind": pick(rng, ("escalated", "escalated", "reopened"))}
        if chance(rng, 0.12):
            replies = [seq for seq, (role, _) in enumerate(chat.turns) if role == "agent"]
            target = pick(rng, replies)
            return {"target_seq": target, "corrected_text": f"{chat.turns[target][1]} Sorry for the wait."}
        if chance(rng, 0.7):
            return {"rating": int(good), "scale": [0, 1]}
        return {"rating": pick(rng, (4, 5) if good else (1, 2)), "scale": [1, 5]}

    def _noise(self) -> None:
        rng = self._rng
        label = pick(rng, tuple(noise.KINDS))
        name = f"sim-{self._seed}-noise-{label}-{next(self._numbers):05d}"
        text = noise.KINDS[label](rng)
        # Some send the same thing three times.
        for seq in range(1 if chance(rng, 0.7) else 3):
            body = {
                "type": "message", "conversation_id": name, "seq": seq, "role": "customer", "channel": "web_chat",
                "text": text,
            }  # fmt: skip
            truth = {"kind": "noise", "label": "duplicate" if seq else label, "subtype": "message"}
            self._event(self._now_ms + 5000 * seq, body, [truth])

    def _flood(self, chat: Conversation) -> None:
        number = next(self._numbers)
        sender = {"id": f"cust-{self._seed}-flood-{number}"}
        for copy in range(30):
            name = f"sim-{self._seed}-flood-{number}-{copy:02d}"
            one = replace(chat, conversation_id=name, turns=chat.turns[:2], customer=sender)
            at = self._now_ms + copy * 200
            for seq, (role, text) in enumerate(one.turns):
                self._event(at + seq * 50, _message(one, seq, role, text), [{"kind": "flood"}, *_personal(one, seq)])
            self._event(at + 150, {"type": "conversation_closed", "conversation_id": name, "seq": 2, "turns": 2})

    def _event(self, at_ms: float, body: Mapping[str, Any], truth: Sequence[Mapping[str, Any]] = ()) -> None:
        rng, mix = self._rng, self._mix
        ids = {"event_id": event_id(rng), "conversation_id": body["conversation_id"]}
        value = {**ids, **body, "ts": _iso(at_ms)}
        facts = [{**ids, **fact} for fact in truth]
        if chance(rng, mix.late):
            delay_ms = 20_000 + 70_000 * rng.random()
            at_ms += delay_ms
            facts.append({**ids, "kind": "late_delivery", "delay_s": round(delay_ms / 1000, 2)})
        self._push(Record(int(at_ms), ids["conversation_id"], value, tuple(facts)))
        if chance(rng, mix.redelivered):
            again = Record(int(at_ms + 5000), ids["conversation_id"], value, ({**ids, "kind": "redelivered"},))
            self._push(again)
        if chance(rng, mix.malformed):
            self._broken(at_ms, value)

    def _broken(self, at_ms: float, good: Mapping[str, Any]) -> None:
        number = next(self._numbers)
        name = f"sim-{self._seed}-bad-{number:04d}"
        kind = pick(self._rng, BREAKS)
        value = {
            "text": "hello", **good, "event_id": event_id(self._rng), "conversation_id": name, "type": "message",
            "role": "agent",
        }  # fmt: skip
        key, broken = broken_record(kind, name, value, self._rng)
        readable = None if isinstance(broken, str) else broken.get("event_id")
        truth = {"kind": "malformed", "malformed": kind, "key": key, "event_id": readable}
        self._push(Record(int(at_ms), key, broken, (truth,)))

    def _push(self, record: Record) -> None:
        heapq.heappush(self._heap, (record.offset_ms, next(self._numbers), record))


def broken_record(
    kind: str, name: str, value: dict[str, Any], rng: Random
) -> tuple[str | None, Mapping[str, Any] | str]:
    """Key and value of a record that is broken in one of the ways of `BREAKS`."""
    if kind == "truncated_json":
        text = json.dumps(value)
        return name, text[: 20 + int(rng.random() * (len(text) - 25))]
    if kind == "not_json":
        return name, pick(rng, ("", "<xml><msg/></xml>", "ping"))
    if kind == "bad_key":
        return None, value
    if kind == "missing_field":
        missing = pick(rng, ("event_id", "text", "role", "seq"))
        return name, {k: v for k, v in value.items() if k != missing}
    wrong: dict[str, dict[str, Any]] = {
        "wrong_type": {"text": pick(rng, ({"x": 1}, ["a"], 123))},
        "unknown_role": {"role": pick(rng, ("SYSTEM", "supervisor", ""))},
        "null_text": {"text": None},
        "empty_text": {"text": pick(rng, ("", "   ", "\n"))},
        "huge_text": {"text": "help me " * 2_500},
    }
    return name, {**value, **wrong[kind]}


def _message(chat: Conversation, seq: int, role: str, text: str) -> dict[str, Any]:
    body = {
        "type": "message", "conversation_id": chat.conversation_id, "seq": seq, "role": role, "channel": "web_chat",
        "text": text,
    }  # fmt: skip
    # One agent serves a chat; its number comes from the customer's, so that it is the same in every run.
    who = {"customer": chat.customer} if role == "customer" else {"agent_id": f"agent-{chat.customer['id'][-1]}"}
    return {**body, **who}


def _personal(chat: Conversation, seq: int) -> list[dict[str, Any]]:
    return [{"kind": "pii_canary", "pii_type": p.kind, "value": p.value} for p in chat.planted if p.turn == seq]


def _iso(at_ms: float) -> str:
    moment = datetime.fromtimestamp(START_S + at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
