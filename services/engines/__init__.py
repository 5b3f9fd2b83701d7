"""What a node drives: one engine that loads adapters by name and answers with them.

EngineError
├── EngineGone       it did not answer; what it did is unknown, so ask `loaded`
├── LoadRefused      it does not take this adapter
├── EngineBusy       its queue is full
├── BadAsk           it does not take this request
└── Poisoned         a number was not finite while it answered
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

Precision = Literal["fp32", "bf16"]


class EngineError(Exception):
    """Base of all of them; messages hold no chat text."""


class EngineGone(EngineError):
    """No answer, or a broken one."""


class LoadRefused(EngineError):
    """The adapter is not loaded."""


class EngineBusy(EngineError):
    """Ask another node."""


class BadAsk(EngineError):
    """The request is at fault."""


class Poisoned(EngineError):
    """Non-finite logits: the version is bad, and so may be what the engine has cached."""


class Engine(Protocol):
    """vLLM, SGLang or the embedded one. A name is a version id; None is the base model alone."""

    precision: Precision
    """Which tolerance its probes have."""

    def loaded(self) -> dict[str, str]:
        """Name -> path of every adapter, asked from the engine. Raises `EngineGone`."""

    def load(self, name: str, path: Path) -> None:
        """Load an adapter under a name that is new. Raises `LoadRefused` or `EngineGone`."""

    def unload(self, name: str) -> None:
        """Take a name away; one that is not there is no error. Raises `EngineGone`."""

    def probe(
        self, name: str | None, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], salt: str
    ) -> list[list[float]]:
        """Log-probabilities (prompts x token_ids) of the first new token. Raises `EngineError`."""

    def restart(self) -> None:
        """Start it, or start it afresh: nothing is loaded then. Raises `EngineGone`."""

    def chat(self, name: str | None, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """OpenAI chunks when the body asks for a stream, else one completion. Raises `EngineError`."""

    def close(self) -> None:
        """Let go of everything."""


__all__ = ["BadAsk", "Engine", "EngineBusy", "EngineError", "EngineGone", "LoadRefused", "Poisoned", "Precision"]
