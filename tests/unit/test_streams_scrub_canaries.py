"""Planted values of a replayed stream: none reaches a clean event, and nothing is quarantined."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

from streams.events import BadEvent, decode, encode_record
from streams.scrub import ConversationState, Keys, Scrubber, ScrubConfig

KEYS = Keys("k1", {"k1": b"1" * 32}, b"f" * 32)


def test_canaries_of_the_stream_are_masked(data_dir: Path) -> None:
    """Every conversation with a planted value, from its first event to its last: 0 of 101 in any field."""
    truth = _rows(data_dir / "traffic_star.truth.jsonl.gz")
    planted = [row for row in truth if row["kind"] == "pii_canary"]
    concerned = {row["conversation_id"] for row in planted}
    scrubber = Scrubber(ScrubConfig(), KEYS)
    states: dict[str, ConversationState] = {}
    out: list[tuple[str, str]] = []
    for place, record in enumerate(_rows(data_dir / "traffic_star.jsonl.gz")):
        if record["key"] not in concerned:
            continue
        try:
            event = decode(record["key"].encode(), json.dumps(record.get("value")).encode())
        except BadEvent:
            continue
        state = states.get(event.conversation_id, ConversationState())
        clean, states[event.conversation_id] = scrubber.scrub_event(event, state, received_at=0, offset=(0, place))
        out += [(encode_record(each).decode().casefold(), each.text or "") for each in clean]
    assert len(planted) == 101
    everything = "\n".join(body for body, _ in out)
    digits = re.sub(r"\D", "", "\n".join(text for _, text in out))
    values = [row["value"] for row in planted]
    assert [v for v in values if v.casefold() in everything or _digits_in(v, digits)] == []


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def _digits_in(value: str, digits: str) -> bool:
    own = re.sub(r"\D", "", value)
    return len(own) >= 7 and own in digits
