"""The demo on a file of the user's own chats: the same loop, without what only simulated shops can plant."""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from services.demo.chats import last_questions
from services.demo.customers import Answer
from services.demo.evidence import Evidence
from services.demo.run import Run
from services.demo.screen import Screen
from services.local.stack import Stack

NOT_CHECKED = ("changed_fact", "privacy", "gate_refused_unchanged", "bad_adapter_refused", "regression_rolled_back")
_WORKERS = 4
_STREAM_S = 3600.0
_SETTLE_S = 120.0


class OwnChats(Run):
    """Streams the file and asks the last customer turn of each chat when it has ended; nothing asked is recorded."""

    def __init__(self, args: argparse.Namespace, stack: Stack, screen: Screen, evidence: Evidence) -> None:
        super().__init__(args, stack, screen, evidence)
        self.file = args.chats
        self._answers: list[Answer] = []
        self._lock = threading.Lock()

    @property
    def answers(self) -> list[Answer]:
        """What the file's customers would have been told."""
        return self._answers

    def play(self) -> None:
        """Stream, ask, wait until the last candidate is decided."""
        self.screen.say(f"not checked without planted facts: {', '.join(NOT_CHECKED)}")
        started = time.monotonic()
        self.stream(self.args.speed)
        asking = threading.Thread(target=self._ask_all, args=(started,), name="asking", daemon=True)
        asking.start()
        self.watched("every chat is sent", lambda: not self.streaming, _STREAM_S)
        asking.join()
        self.watched("the last candidate is decided", lambda: self.watch.rollout.canary is None, _SETTLE_S)

    def _ask_all(self, started: float) -> None:
        pause = threading.Event()
        with ThreadPoolExecutor(_WORKERS) as pool:
            for ended_s, conversation, question in last_questions(self.file):
                pause.wait(max(0.0, started + ended_s / self.args.speed - time.monotonic()))
                pool.submit(self._ask, conversation, question)

    def _ask(self, conversation: str, question: str) -> None:
        start = time.monotonic()
        try:
            version, text, _ = self.door.ask(question, conversation, recorded=False)
            failed = ""
        except (httpx.HTTPError, KeyError, ValueError) as error:
            version, text, failed = "", "", type(error).__name__
        at = time.clock_gettime(time.CLOCK_REALTIME)
        with self._lock:
            self._answers.append(Answer(conversation, version, text, bool(text), at, time.monotonic() - start, failed))
