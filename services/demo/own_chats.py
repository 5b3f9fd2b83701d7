"""The demo on a file of the user's own chats: the same loop, without what only simulated shops can plant."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import httpx

from services.demo.chats import last_questions
from services.demo.customers import Answer
from services.demo.evidence import Evidence
from services.demo.run import Run
from services.demo.screen import Screen
from services.local.stack import Stack

NOT_CHECKED = ("changed_fact", "privacy", "gate_refused_unchanged", "bad_adapter_refused", "regression_rolled_back")
_WORKERS = 4
_AGAIN_S = 0.15
_STREAM_S = 3600.0
_SETTLE_S = 120.0


class OwnChats(Run):
    """Streams the file and asks the last customer turn of each chat when it has ended; nothing asked is recorded."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
        super().__init__(args, stack, screen, evidence)
        self.file = args.chats
        self._answers: list[Answer] = []
        self._lock = threading.Lock()
        self._settled = threading.Event()

    @property
    def answers(self) -> list[Answer]:
        """What the file's customers would have been told."""
        return self._answers

    def play(self) -> None:
        """Stream, ask, wait until the last candidate is decided."""
        self.screen.say(f"not checked without planted facts: {', '.join(NOT_CHECKED)}")
        questions = last_questions(self.file)
        self.allowed_s += questions[-1][0] / self.args.speed if questions else 0.0
        self.stream(self.args.speed)
        asking = threading.Thread(target=self._ask_all, args=(questions,), name="asking", daemon=True)
        asking.start()
        self.watched("every chat is sent", lambda: not self.streaming, _STREAM_S)
        self.stack.supervisor.end("learn")
        self.screen.say("the learner is stopped: its last version goes its way")
        self.watched("the last candidate is decided", lambda: self.watch.idle, _SETTLE_S)
        self._settled.set()
        asking.join()

    def _ask_all(self, questions: Sequence[tuple[float, str, str]]) -> None:
        """Ask when each chat has ended; then over again, so that the last canary has somebody to answer."""
        started = time.monotonic()
        with ThreadPoolExecutor(_WORKERS) as pool:
            for ended_s, conversation, question in questions:
                self._settled.wait(max(0.0, started + ended_s / self.args.speed - time.monotonic()))
                pool.submit(self._ask, conversation, question)
            for number, (_, conversation, question) in enumerate(cycle(questions)):
                if self._settled.wait(_AGAIN_S):
                    return
                pool.submit(self._ask, f"{conversation}-{number}", question)

    def _ask(self, conversation: str, question: str) -> None:
        start = time.monotonic()
        try:
            version, text, _ = self.door.ask(question, conversation, recorded=False)
            failed = ""
        except httpx.HTTPStatusError as error:
            if error.response.is_client_error:
                return  # the file's own broken records: a text beyond every limit has no answer
            version, text, failed = "", "", str(error.response.status_code)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            version, text, failed = "", "", type(error).__name__
        at = time.clock_gettime(time.CLOCK_REALTIME)
        with self._lock:
            self._answers.append(Answer(conversation, version, text, bool(text), at, time.monotonic() - start, failed))
