"""A node's agent over a stub engine and a real registry, for tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from learner.adapter import Tree, load_adapter, load_base, logprobs
from learner.registry import BASE, Registry, load_signer, trust
from services.engines import EngineGone, LoadRefused, Precision
from services.node.agent import Agent
from services.node.desired import Desired
from services.node.metrics import NodeMetrics
from services.node.process import Store
from services.rollout_records import NodeState, RolloutRecord
from services.serving_config import NodeConfig
from tests.fleet import Shop


class StubEngine:
    """An engine that keeps count, can lose replies, die, and answer probes from the true model."""

    precision: Precision = "fp32"

    def __init__(self, shop: Shop) -> None:
        self._base = load_base(shop.base)
        self.adapters: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.gone = False
        self.lose_reply = False
        self.dies_on: str | None = None
        self.answer: Any = "fine"
        self.most_loaded = 0

    def _alive(self) -> None:
        if self.gone:
            raise EngineGone("dead")

    def loaded(self) -> dict[str, str]:
        """Name -> path."""
        self._alive()
        return dict(self.adapters)

    def load(self, name: str, path: Path) -> None:
        """Load, and perhaps lose the reply or die."""
        self._alive()
        self.calls.append(("load", name))
        if name in self.adapters:
            raise LoadRefused("twice")
        self.adapters[name] = str(path)
        self.most_loaded = max(self.most_loaded, len(self.adapters))
        if name == self.dies_on:
            self.gone = True
            self.adapters = {}
        if self.gone or self.lose_reply:
            self.lose_reply = False
            raise EngineGone("no reply")

    def unload(self, name: str) -> None:
        """Drop a name."""
        self._alive()
        self.calls.append(("unload", name))
        self.adapters.pop(name, None)

    def probe(
        self, name: str | None, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], salt: str
    ) -> list[list[float]]:
        """The true model's log-probabilities."""
        self._alive()
        assert salt
        self.calls.append(("probe", name or BASE))
        tree = Tree(self._base) if name is None else load_adapter(self._base, Path(self.adapters[name]))
        return logprobs(tree, prompts, token_ids)

    def restart(self) -> None:
        """Nothing is loaded then."""
        self.gone = False
        self.adapters = {}

    async def chat(self, name: str | None, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """As told."""
        self.calls.append(("chat", name or BASE))
        self.calls.extend(("field", key) for key in body if key in {"echo", "prompt_logprobs"})
        found = self.answer(name) if callable(self.answer) else self.answer
        if isinstance(found, Exception):
            raise found
        yield {"model": name, "choices": [{"index": 0, "message": {"content": found}, "finish_reason": "stop"}]}

    def close(self) -> None:
        """Nothing to let go of."""


class Bed:
    """An agent over a stub engine and a real registry."""

    def __init__(self, shop: Shop, folder: Path, engine: Any = None) -> None:
        self.shop = shop
        self.now = 0.0
        self.engine = engine or StubEngine(shop)
        self.events: list[tuple[str, str, str]] = []
        self.config = NodeConfig(directory=folder / "node", max_cpu_adapters=3)
        self.folder = folder
        self.agent = self.agent_of()

    def agent_of(self) -> Agent:
        """A fresh agent, as after a restart of the process."""
        signers = trust(load_signer(self.shop.folder / "key").public)
        registry = Registry(self.shop.folder / "store", signers, lambda: 0.0)
        return Agent(
            self.config, self.engine, Store(registry, signers, self.shop.foundation),
            foundation=self.shop.foundation, desired=Desired(self.folder / "rollout.json", "a"),
            metrics=NodeMetrics(CollectorRegistry()), clock=lambda: self.now,
            note=lambda event, version, reason: self.events.append((event, version, reason)),
        )  # fmt: skip

    def want(self, generation: int, **changes: Any) -> None:
        """A new record, acted on."""
        self.agent.accept(RolloutRecord(generation=generation, **changes))
        self.settle()

    def settle(self) -> None:
        """Steps until nothing is left to do."""
        for _ in range(6):
            self.agent.step()

    def states(self) -> dict[str, NodeState]:
        """Version -> state."""
        return {version: status.state for version, status in self.agent.statuses().items()}
