"""The chats that the demo streams: a shop's policy changes half-way, everything that goes wrong goes wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from services.simulation.dialogue import Conversation, conversations
from services.simulation.policy import Fact, facts
from services.simulation.traffic import Mix, Record, traffic

MORNING = 500
"""Chats of the morning rush: the gate wants 32 held-out ones, and one in six is held out."""
AFTERNOON = 240
"""Chats of the afternoon's rush, after the policy has changed."""
PAUSE_S = 96.0
"""Between the two, in the stream's own time: the first version's canary runs meanwhile."""
RATE = 42.0
"""Records a second in the stream's own time; `SPEED` multiplies it."""
PUBLIC_NAMES = ("Harbour & Pine", "Fennmouth", "Pinewax", "Stormtight", "Trail Club", "Pathfinder", "Boathouse")
"""The shop's own names: nobody's personal data."""
SHOPS = ("harbour",)
"""One shop: its policies are asked for often enough to be learned within a minute."""
FACT_SHARE = 0.5
"""Chats that ask for a policy."""
NEWS = 0.7
"""Of those, the ones that ask for the changed policy once it has changed."""
_MIX = Mix(
    noise=0.04, fact_share=FACT_SHARE, redelivered=0.01, late=0.006, malformed=0.003, floods=0.002, gap_s=3.0, news=NEWS
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """What is true of a file of chats: personal data, and when the policy changes, seconds of the stream's time."""

    personal: tuple[tuple[str, str], ...]
    """Kind and value."""
    change_s: float


def changing_fact() -> Fact:
    """The policy that changes in the demo."""
    return next(fact for fact in facts() if "refund" in fact.name or "return" in fact.name)


def write_chats(path: Path, seed: int, fact: Fact) -> Planted:
    """Write the simulated chats as traffic JSONL. Returns what was planted."""
    count = MORNING + AFTERNOON
    records = list(traffic(seed, count, RATE, facts=[fact], shops=SHOPS, changes_at=MORNING / count, mix=_MIX))
    began: dict[str | None, int] = {}
    for record in records:
        began.setdefault(record.key, record.offset_ms)
    change_ms = began[f"sim-{seed}-{MORNING:06d}"]
    moved = [_afternoon(record) if began[record.key] >= change_ms else record for record in records]
    with path.open("w", encoding="utf-8") as out:
        out.writelines(record.line() + "\n" for record in sorted(moved, key=lambda record: record.offset_ms))
    told = [truth for record in records for truth in record.truth if truth.get("kind") == "pii_canary"]
    personal = {str(truth["value"]): str(truth["pii_type"]) for truth in told}
    return Planted(tuple((kind, value) for value, kind in personal.items()), change_ms / 1000 + PAUSE_S)


def _afternoon(record: Record) -> Record:
    """The record of a chat that begins after the pause."""
    return replace(record, offset_ms=int(record.offset_ms + 1000 * PAUSE_S))


def ingest(path: Path, speed: float, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `driftline ingest` on a file; it ends with the file."""
    command = [sys.executable, "-m", "services.cli", "ingest", str(path), "--speed", str(speed), "--json"]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def questions(seed: int, changed: tuple[Fact, ...]) -> Iterator[Conversation]:
    """Customers who come to the router, without end, while these policies hold by their new value."""
    for block in count():
        yield from conversations(
            seed + block, 500, facts=changed, shops=SHOPS, fact_share=FACT_SHARE, news=NEWS, personal=0.05
        )


def last_questions(path: Path) -> list[tuple[float, str, str]]:
    """When each chat of a traffic file ends (seconds of its own time), its id and its last customer turn, in order."""
    last: dict[str, tuple[float, str, str]] = {}
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            value = record.get("value")
            if not isinstance(value, dict) or value.get("type") != "message" or value.get("role") != "customer":
                continue
            name, text = value.get("conversation_id"), value.get("text")
            if isinstance(name, str) and isinstance(text, str) and text.strip():
                last[name] = (record.get("offset_ms", 0) / 1000, name, text)
    return sorted(last.values())
