"""A serving fleet for tests: a tiny base with random weights, versions published as the learner would, processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import torch
from confluent_kafka import Producer

from learner.adapter import Lora, Tree, adapter_files, load_adapter, load_base, logprobs, new_lora
from learner.adapter.lora import settings_of
from learner.registry import (
    BASE,
    WEIGHTS_FILE,
    Eval,
    Facts,
    Foundation,
    Probe,
    Registry,
    Signer,
    Training,
    base_identity,
    file_sha256,
    load_signer,
    trust,
)
from learner.registry.manifest import encode as encode_manifest
from learner.registry.manifest import sealed, to_object
from services.local.supervisor import free_port
from services.node.probe import base_prompts
from services.rollout_records import VersionRecord, encode
from services.serving_config import demo_rollout
from services.settings import Settings, child_environment, load
from streams.topics import VERSIONS
from tests.bases import tiny_base

ROOT = Path(__file__).resolve().parent.parent
ADMIN = "test-admin-token"
CLOCK = 1_767_225_600.0


@dataclass
class Shop:
    """A base, a registry, and the means to publish versions into it."""

    folder: Path
    model: Path | None = None
    """A base model's folder; None: a tiny one with random weights."""
    base: Path = field(init=False)
    foundation: Foundation = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.model or tiny_base(self.folder / "tiny")
        self.foundation = base_identity(self.base, self.base.name)
        self._model = load_base(self.base)
        self._forged = 0

    @property
    def registry(self) -> Registry:
        """The store, opened afresh."""
        signer = load_signer(self.folder / "key")
        return Registry(self.folder / "store", trust(signer.public), lambda: CLOCK, signer=signer)

    def lora(self, seed: int, strength: float = 0.3) -> Lora:
        """An adapter with random B, so that it answers differently from the base."""
        generator = torch.Generator().manual_seed(seed)
        fresh = new_lora(self._model.shape, 8, 16.0, generator)
        return fresh.with_flat(fresh.flat + strength * 0.1 * torch.randn(fresh.flat.shape, generator=generator))

    def publish(self, seed: int, parent: str = BASE, *, against: str | None = None, strength: float = 0.3) -> str:
        """Publish random weights with true fingerprints; gives the id."""
        out = self.folder / f"out-{seed}"
        files = adapter_files(self.lora(seed, strength), self.base.name, out)
        registry = self.registry
        prompts, token_ids = base_prompts(self._model.shape.vocab)
        prints = {BASE: logprobs(Tree(self._model), prompts, token_ids)}
        prints["own"] = logprobs(load_adapter(self._model, out), prompts, token_ids)
        if parent != BASE:
            where = registry.fetch(parent, self.folder / "parents")
            prints[parent] = logprobs(load_adapter(self._model, where), prompts, token_ids)
        found = Facts(
            line="a", parent=parent, base=self.foundation.base, base_config=self.foundation.config,
            lora=settings_of(self.lora(seed)), weights_sha256=file_sha256(files[WEIGHTS_FILE]),
            probe=Probe(
                prompts=tuple(map(tuple, prompts)), token_ids=tuple(token_ids), logprobs=_rows(prints["own"]),
                base_logprobs=_rows(prints[BASE]), parent_logprobs=_rows(prints[parent]),
            ),
            eval=Eval(
                set_digest="e", examples=300, nll_per_token=1.0, base_nll_per_token=2.0, parent_nll_per_token=1.1,
                decision="promote", gated_against=against or parent,
            ),
            training=Training(
                git_commit="0" * 40, seed=seed, run="run", steps=(0, 5), fresh_from=CLOCK, fresh_to=CLOCK,
                offsets={}, replay_snapshot="s", epoch=1,
            ),
        )  # fmt: skip
        return registry.publish(files, found)

    def publish_poisoned(self, seed: int) -> str:
        """A version whose bytes are as signed, and hold one NaN."""
        raw = self.folder / f"out-{seed}" / WEIGHTS_FILE
        good = self.publish(seed)
        return self.forge(good, weights=raw.read_bytes()[:-2] + b"\xc0\x7f")

    def publish_newest(self, seed: int) -> str:
        """A good version whose sequence is above every forged one."""
        return self.forge(self.publish(seed))

    def forge(
        self,
        version: str,
        *,
        weights: bytes | None = None,
        edit: Callable[[dict[str, Any]], None] = lambda _: None,
        signer: Signer | None = None,
    ) -> str:
        """A version like another one, with other bytes or facts, written past the registry; signed with its key."""
        manifest = self.registry.manifest(version)
        store = self.folder / "store"
        body = {name: value for name, value in to_object(manifest).items() if name not in {"id", "signature", "schema"}}
        self._forged += 1
        body["seq"] = 900_000 + self._forged
        if weights is not None:
            digest = sha256(weights).hexdigest()
            (store / "blobs" / "sha256" / digest).write_bytes(weights)
            for file in body["files"]:
                if file["path"] == WEIGHTS_FILE:
                    file |= {"sha256": digest, "size": len(weights)}
        edit(body)
        forged = sealed(body, signer or load_signer(self.folder / "key"))
        place = store / "versions" / forged.id
        place.mkdir(parents=True)
        (place / "manifest.json").write_bytes(encode_manifest(forged))
        return forged.id

    def record(self, version: str, against: str = BASE) -> VersionRecord:
        """What `learn` sends about a published version."""
        return VersionRecord(id=version, digest=self.registry.manifest(version).digest, gated_against=against, epoch=1)


def _rows(values: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something that other processes do. Raises TimeoutError."""
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise TimeoutError(what)


class Fleet:
    """Nodes, a router and a controller as processes of their own on an embedded broker and a redis-server."""

    def __init__(self, shop: Shop, bootstrap: str, redis_url: str, *, nodes: int = 1, **rollout: object) -> None:
        self.shop = shop
        self.folder = shop.folder
        self.values: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap": bootstrap, "embedded": True},
            "redis": {"url": redis_url},
            "keys": {"ring": {"k1": "11" * 16}, "fixed": "22" * 16, "admin_token": ADMIN},
            "registry": {"directory": self.folder / "store", "key": self.folder / "key"},
            "rollout": {**demo_rollout(), **rollout},
            "admin": {"level": "info"},
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.admin: dict[str, int] = {}
        self.producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self.router = ""
        self.nodes = nodes
        self.urls: dict[str, str] = {}

    @property
    def settings(self) -> Settings:
        """What a process outside needs to join."""
        return load(environment=child_environment(self.values))

    def start(self) -> None:
        """Start everything; returns when every process is ready."""
        for number in range(1, self.nodes + 1):
            self.start_node(f"node-{number}")
        self.start_process("rollout", ["rollout", "run"], {})
        port = free_port()
        self.router = f"http://127.0.0.1:{port}"
        self.start_process("router", ["router"], {"router": {"port": port, "spool": self.folder / "router"}})
        for name in list(self.processes):
            self.wait_ready(name)

    def start_node(self, name: str) -> None:
        """Start, or start again, one node."""
        port = int(self.urls[name].rsplit(":", 1)[1]) if name in self.urls else free_port()
        node = {"name": name, "port": port, "directory": self.folder / name, "base": self.shop.base, "report_s": 0.5}
        self.urls[name] = f"http://127.0.0.1:{port}"
        self.start_process(name, ["node"], {"node": node})

    def start_process(self, name: str, arguments: list[str], more: Mapping[str, Mapping[str, object]]) -> None:
        """Start one process; its log goes to a file named after it."""
        self.admin[name] = free_port()
        values = {**{k: dict(v) for k, v in self.values.items()}, **{k: dict(v) for k, v in more.items()}}
        values["admin"] = {**values["admin"], "port": self.admin[name]}
        environment = {**child_environment(values), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "services.cli", *arguments], env=environment, cwd=ROOT, stderr=log, stdout=log
            )

    def wait_ready(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait for a process's /readyz."""

        def ready() -> bool:
            if self.processes[name].poll() is not None:
                raise AssertionError(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            try:
                return httpx.get(f"http://127.0.0.1:{self.admin[name]}/readyz", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        until(ready, f"{name} is not ready: {(self.folder / f'{name}.log').read_text()[-2000:]}", timeout_s)

    def end(self, name: str, *, kill: bool = False) -> None:
        """End one process."""
        process = self.processes.pop(name)
        process.kill() if kill else process.terminate()
        process.wait(30)

    def stop(self) -> None:
        """End every process."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def announce(self, version: str, against: str = BASE) -> None:
        """Send a version's record."""
        self.producer.produce(VERSIONS, key=version, value=encode(self.shop.record(version, against)))
        self.producer.flush(5)

    def ask(self, text: str, conversation: str | None = None, **more: Any) -> httpx.Response:
        """One chat request; `more` goes into the body, `headers` apart."""
        headers = more.pop("headers", {})
        if conversation:
            headers = {**headers, "X-Conversation-Id": conversation}
        body = {"model": "driftline", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}
        return httpx.post(f"{self.router}/v1/chat/completions", json=body, headers=headers, timeout=30)

    def status(self) -> dict[str, Any]:
        """The router's view."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        found: dict[str, Any] = httpx.get(f"{self.router}/v1/rollout", headers=headers, timeout=5).json()
        return found

    def running(self, version: str) -> bool:
        """Whether customers meet a version as canary."""
        record = self.record()
        return bool(record["canary"] == version and record["weight"] > 0)

    def denied(self, version: str) -> bool:
        """Whether a version is denied for ever."""
        return version in self.record()["deny"]

    def record(self) -> dict[str, Any]:
        """The record that the router acts on."""
        found: dict[str, Any] = self.status()["record"]
        return found


def log_lines(path: Path) -> list[dict[str, Any]]:
    """A process's log."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
