"""The vLLM driver against a real vLLM on CPU: the calls, refusals and traps of its contract, with our defence on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file, save_file

from learner.registry import BASE, Refused, Registry, load_signer, trust
from learner.shape import base_folder
from services.engines import EngineGone, LoadRefused
from services.engines.vllm import VllmEngine
from services.local.supervisor import free_port
from services.node import probe as probes
from services.node.agent import Agent
from services.node.desired import Desired
from services.node.door import Doorway, create_app
from services.node.metrics import NodeMetrics
from services.node.process import Store
from services.rollout_records import NodeState, RolloutRecord
from services.serving_config import NodeConfig
from tests.fleet import Shop

pytestmark = pytest.mark.vllm

QUESTION = [{"role": "user", "content": "hello, my parcel has not arrived yet"}]


class Server:
    """One vLLM process group."""

    def __init__(self, python: str, base: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.process = subprocess.Popen(
            [
                python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--served-model-name", "base",
                "--enable-lora", "--max-lora-rank", "16", "--max-loras", "4", "--max-cpu-loras", "8",
                "--lora-target-modules", *modules, "--enable-prefix-caching", "--max-model-len", "512",
                "--dtype", "bfloat16", "--enforce-eager", "--host", "127.0.0.1", "--port", str(self.port),
            ],
            env={**settings, **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}},  # noqa: TID251 - the child's own
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pause = threading.Event()
        for _ in range(400):
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                assert self.process.poll() is None, "vLLM ended while it started"
            pause.wait(0.5)
        raise TimeoutError("vLLM did not start")

    def stop(self) -> None:
        """End the whole group."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shipped base, and a registry."""
    return Shop(tmp_path_factory.mktemp("shop"), base_folder(""))


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, shop: Shop, missing: Callable[[str], None]) -> Iterator[Server]:
    """One vLLM for this module."""
    python = request.config.getoption("--vllm-python")
    if not python:
        missing("vLLM (--vllm-python)")
    found = Server(python, shop.base)
    yield found
    found.stop()


@pytest.fixture
def engine(server: Server) -> Iterator[VllmEngine]:
    """The driver, with nothing loaded."""
    found = VllmEngine(server.url, 60.0)
    yield found
    for name in found.loaded():
        found.unload(name)
    found.close()


@pytest.fixture
def agent(engine: VllmEngine, shop: Shop, tmp_path: Path) -> Agent:
    """A node agent over it."""
    signers = trust(load_signer(shop.folder / "key").public)
    return Agent(
        NodeConfig(directory=tmp_path / "node", engine="vllm", max_cpu_adapters=8), engine,
        Store(Registry(shop.folder / "store", signers, lambda: 0.0), signers, shop.foundation),
        foundation=shop.foundation, desired=Desired(tmp_path / "rollout.json", "a"),
        metrics=NodeMetrics(CollectorRegistry()), clock=lambda: 0.0, note=lambda *_: None,
    )  # fmt: skip


def want(agent: Agent, generation: int, **changes: Any) -> dict[str, NodeState]:
    """A record, acted on."""
    agent.accept(RolloutRecord(generation=generation, **changes))
    for _ in range(4):
        agent.step()
    return {version: status.state for version, status in agent.statuses().items()}


def ask(agent: Agent, engine: VllmEngine, model: str, **more: Any) -> httpx.Response:
    """One request through the node's door."""

    async def send() -> httpx.Response:
        app = create_app(Doorway(agent, engine, lambda *_: None))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://node") as http:
            body = {"model": model, "messages": QUESTION, "max_tokens": 6, "temperature": 0, **more}
            answer = await http.post("/v1/chat/completions", json=body, timeout=60)
        await engine.close_answers()
        return answer

    return asyncio.run(send())


def broken(shop: Shop, kind: str, folder: Path) -> Path:
    """A copy of a good adapter folder that is broken in one way."""
    out = folder / kind
    shutil.copytree(shop.folder / "out-0", out)
    file = out / "adapter_model.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    if kind == "nan":
        tensors[names[0]][0, 0] = float("nan")
    elif kind == "missing":
        tensors = {name: value for name, value in tensors.items() if ".layers.0." not in name}
    elif kind == "prefix":
        tensors = {name.replace("base_model.model.", "base_model.other."): value for name, value in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    if kind == "torn":
        file.write_bytes(file.read_bytes()[:-40])
    if kind == "alpha":
        config = json.loads((out / "adapter_config.json").read_text())
        (out / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * 4}))
    return out


def test_node_vllm_serves_verified_versions(agent: Agent, engine: VllmEngine, shop: Shop) -> None:
    """Base and two versions READY by probe in bf16; answers name their version, whole and streamed."""
    one = shop.publish(0)
    two = shop.publish(1, one)
    assert want(agent, 1, stable=one, previous=BASE, canary=two) == dict.fromkeys((one, BASE, two), NodeState.READY)
    texts = {}
    for version in (BASE, one, two):
        answer = ask(agent, engine, version)
        assert answer.json()["model"] == version
        texts[version] = answer.json()["choices"][0]["message"]["content"]
    assert texts[two] != texts[BASE]
    streamed = ask(agent, engine, one, stream=True)
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == texts[one]
    assert {chunk["model"] for chunk in chunks} == {one}
    assert want(agent, 2, stable=two) == {two: NodeState.READY}
    assert set(engine.loaded()) == {two}
    assert ask(agent, engine, one).status_code == 404


def test_node_vllm_echo_through_the_door_leaves_the_engine_alive(agent: Agent, engine: VllmEngine, shop: Shop) -> None:
    """The fields of trap 20 are stripped."""
    version = shop.publish(2)
    want(agent, 1, stable=version)
    assert ask(agent, engine, version, echo=True, logprobs=True, prompt_logprobs=1).status_code == 200
    assert engine.loaded()


def test_node_vllm_driver_reads_every_answer_of_the_contract(engine: VllmEngine, shop: Shop, tmp_path: Path) -> None:
    """Loaded once, refused twice, refused when absent or torn; unloading what is not there is no error."""
    shop.publish(3)
    path = shop.folder / "out-3"
    engine.load("a000901-00000001", path)
    assert engine.loaded() == {"a000901-00000001": str(path.resolve())}
    for name, where in (
        ("a000901-00000001", path), (BASE, path), ("a000902-00000001", tmp_path / "nowhere"),
        ("a000903-00000001", broken(shop, "torn", tmp_path)),
    ):  # fmt: skip
        with pytest.raises(LoadRefused):
            engine.load(name, where)
    engine.unload("a000901-00000001")
    engine.unload("a000901-00000001")
    assert engine.loaded() == {}
    with pytest.raises(EngineGone):
        VllmEngine(f"http://127.0.0.1:{free_port()}", 1.0).loaded()


@pytest.mark.parametrize("kind", ["missing", "prefix", "alpha"])
def test_node_vllm_accepts_what_only_our_probe_refuses(
    engine: VllmEngine, shop: Shop, tmp_path: Path, kind: str
) -> None:
    """vLLM says 200 to each of them; the fingerprint does not."""
    version = shop.publish(0)
    probe = shop.registry.manifest(version).probe
    noise = probes.calibrate(engine.probe(None, probe.prompts, probe.token_ids, "salt"), probe, engine.precision)
    name = {"missing": "a000911-00000001", "prefix": "a000912-00000001", "alpha": "a000913-00000001"}[kind]
    engine.load(name, broken(shop, kind, tmp_path))
    with pytest.raises(Refused, match="probe"):
        probes.check(engine.probe(name, probe.prompts, probe.token_ids, "salt2"), probe, noise)


def test_node_vllm_never_sees_a_poisoned_version(agent: Agent, engine: VllmEngine, shop: Shop, tmp_path: Path) -> None:
    """vLLM itself loads a NaN adapter; through the agent its bytes are refused before any call."""
    engine.load("a000921-00000001", broken(shop, "nan", tmp_path))
    engine.unload("a000921-00000001")
    bad = shop.publish_poisoned(5)
    states = want(agent, 1, stable=BASE, canary=bad)
    assert states == {BASE: NodeState.READY, bad: NodeState.QUARANTINED}
    assert agent.statuses()[bad].reason == "numbers"
    assert engine.loaded() == {}
