"""Planted values of a real stream through the real worker: none in Redis, its file, a topic, a log or a metric."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from services.demo.search import Needles, redis_contents, search, topic_contents
from streams.topics import BY_NAME, CHATS_RAW
from tests.stream_workers import Workers, produce, settled

CONTROL = "4000 0012 3456 7899"
"""Put where the search must find it: a search that finds nothing proves nothing."""


@pytest.fixture(name="workers")
def audited(workers: Workers) -> Workers:
    """Workers that audit every masked turn."""
    workers.values["scrub"] = {"audit_share": 1.0, "canary_every_s": 0.2}
    return workers


def test_scrub_leaks_nothing_downstream(
    workers: Workers, redis_client: redis.Redis, data_dir: Path, mock_broker: dict[str, Any]
) -> None:
    """Every conversation with a planted value, good events and broken ones: 0 of 101 values anywhere downstream."""
    planted = [row for row in _rows(data_dir / "traffic_star.truth.jsonl.gz") if row["kind"] == "pii_canary"]
    concerned = {row["conversation_id"] for row in planted}
    lines = [row for row in _rows(data_dir / "traffic_star.jsonl.gz") if row["key"] in concerned]
    records = [(row["key"].encode(), json.dumps(row["value"]).encode()) for row in lines if "value" in row]
    process = workers.start()
    produce(mock_broker["bootstrap"], [*records, (b"broken", f'{{"text": "{CONTROL}'.encode())])
    readable = [record for record in records if b'"event_id"' in record[1]]
    assert settled(workers, readable, 60)

    redis_client.set("control", f"my card is {CONTROL}")
    places = [*redis_contents(redis_client), *_file(redis_client)]
    kafka = {"bootstrap.servers": mock_broker["bootstrap"]}
    places += topic_contents(kafka, [name for name in BY_NAME if name != CHATS_RAW])
    assert process.poll() is None, workers.log()[-4000:]
    metrics = workers.metrics(process)
    places += [("log", workers.log().encode()), ("/metrics", metrics.encode())]
    values = [row["value"] for row in planted]
    found = search(Needles([*values, CONTROL]), places)
    assert len(values) == 101
    assert {hit.place for hit in found if hit.value == CONTROL} >= {"control"}
    assert [hit for hit in found if hit.value != CONTROL] == []
    assert not any(hit.value == CONTROL and hit.place not in {"control", "dump.rdb"} for hit in found)
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("driftline_pii_"))
    assert float(counts['driftline_pii_audited_turns_total{result="clean"}']) > len(readable) / 2
    assert float(counts['driftline_pii_canaries_total{result="masked"}']) > 0
    assert float(counts['driftline_pii_canaries_total{result="survived"}']) == 0


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def _file(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """What Redis writes to disk."""
    client.config_set("rdbcompression", "no")
    client.save()
    settings = client.config_get("dir") | client.config_get("dbfilename")
    yield "dump.rdb", (Path(str(settings["dir"])) / str(settings["dbfilename"])).read_bytes()
