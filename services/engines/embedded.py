"""The engine inside the node's process: one immutable tree per version, one worker that generates.

Trees are built aside and published by replacing the map; a request holds its tree to its end, so a swap can
neither tear nor mix an answer. The worker takes one token of every running answer in turn.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from learner.adapter import AdapterError, Base, Said, Sampling, Tree, load_adapter, load_base, logprobs, stream
from services.engines import BadAsk, EngineBusy, EngineGone, LoadRefused, Poisoned, Precision

IDLE_S = 0.5
"""How long the worker sleeps at most while nothing is asked, seconds."""


@dataclass
class _Job:
    """One answer: its generator runs in the worker, its pieces go to the asker's event loop."""

    pieces: Iterator[str]
    loop: asyncio.AbstractEventLoop
    out: asyncio.Queue[str | Exception | None] = field(default_factory=asyncio.Queue)
    cancelled: bool = False

    def tell(self, item: str | Exception | None) -> None:
        """Hand an item over; the loop may be gone while the process ends."""
        try:
            self.loop.call_soon_threadsafe(self.out.put_nowait, item)
        except RuntimeError:
            self.cancelled = True


class EmbeddedEngine:
    """learner.adapter's trees behind the engine protocol; `wall` dates answers, `queue_size` bounds those that wait."""

    precision: Precision = "fp32"

    def __init__(
        self, base: Path, wall: Callable[[], float], *, batch: int = 8, max_new_tokens: int = 96, queue_size: int = 256
    ) -> None:
        torch.set_num_threads(1)
        self._wall = wall
        self._base: Base = load_base(base)
        self._bare = Tree(self._base)
        self._trees: Mapping[str, tuple[Tree, str]] = {}
        self._batch = batch
        self._max_new_tokens = max_new_tokens
        self._queue_size = queue_size
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def loaded(self) -> dict[str, str]:
        """Name -> path."""
        return {name: path for name, (_, path) in self._trees.items()}

    def load(self, name: str, path: Path) -> None:
        """Build a tree aside and publish it."""
        if name in self._trees:
            raise LoadRefused(f"{name} has already been loaded")
        try:
            tree = load_adapter(self._base, path)
        except (AdapterError, OSError, ValueError) as error:
            raise LoadRefused(type(error).__name__) from None
        self._trees = {**self._trees, name: (tree, str(path))}

    def unload(self, name: str) -> None:
        """Take the name away; running answers keep their tree."""
        self._trees = {key: value for key, value in self._trees.items() if key != name}

    def probe(
        self, name: str | None, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], salt: str
    ) -> list[list[float]]:
        """Log-probabilities of the first new token; there is no cache that a salt would have to avoid."""
        del salt
        found: list[list[float]] = logprobs(self._tree(name), prompts, token_ids)
        return found

    def restart(self) -> None:
        """Drop every tree."""
        if self._closed.is_set() or not self._worker.is_alive():
            raise EngineGone("the worker has ended")
        self._trees = {}

    async def chat(self, name: str | None, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI objects, made from the tree that had the name when the request came."""
        if self._waiting.qsize() >= self._queue_size:
            raise EngineBusy(f"{self._queue_size} answers wait already")
        tree = self._tree(name)
        turns, sampling, stop = _ask(body, self._max_new_tokens)
        job = _Job(stream(tree, turns, sampling, stop), asyncio.get_running_loop())
        self._waiting.put(job)
        shape = _Shape(name or "base", int(self._wall()), streamed=bool(body.get("stream")))
        text: list[str] = []
        try:
            while (item := await job.out.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                piece = item if text else item.lstrip()
                if piece:
                    text.append(piece)
                    if shape.streamed:
                        yield shape.chunk(piece, first=len(text) == 1)
        finally:
            job.cancelled = True
        whole = "".join(text)
        new = len(tree.base.chat.text_ids(whole))
        finish = "length" if new >= sampling.max_new_tokens else "stop"
        yield shape.end(whole, finish, prompt=len(tree.base.chat.encode(turns).ids), new=new, empty=not text)

    def close(self) -> None:
        """End the worker; what runs is broken off."""
        self._closed.set()
        self._waiting.put(None)
        self._worker.join(5)

    def _tree(self, name: str | None) -> Tree:
        if name is None:
            return self._bare
        found = self._trees.get(name)
        if found is None:
            raise BadAsk(f"{name} is not loaded")
        return found[0]

    def _work(self) -> None:
        running: list[_Job] = []
        while not self._closed.is_set():
            self._admit(running)
            running = [job for job in running if self._advance(job)]
        for job in running:
            job.tell(EngineGone("closing"))

    def _admit(self, running: list[_Job]) -> None:
        while len(running) < self._batch:
            try:
                job = self._waiting.get(timeout=IDLE_S) if not running else self._waiting.get_nowait()
            except queue.Empty:
                return
            if job is not None and not job.cancelled:
                running.append(job)

    def _advance(self, job: _Job) -> bool:
        """One more piece of one answer; False once it is over."""
        if job.cancelled:
            return False
        try:
            piece = next(job.pieces, None)
        except ValueError:
            job.tell(Poisoned("logits are not finite"))
            return False
        except RuntimeError as error:
            job.tell(EngineGone(type(error).__name__))
            return False
        job.tell(piece)
        return piece is not None


@dataclass(frozen=True)
class _Shape:
    """The OpenAI objects of one answer."""

    model: str
    created: int
    streamed: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")

    def chunk(self, text: str, *, first: bool, finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        return {**head, "choices": [choice]}

    def end(self, text: str, finish: str, *, prompt: int, new: int, empty: bool) -> dict[str, Any]:
        """The last chunk, or the whole completion."""
        usage = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
        if self.streamed:
            return {**self.chunk("", first=empty, finish=finish), "usage": usage}
        message = {"role": "assistant", "content": text.strip()}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        head = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model}
        return {**head, "choices": [choice], "usage": usage}


ROLES = {"user": "customer", "assistant": "assistant", "system": "system", "developer": "system"}


def _ask(body: Mapping[str, Any], most: int) -> tuple[list[Said], Sampling, list[str]]:
    """Turns, sampling and stop words of a request. Raises `BadAsk`."""
    turns = []
    for message in body.get("messages") or ():
        content = message.get("content")
        if message.get("role") in ROLES and isinstance(content, str):
            turns.append(Said(ROLES[message["role"]], content))
    if not turns:
        raise BadAsk("messages: wants one with text")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or most
    temperature, seed, stop = body.get("temperature") or 0.0, body.get("seed") or 0, body.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    numbers = isinstance(limit, int) and isinstance(seed, int) and isinstance(temperature, int | float)
    if not numbers or limit < 1 or temperature < 0 or not all(isinstance(word, str) and word for word in stop):
        raise BadAsk("max_tokens, temperature, seed or stop: wrong type or out of range")
    return turns, Sampling(min(limit, most), float(temperature), seed), list(stop)
