"""T15: bad versions among many publishes, under load: off within a minute, no failed answer, exposure as drawn."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from learner.registry import BASE
from services.topic_feed import TopicFeed
from streams.rollout_events import Exposure, Metric, Outcome, decode_exposure, encode
from streams.topics import EXPOSURES, OUTCOMES
from tests.fleet import Fleet, Shop, until

CLIENTS = 4


@pytest.fixture
def fleet(tmp_path: Path, mock_broker: dict[str, Any], redis_client: redis.Redis, redis_url: str) -> Iterator[Fleet]:
    """Two nodes, a router and a controller, with windows of seconds."""
    del redis_client  # emptied the server
    found = Fleet(Shop(tmp_path), mock_broker["bootstrap"], redis_url, nodes=2)
    try:
        found.start()
        yield found
    finally:
        found.stop()


class Customers:
    """Clients that open one conversation after the other, and a crowd that dislikes one version."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.disliked = ""
        self.failed: list[int] = []
        self.served: Counter[str] = Counter()
        self.exposures: list[Exposure] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._judge))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more questions."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, name: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            answer = self.fleet.ask(f"hello {turn}", f"load-{name}-{turn}", max_tokens=4)
            if answer.status_code != 200:
                self.failed.append(answer.status_code)
            else:
                self.served[answer.json()["model"]] += 1

    def _judge(self) -> None:
        feed = TopicFeed(self.fleet.settings.kafka.client("judge"), [EXPOSURES], time.monotonic)
        while not self._stop.is_set():
            for record in feed.poll(0.2):
                exposure = decode_exposure(record.value or b"")
                self.exposures.append(exposure)
                if exposure.version == self.disliked:
                    self._complain(exposure)
        feed.close()

    def _complain(self, exposure: Exposure) -> None:
        outcome = Outcome(
            conversation_id=exposure.conversation_id, metric=Metric.NEGATIVE, bad=True, event_ts=exposure.ts + 0.1
        )
        self.fleet.producer.produce(OUTCOMES, key=exposure.conversation_id, value=encode(outcome))
        self.fleet.producer.poll(0)


def test_canary_takes_bad_versions_out_under_load(fleet: Fleet) -> None:
    """A regression and a poisoned version among six publishes; the good last one is promoted; nobody fails."""
    customers = Customers(fleet)
    try:
        bad = fleet.shop.publish(1)
        customers.disliked = bad
        fleet.announce(bad)
        until(partial(fleet.running, bad), "canary", 60)
        began = time.monotonic()
        waiting = [fleet.shop.publish(seed) for seed in (2, 3, 4)]
        poisoned = fleet.shop.publish_poisoned(5)
        for version in [*waiting, poisoned]:
            fleet.announce(version)
        until(partial(fleet.denied, bad), "the regression is rolled back", 60)
        assert time.monotonic() - began <= 60
        until(partial(fleet.denied, poisoned), "the poisoned one is refused", 60)
        good = fleet.shop.publish_newest(6)
        fleet.announce(good)
        until(lambda: fleet.record()["stable"] == good, "the good one is promoted", 120)
    finally:
        customers.stop()
    assert customers.failed == []
    assert set(customers.served) <= {BASE, bad, good}, "neither poisoned nor superseded ones ever answered"
    assert customers.served[bad] <= 200
    rollout = next(exposure.rollout_id for exposure in customers.exposures if exposure.version == bad)
    drawn = [exposure for exposure in customers.exposures if exposure.rollout_id == rollout and exposure.p == 0.25]
    share = sum(exposure.arm == "candidate" for exposure in drawn) / max(len(drawn), 1)
    assert abs(share - 0.25) <= 4 * (0.25 * 0.75 / max(len(drawn), 1)) ** 0.5
