"""The stream worker's word about an erasure: nothing of the customer is under way or kept in its state any more.

`driftline forget` deletes what is stored when it is asked. Events of the customer that were under way then may come
after it: the worker waits until its group has passed the ends that stood when it heard of the request, deletes what
they left, and answers on privacy.receipts. Any worker may answer for the group; a second answer changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import redis
from confluent_kafka import KafkaException

from services.forget_state import erase_state
from services.settings import Settings
from services.stream_lag import ends, passed
from services.topic_feed import TopicFeed, make_producer
from streams.erasures import Erasure, Receipt, decode_erasure, decode_receipt, encode
from streams.replay.tables import text
from streams.scrub.identity import ledger_key
from streams.topics import CHATS_CLEAN, CHATS_RAW, ERASURES, EXAMPLES, RECEIPTS

PROCESS = "clean"
POLL_S = 0.5
UNDER_WAY = (CHATS_RAW, CHATS_CLEAN, EXAMPLES)
"""Topics whose records may still hold text of the customer when a request is heard, in the order of the flow."""


@dataclass
class Asked:
    """A request, and the ends of one topic after the other that the group has to pass."""

    request: Erasure
    topics: list[str] = field(default_factory=lambda: list(UNDER_WAY))
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)


class Erasures:
    """Hears requests and answers them; for one thread."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        forget: Callable[[Sequence[str]], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._forget = forget
        kafka = settings.kafka
        self._feed = TopicFeed(kafka.client("clean-erasures"), [ERASURES, RECEIPTS], clock, prefix=kafka.prefix)
        self._producer = make_producer(kafka.client("clean-erasures"))
        self._asked: dict[str, Asked] = {}
        self._answered: set[str] = set()

    def turn(self) -> None:
        """Hear what is new, and answer what is due. Raises redis.RedisError and KafkaException: try again later."""
        for record in self._feed.poll(POLL_S):
            if record.value is None:
                continue
            if record.topic == ERASURES:
                request = decode_erasure(record.value)
                self._asked[request.erasure_id] = Asked(request)
                self._forget(request.conversations)
            else:
                receipt = decode_receipt(record.value)
                if receipt.process == PROCESS and receipt.complete:
                    self._answered.add(receipt.erasure_id)
        if self._feed.caught_up:
            for name in [name for name in self._asked if name in self._answered]:
                del self._asked[name]
            for asked in list(self._asked.values()):
                self._advance(asked)

    def close(self) -> None:
        """Give the connections back."""
        self._feed.close()
        self._producer.flush(POLL_S)

    def _advance(self, asked: Asked) -> None:
        """Topic by topic: what was under way on one may have gone on to the next."""
        while asked.topics:
            if not asked.ends:
                asked.ends = ends(self._settings, asked.topics[:1])
            if not passed(self._settings, asked.ends):
                return
            asked.topics.pop(0)
            asked.ends = {}
        request = asked.request
        linked = set(request.conversations)
        for customer in request.customers:
            linked |= {text(name) for name in self._client.smembers(f"asm:cust:{customer}")}
        key = ledger_key(self._settings.keys.keys())
        self._forget(sorted(linked))
        found = erase_state(self._client, key, self._settings.stream.ledger_ttl_s, request.customers, sorted(linked))
        receipt = Receipt(erasure_id=request.erasure_id, process=PROCESS, complete=True, detail=found)
        topic = self._settings.kafka.prefix + RECEIPTS
        self._producer.produce(topic, key=request.erasure_id.encode(), value=encode(receipt))
        if self._producer.flush(5) == 0:
            self._answered.add(request.erasure_id)


def answer_erasures(
    make: Callable[[], Erasures], stop: threading.Event, failed: Callable[[BaseException], None]
) -> threading.Thread:
    """Start the thread that answers; it ends with `stop`. What it works with is made in it."""

    def turns() -> None:
        erasures = make()
        while not stop.is_set():
            try:
                erasures.turn()
            except (redis.RedisError, KafkaException) as error:
                failed(error)
                stop.wait(POLL_S)
        erasures.close()

    thread = threading.Thread(target=turns, name="erasures", daemon=True)
    thread.start()
    return thread
