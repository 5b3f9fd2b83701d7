"""Simulated traffic through the gateway while the worker is killed: reconcile agrees with the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.simulate import Mix, traffic
from tests.bench._rig import Rig, struck
from tests.bench.accounts import differences, lines, reconciled, replay, truth

pytestmark = pytest.mark.kafka
SPEED = 20.0


def test_streams_accounts_of_traffic_while_workers_die(kafka_libs: Path, tmp_path: Path) -> None:
    """Malformed records are refused with 400 and sent by ingest; every event is where the truth says, once."""
    records = list(traffic(5, 40, mix=Mix(malformed=0.04, redelivered=0.04)))
    file, facts, refused = (tmp_path / name for name in ("chats.jsonl", "truth.jsonl", "refused.jsonl"))
    file.write_text("".join(record.line() + "\n" for record in records))
    facts.write_text("".join(json.dumps(fact) + "\n" for record in records for fact in record.truth))
    # a post may wait for seconds on a loaded machine, which is minutes of these chats: not yet a gap
    stream = {"speed": SPEED, "gap_s": 300, "idle_s": 400, "rating_wait_s": 100}
    rig = Rig(tmp_path / "rig", kafka_libs, 1, stream)
    try:
        with struck(rig, (2.0, 4.0), 1):
            answers = replay(file, rig.gateway(), SPEED, refused)
        code, said = rig.workers.command("ingest", str(refused), "--format", "traffic")
        assert code == 0, said
        report, rows = reconciled(rig, file, tmp_path / "events.jsonl")
    finally:
        rig.close()
    assert differences(truth(facts), list(lines(file)), report, rows) == {}
    assert answers[400] == sum(report["dead_lettered"].values())
    assert rig.workers.killed
