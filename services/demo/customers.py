"""Simulated customers who ask through the router and tell what they think of the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx
import msgspec
from confluent_kafka import Producer

from services.simulation.dialogue import Conversation
from services.simulation.draw import chance
from services.simulation.reaction import Truth, event_id, reaction, suits
from streams.events import isoformat
from streams.topics import CHATS_RAW

_WORKERS = 4
_ANSWER_S = 30.0


@dataclass(frozen=True)
class Answer:
    """One answer: who asked, which version gave it, whether it suited, when it came and after how long, seconds."""

    conversation: str
    version: str
    text: str
    fits: bool
    at: float
    took_s: float
    failed: str = ""


def opening(chat: Conversation) -> str | None:
    """The first turn of a chat where it is the question itself; None where the customer only says hello."""
    (_, question), (_, reply) = chat.turns[0], chat.turns[1]
    return question if suits(question, reply, Truth.of(chat)) else None


class Door:
    """The router as an OpenAI client sees it."""

    def __init__(self, url: str, admin_token: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=_ANSWER_S)
        self._admin = {"Authorization": f"Bearer {admin_token}", "X-Driftline-Record": "none"}

    def ask(
        self,
        question: str,
        conversation: str,
        *,
        recorded: bool,
        customer: Mapping[str, Any] | None = None,
        model: str = "driftline",
    ) -> tuple[str, str, str]:
        """Ask one question. Returns version, answer and answer id. Raises httpx.HTTPError."""
        metadata = {"customer_id": str(customer["id"])} if customer else {}
        body = {"model": model, "messages": [{"role": "user", "content": question}], "metadata": metadata}
        headers = {"X-Conversation-Id": conversation, **({} if recorded else self._admin)}
        answer = self._client.post("/v1/chat/completions", json=body, headers=headers)
        answer.raise_for_status()
        found = answer.json()
        return answer.headers["X-Driftline-Version"], found["choices"][0]["message"]["content"], found["id"]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Customers:
    """Asks `rate()` conversations a second from `chats` until stopped; keeps every answer."""

    voiced = 0.15
    """Share of the reactions that anybody hears of: most people say nothing."""
    edited = 0.03
    """Share of the unsuitable answers without any other reaction that an agent corrects."""

    def __init__(
        self, door: Door, producer: Producer, chats: Iterator[Conversation], rate: Callable[[], float], seed: int
    ) -> None:
        self.answers: list[Answer] = []
        self.sent: list[bytes] = []
        """Records that were acknowledged: what their platform reported of them."""
        self.chats: dict[str, Conversation] = {}
        self._door = door
        self._producer = producer
        self._source = chats
        self._rate = rate
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="customers", daemon=True)

    def start(self) -> None:
        """Let them come."""
        self._thread.start()

    def use(self, chats: Iterator[Conversation]) -> None:
        """Ask from other chats from now on."""
        with self._lock:
            self._source = chats

    def stop(self) -> None:
        """No more questions; returns once the running ones are answered."""
        self._stop.set()
        self._thread.join()
        self._producer.flush(10)

    def failures(self) -> list[Answer]:
        """Questions that got no answer."""
        return [answer for answer in self.answers if answer.failed]

    def _run(self) -> None:
        rng = Random(self._seed)
        with ThreadPoolExecutor(_WORKERS) as pool:
            while not self._stop.wait(rng.expovariate(self._rate())):
                with self._lock:
                    chat, question = next((chat, q) for chat in self._source if (q := opening(chat)) is not None)
                pool.submit(self._converse, chat, question, Random(rng.getrandbits(32)))

    def _converse(self, chat: Conversation, question: str, rng: Random) -> None:
        conversation = f"ask-{self._seed}-{chat.conversation_id}"
        start = time.monotonic()
        try:
            version, text, answer_id = self._door.ask(question, conversation, recorded=True, customer=chat.customer)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            self._keep(Answer(conversation, "", "", fits=False, at=0.0, took_s=0.0, failed=type(error).__name__))
            return
        found = reaction(question, text, Truth.of(chat), rng)
        if not chance(rng, self.voiced):
            found = replace(found, rating=None, kind=None)
        at = time.clock_gettime(time.CLOCK_REALTIME)
        self.chats[conversation] = chat
        self._keep(Answer(conversation, version, text, found.fits, at, time.monotonic() - start))
        silent = found.rating is None and found.kind is None
        edit = chat.turns[1][1] if silent and not found.fits and chance(rng, self.edited) else ""
        events = found.events(conversation, 2, answer_id, isoformat(at), rng, edit=edit)
        closed = {
            "event_id": event_id(rng), "type": "conversation_closed", "conversation_id": conversation,
            "seq": 2 + len(events), "turns": 2, "resolved": found.fits, "ts": isoformat(at),
        }  # fmt: skip
        for event in [*events, closed]:
            self._produce(conversation, event)

    def _produce(self, conversation: str, event: Mapping[str, Any]) -> None:
        value = msgspec.json.encode(event)

        def done(error: object, _message: object) -> None:
            if error is None:
                self.sent.append(value)

        self._producer.produce(CHATS_RAW, key=conversation.encode(), value=value, on_delivery=done)
        self._producer.poll(0)

    def _keep(self, answer: Answer) -> None:
        with self._lock:
            self.answers.append(answer)


def until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.2) -> bool:
    """True as soon as the condition holds, False when it did not in time."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(every_s)
    return True
