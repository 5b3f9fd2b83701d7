"""SGLang's HTTP API as an engine; registry-and-nodes.md 3 (read in its source and stubbed in tests, not run)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from services.engines import BadAsk, EngineGone, LoadRefused, Precision
from services.engines.http_engine import OK, SERVER_ERROR, HttpEngine
from services.engines.vllm import BASE_NAME


class SglangEngine(HttpEngine):
    """Every load gets its own id inside SGLang, so a name may return; unload waits for running answers there."""

    precision: Precision = "bf16"

    def load(self, name: str, path: Path) -> None:
        """Load an adapter, never pinned: pinned ones crowd out the batch."""
        body = {"lora_name": name, "lora_path": str(path.resolve()), "pinned": False}
        if not _succeeded(self.call("POST", "/load_lora_adapter", body)):
            raise LoadRefused("not loaded")

    def unload(self, name: str) -> None:
        """Drop the name. Raises `EngineGone` while an answer still runs under it: the next step tries again."""
        if not _succeeded(self.call("POST", "/unload_lora_adapter", {"lora_name": name})) and name in self.loaded():
            raise EngineGone("unload is incomplete")

    def probe(
        self, name: str | None, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], salt: str
    ) -> list[list[float]]:
        """One `/generate` request; each load has a cache of its own, so no salt is needed."""
        del salt
        body = {
            "input_ids": [list(prompt) for prompt in prompts], "return_logprob": True,
            "token_ids_logprob": list(token_ids), "lora_path": [name] * len(prompts),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0, "ignore_eos": True},
        }  # fmt: skip
        response = self.call("POST", "/generate", body)
        if response.status_code >= SERVER_ERROR:
            raise EngineGone(f"probe: status {response.status_code}")
        if response.status_code != OK:
            raise BadAsk(f"probe: status {response.status_code}")
        try:
            answers = msgspec.json.decode(response.content)
            return [_values(answer, token_ids) for answer in answers]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            raise BadAsk("probe: values are missing or not numbers") from None

    def chat(self, name: str | None, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The request under `BASE:ADAPTER`."""
        return self.passed({**body, "model": f"{BASE_NAME}:{name}" if name else BASE_NAME})


def _succeeded(response: httpx.Response) -> bool:
    try:
        return bool(msgspec.json.decode(response.content)["success"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return False


def _values(answer: Mapping[str, Any], token_ids: Sequence[int]) -> list[float]:
    """SGLang gives (log-probability, token id, text) triples of the first new token."""
    found = {int(item[1]): float(item[0]) for item in answer["meta_info"]["output_token_ids_logprobs"][0]}
    return [found[token] for token in token_ids]
