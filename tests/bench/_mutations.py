"""A traffic file made another: other ids, other order, other breakage, with its truth; by a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Body = dict[str, Any]


def _set(**fields: Any) -> Callable[[Body], Body]:
    return lambda body: {**body, **fields}


def _without(*names: str) -> Callable[[Body], Body]:
    return lambda body: {name: value for name, value in body.items() if name not in names}


BREAKS: Mapping[str, tuple[str, Callable[[Body], Body | str]]] = {
    "text a number": ("wrong_type", _set(text=7.5)),
    "seq true": ("wrong_type", _set(seq=True)),
    "seq a string": ("wrong_type", _set(seq="3")),
    "seq below 0": ("bad_value", _set(seq=-1)),
    "seq beyond 31 bits": ("bad_value", _set(seq=2**40)),
    "time without zone": ("bad_value", _set(ts="2025-03-03T09:00:01")),
    "time of nowhere": ("bad_value", _set(ts="yesterday")),
    "role in capitals": ("unknown_role", _set(role="Customer")),
    "type unknown": ("unknown_type", _set(type="typing")),
    "schema of tomorrow": ("unknown_schema", _set(schema=2)),
    "no role": ("missing_field", _without("role")),
    "no time": ("missing_field", _without("ts")),
    "text of blanks": ("empty_text", _set(text=" \u2003\t\n")),
    "text null": ("null_text", _set(text=None)),
    "text too long": ("huge_text", _set(text="é" * 16_385)),
    "conversation of blanks": ("bad_value", _set(conversation_id="  ")),
    "customer a list": ("wrong_type", _set(customer=["x"])),
    "cut in the middle": ("truncated_json", lambda body: json.dumps(body)[:-9]),
    "two objects": ("not_json", lambda body: json.dumps(body) * 2),
    "a page": ("not_json", lambda _: "<!doctype html>"),
    "not a number": ("not_json", lambda body: json.dumps(body)[:-1] + ', "p": NaN}'),
    "a list": ("wrong_type", lambda body: json.dumps([body])),
}
"""Name -> the dead letter's reason, and how a good message becomes broken so."""


def mutated(records: Sequence[Body], facts: Sequence[Body], seed: int) -> tuple[list[Body], list[Body]]:
    """Records and truth of a new file: all ids are new, broken records are ours, some arrive late or twice."""
    rng = random.Random(seed)
    broken = {fact["event_id"] for fact in facts if fact["kind"] == "malformed"}
    keys = {fact.get("key") for fact in facts if fact["kind"] == "malformed"}
    good = [r for r in records if _is_good(r, broken, keys)]
    out, truth = [], [renamed(fact, seed) for fact in facts if fact["kind"] not in {"malformed", "redelivered"}]
    seen = set()
    for record in good:
        if record["value"]["event_id"] not in seen:
            seen.add(record["value"]["event_id"])
            out.append(_renamed_record(record, seed))
    messages = [record for record in out if record["value"]["type"] == "message"]
    for number, (name, (reason, damage)) in enumerate(sorted(BREAKS.items()) * 3):
        record, fact = _broken(rng.choice(messages), f"mut-{seed}-bad-{number}", reason, damage)
        out.append(record)
        truth.append({**fact, "how": name})
    for _ in range(len(out) // 50):
        record = copy.deepcopy(rng.choice(messages))
        record["offset_ms"] += rng.randrange(60_000)
        out.append(record)
        truth.append({"event_id": record["value"]["event_id"], "kind": "redelivered"})
    out.sort(key=lambda record: record["offset_ms"])
    return out, truth


def renamed(fact: Body, seed: int) -> Body:
    """The fact with the ids of the new file."""
    names = {name: f"mut-{seed}-{fact[name]}" for name in ("event_id", "conversation_id") if fact.get(name)}
    return {**fact, **names}


def _is_good(record: Body, broken: set[str], keys: set[str | None]) -> bool:
    value = record.get("value")
    return isinstance(value, dict) and record.get("key") not in keys and value.get("event_id") not in broken


def _renamed_record(record: Body, seed: int) -> Body:
    value = renamed(record["value"], seed)
    return {"offset_ms": record["offset_ms"], "key": value["conversation_id"], "value": value}


def _broken(record: Body, name: str, reason: str, damage: Callable[[Body], Body | str]) -> tuple[Body, Body]:
    body = damage({**record["value"], "event_id": name, "conversation_id": name})
    at = {"offset_ms": record["offset_ms"] + 1, "key": name}
    line = {**at, "value_raw": body} if isinstance(body, str) else {**at, "value": body}
    return line, {"event_id": name, "key": name, "kind": "malformed", "malformed": reason}


def written(rows: Sequence[Body]) -> Iterator[str]:
    """The lines of a file."""
    return (json.dumps(row) + "\n" for row in rows)
