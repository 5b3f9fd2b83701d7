"""One suite over every engine driver: the embedded one, and vLLM's and SGLang's HTTP dialects spoken by stubs."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from learner.adapter import AdapterError, Said, Sampling, Tree, generate, load_adapter, load_base, logprobs
from services.engines import BadAsk, Engine, EngineBusy, EngineGone, LoadRefused
from services.engines.embedded import EmbeddedEngine
from services.engines.http_engine import HttpEngine
from services.engines.sglang import SglangEngine
from services.engines.vllm import VllmEngine
from services.http_server import HttpServer
from services.local.supervisor import free_port
from services.node.probe import base_prompts
from tests.fleet import Shop

QUESTION = "hello, my parcel has not arrived yet"
BODY = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6}


class Stub:
    """The HTTP answers of an engine over the true model; `status` overrides those of chats."""

    def __init__(self, shop: Shop, routes: list[Route]) -> None:
        self.base = load_base(shop.base)
        self.trees: dict[str, tuple[Tree, str]] = {}
        self.status = 200
        self.breaks = False
        common = [
            Route("/health", self.health), Route("/v1/models", self.models),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]  # fmt: skip
        self.server = HttpServer(Starlette(routes=[*common, *routes]), "127.0.0.1", 0)
        self.server.start()

    def tree(self, name: str | None) -> Tree:
        """A version's tree, or the base's."""
        return self.trees[name][0] if name in self.trees else Tree(self.base)

    async def health(self, _request: Request) -> Response:
        """Alive."""
        return PlainTextResponse("")

    async def models(self, _request: Request) -> Response:
        """The base, and adapters with the path as loaded."""
        adapters = [{"id": name, "root": path, "parent": "base"} for name, (_, path) in self.trees.items()]
        return JSONResponse({"object": "list", "data": [{"id": "base", "root": "/model", "parent": None}, *adapters]})

    async def chat(self, request: Request) -> Response:
        """An answer, whole or in two pieces."""
        body = await request.json()
        if self.status != 200:
            return JSONResponse({"error": {"message": "no"}}, status_code=self.status)
        name = body["model"].split(":")[-1]
        if name != "base" and name not in self.trees:
            return JSONResponse({"error": {"message": "does not exist"}}, status_code=404)
        text = generate(self.tree(name), [Said("customer", QUESTION)], Sampling(body["max_tokens"]))
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            return JSONResponse({**head, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        return StreamingResponse(self.events(head, text), media_type="text/event-stream")

    async def events(self, head: dict[str, Any], text: str) -> AsyncIterator[bytes]:
        """Chunks; `breaks` leaves out the end."""
        for piece, finish in ((text[:3], None), (text[3:], "stop")):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": finish}
            yield b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
        if not self.breaks:
            yield b"data: [DONE]\n\n"

    def take(self, name: str, path: str) -> str | None:
        """Load; None, or why not."""
        if name in self.trees:
            return "has already been loaded"
        try:
            self.trees[name] = (load_adapter(self.base, Path(path)), path)
        except AdapterError:
            return "failed"
        return None


class VllmStub(Stub):
    """vLLM's dialect: plain text on success, an error object else."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(
            shop,
            [
                Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ],
        )

    async def load(self, request: Request) -> Response:
        """`Success: ...` as text, or 400."""
        body = await request.json()
        why = self.take(body["lora_name"], body["lora_path"])
        if why:
            return JSONResponse({"error": {"message": why, "code": 400}}, status_code=400)
        return Response(b"Success: LoRA adapter added successfully.")

    async def unload(self, request: Request) -> Response:
        """200, or 404 for an unknown name."""
        known = self.trees.pop((await request.json())["lora_name"], None)
        return Response(b"removed successfully.") if known else JSONResponse({"error": {}}, status_code=404)

    async def completions(self, request: Request) -> Response:
        """The probe."""
        body = await request.json()
        assert body["cache_salt"]
        assert "prompt_logprobs" not in body
        tokens = body["logprob_token_ids"]
        rows = logprobs(self.tree(body["model"]), body["prompt"], tokens)
        tops = [{f"token_id:{token}": value for token, value in zip(tokens, row, strict=True)} for row in rows]
        choices = [{"index": at, "logprobs": {"top_logprobs": [top]}} for at, top in enumerate(tops)]
        return JSONResponse({"choices": choices[::-1]})


class SglangStub(Stub):
    """SGLang's dialect: `success` and `loaded_adapters` in every answer."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(
            shop,
            [
                Route("/load_lora_adapter", self.load, methods=["POST"]),
                Route("/unload_lora_adapter", self.unload, methods=["POST"]),
                Route("/generate", self.generate, methods=["POST"]),
            ],
        )

    def said(self, why: str | None) -> Response:
        """The common shape."""
        loaded = {name: path for name, (_, path) in self.trees.items()}
        body = {"success": why is None, "error_message": why or "", "loaded_adapters": loaded}
        return JSONResponse(body, status_code=200 if why is None else 400)

    async def load(self, request: Request) -> Response:
        """Never pinned."""
        body = await request.json()
        assert body["pinned"] is False
        return self.said(self.take(body["lora_name"], body["lora_path"]))

    async def unload(self, request: Request) -> Response:
        """Unknown names are an error here."""
        known = self.trees.pop((await request.json())["lora_name"], None)
        return self.said(None if known else "not loaded")

    async def generate(self, request: Request) -> Response:
        """The probe: triples of value, id and text."""
        body = await request.json()
        rows = logprobs(self.tree(body["lora_path"][0]), body["input_ids"], body["token_ids_logprob"])
        triples = [
            [[value, token, None] for token, value in zip(body["token_ids_logprob"], row, strict=True)] for row in rows
        ]
        return JSONResponse([{"meta_info": {"output_token_ids_logprobs": [found]}} for found in triples])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A base and two versions."""
    found = Shop(tmp_path_factory.mktemp("shop"))
    found.publish(0)
    found.publish(1)
    return found


@pytest.fixture(params=["embedded", "vllm", "sglang"])
def engine(request: pytest.FixtureRequest, shop: Shop) -> Iterator[Engine]:
    """Each driver in turn."""
    if request.param == "embedded":
        embedded = EmbeddedEngine(shop.base, lambda: 0.0)
        yield embedded
        embedded.close()
        return
    stub = VllmStub(shop) if request.param == "vllm" else SglangStub(shop)
    kind = VllmEngine if request.param == "vllm" else SglangEngine
    driver = kind(stub.server.url, 20.0)
    yield driver
    asyncio.run(driver.close_answers())
    driver.close()
    stub.server.stop()


def answers(engine: Engine, name: str | None, **more: Any) -> list[dict[str, Any]]:
    """One chat's objects."""

    async def collect() -> list[dict[str, Any]]:
        try:
            return [item async for item in engine.chat(name, {**BODY, **more})]
        finally:
            if isinstance(engine, HttpEngine):
                await engine.close_answers()

    return asyncio.run(collect())


def test_engines_hold_what_was_loaded_and_nothing_else(engine: Engine, shop: Shop, tmp_path: Path) -> None:
    """Name and path as loaded; the same name twice and a torn file are refused; unloading twice is no error."""
    engine.restart()
    assert engine.loaded() == {}
    engine.load("v1", shop.folder / "out-0")
    engine.load("v2", shop.folder / "out-1")
    assert engine.loaded() == {"v1": str(shop.folder / "out-0"), "v2": str(shop.folder / "out-1")}
    with pytest.raises(LoadRefused):
        engine.load("v1", shop.folder / "out-0")
    shutil.copytree(shop.folder / "out-0", tmp_path / "torn")
    weights = tmp_path / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(LoadRefused):
        engine.load("v3", tmp_path / "torn")
    engine.unload("v1")
    engine.unload("v1")
    assert set(engine.loaded()) == {"v2"}


def test_engines_answer_probes_with_the_version_that_was_asked(engine: Engine, shop: Shop) -> None:
    """16 x 16 log-probabilities, in the order of the prompts, of base and version."""
    base = load_base(shop.base)
    prompts, token_ids = base_prompts(base.shape.vocab)
    engine.load("v1", shop.folder / "out-0")
    for name, tree in ((None, Tree(base)), ("v1", load_adapter(base, shop.folder / "out-0"))):
        found = engine.probe(name, prompts, token_ids, "salt")
        assert [value for row in found for value in row] == pytest.approx(
            [value for row in logprobs(tree, prompts, token_ids) for value in row], abs=1e-5
        )


def test_engines_stream_what_they_say_whole(engine: Engine, shop: Shop) -> None:
    """The pieces of a stream put together are the whole answer; base and version differ; unknown names are refused."""
    engine.load("v1", shop.folder / "out-0")
    texts = {}
    for name in (None, "v1"):
        (whole,) = answers(engine, name)
        texts[name] = whole["choices"][0]["message"]["content"]
        chunks = answers(engine, name, stream=True)
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks).strip() == texts[name]
        assert chunks[-1]["choices"][0]["finish_reason"]
    assert texts[None] != texts["v1"]
    with pytest.raises(BadAsk):
        answers(engine, "v9")


@pytest.mark.parametrize(("status", "error"), [(400, BadAsk), (429, EngineBusy), (503, EngineBusy), (500, EngineGone)])
def test_engines_tell_whose_fault_a_failure_is(shop: Shop, status: int, error: type[Exception]) -> None:
    """The request's, a full queue's, or the engine's own."""
    stub = VllmStub(shop)
    engine = VllmEngine(stub.server.url, 20.0)
    try:
        stub.status = status
        with pytest.raises(error):
            answers(engine, None)
    finally:
        engine.close()
        stub.server.stop()


def test_engines_notice_a_stream_that_breaks_off_and_an_absent_engine(shop: Shop) -> None:
    """A stream without DONE, and nobody on the port: both are EngineGone, and so is a restart that finds nobody."""
    stub = VllmStub(shop)
    engine = VllmEngine(stub.server.url, 20.0)
    try:
        stub.breaks = True
        with pytest.raises(EngineGone):
            answers(engine, None, stream=True)
    finally:
        engine.close()
        stub.server.stop()
    nobody = VllmEngine(f"http://127.0.0.1:{free_port()}", 1.0)
    for call in (nobody.loaded, nobody.restart, lambda: nobody.load("v1", shop.folder / "out-0")):
        with pytest.raises(EngineGone):
            call()
    with pytest.raises(EngineGone):
        answers(nobody, None)
    nobody.close()


def test_engines_start_and_end_their_child(shop: Shop, tmp_path: Path) -> None:
    """A command of the settings is started, waited for, restarted and ended with its whole group."""
    port = free_port()
    script = tmp_path / "serve.py"
    script.write_text(
        "import http.server, sys\n"
        "class Ok(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "    def log_message(self, *args): pass\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Ok).serve_forever()\n"
    )
    engine = VllmEngine(f"http://127.0.0.1:{port}", 5.0, ("python3", str(script), str(port)))
    engine.restart()
    first = engine._child
    assert first is not None
    engine.restart()
    assert first.poll() is not None
    assert engine._child is not None
    second = engine._child
    engine.close()
    assert second.poll() is not None
    dies = VllmEngine(f"http://127.0.0.1:{free_port()}", 1.0, ("python3", "-c", "raise SystemExit(3)"))
    with pytest.raises(EngineGone):
        dies.restart()
    dies.close()
    del shop
