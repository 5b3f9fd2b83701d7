"""vLLM's HTTP API as an engine; registry-and-nodes.md 2. Its port is on loopback and reached by the node alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from services.engines import BadAsk, EngineGone, LoadRefused, Precision
from services.engines.http_engine import OK, SERVER_ERROR, HttpEngine

NOT_FOUND = 404
BASE_NAME = "base"
"""What the engine serves the base model as (--served-model-name)."""


class VllmEngine(HttpEngine):
    """Loads and unloads by name; any answer but 200 is a failure, and a 200 is never parsed."""

    precision: Precision = "bf16"

    def load(self, name: str, path: Path) -> None:
        """Load an adapter; `load_inplace` is never used, a name never twice."""
        response = self.call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path.resolve())})
        if response.status_code != OK:
            raise LoadRefused(f"status {response.status_code}")

    def unload(self, name: str) -> None:
        """Drop the name; its weights stay in the engine until they are evicted."""
        response = self.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if response.status_code not in {OK, NOT_FOUND}:
            raise EngineGone(f"unload: status {response.status_code}")

    def probe(
        self, name: str | None, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], salt: str
    ) -> list[list[float]]:
        """One request with the log-probabilities of the first new token; the salt keeps it out of the prefix cache."""
        body = {
            "model": name or BASE_NAME, "prompt": [list(prompt) for prompt in prompts], "max_tokens": 1,
            "temperature": 0, "ignore_eos": True, "logprobs": 1, "logprob_token_ids": list(token_ids),
            "return_tokens_as_token_ids": True, "cache_salt": salt,
        }  # fmt: skip
        response = self.call("POST", "/v1/completions", body)
        if response.status_code >= SERVER_ERROR:
            raise EngineGone(f"probe: status {response.status_code}")
        if response.status_code != OK:
            raise BadAsk(f"probe: status {response.status_code}")
        try:
            choices = sorted(msgspec.json.decode(response.content)["choices"], key=lambda choice: choice["index"])
            tops = [choice["logprobs"]["top_logprobs"][0] for choice in choices]
            return [[float(top[f"token_id:{token}"]) for token in token_ids] for top in tops]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            raise BadAsk("probe: values are missing or not numbers") from None

    def chat(self, name: str | None, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The request as it is, under the adapter's name."""
        return self.passed({**body, "model": name or BASE_NAME})
