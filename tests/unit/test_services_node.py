"""The node: reconcile, checks before load, probe, breaker, door and the embedded engine's trees."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.adapter import Said, Sampling, generate, load_adapter, load_base
from learner.registry import BASE, Manifest, Probe, Reason, Refused, Registry, Standing, load_signer, trust, verify
from services.engines import BadAsk, EngineBusy, EngineGone, LoadRefused, Poisoned, Precision
from services.engines.embedded import EmbeddedEngine
from services.node import probe as probes
from services.node.breaker import Breaker
from services.node.door import Doorway, create_app
from services.rollout_records import NodeState, RolloutRecord
from tests.beds import Bed
from tests.fleet import Shop

READY, QUARANTINED = NodeState.READY, NodeState.QUARANTINED
QUESTION = "hello, my parcel has not arrived yet"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A base and a registry for this module."""
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def versions(shop: Shop) -> list[str]:
    """A chain of versions."""
    found = [BASE]
    for seed in range(6):
        found.append(shop.publish(seed, found[-1]))
    return found[1:]


@pytest.fixture
def bed(shop: Shop, tmp_path: Path) -> Bed:
    """A fresh node."""
    return Bed(shop, tmp_path)


def test_node_serves_the_base_before_any_record(bed: Bed) -> None:
    """`base` is READY after its own probe; nothing else is there."""
    bed.settle()
    assert bed.states() == {BASE: READY}
    assert bed.agent.unready() is None


def test_node_loads_in_order_and_only_what_is_named(bed: Bed, versions: list[str]) -> None:
    """Base probe, stable, previous, canary, next; a name that leaves the record is drained and unloaded."""
    one, two, three, four = versions[:4]
    bed.want(1, stable=one, previous=BASE, canary=two, next=three)
    assert bed.states() == {one: READY, BASE: READY, two: READY, three: READY}
    assert [name for call, name in bed.engine.calls if call == "load"] == [one, two, three]
    assert bed.engine.calls[0] == ("probe", BASE)
    bed.want(2, stable=two, previous=one, canary=four)
    assert bed.states() == {two: READY, one: READY, four: READY}
    assert set(bed.engine.adapters) == {one, two, four}


def test_node_ignores_lower_generations_over_restarts(bed: Bed, versions: list[str]) -> None:
    """The last record is on disk: an old one, delivered again after a restart, changes nothing."""
    bed.want(5, stable=versions[0])
    assert not bed.agent.accept(RolloutRecord(generation=5, stable=versions[1]))
    bed.agent = bed.agent_of()
    assert bed.agent.generation == 5
    assert not bed.agent.accept(RolloutRecord(generation=4, stable=versions[1]))
    bed.settle()
    assert bed.states() == {versions[0]: READY}, "without Kafka, from disk"


def test_node_lets_no_straggler_through(bed: Bed, versions: list[str]) -> None:
    """Unknown, drained and denied versions never reach the engine, whatever state they are in."""
    one, two = versions[:2]
    bed.want(1, stable=BASE, canary=one)
    assert bed.agent.enter(one)
    assert not bed.agent.enter(two)
    assert not bed.agent.enter("a999999-ffffffff")
    bed.agent.accept(RolloutRecord(generation=2, stable=BASE, deny=(one,)))
    assert not bed.agent.enter(one), "at once, before any step"
    assert bed.states()[one] is NodeState.DRAINING
    bed.settle()
    assert one in bed.engine.adapters, "a running answer holds its version"
    bed.agent.leave(one)
    bed.settle()
    assert one not in bed.engine.adapters


def test_node_gives_up_waiting_for_an_endless_answer(bed: Bed, versions: list[str]) -> None:
    """Draining ends at its time-out."""
    bed.want(1, stable=BASE, canary=versions[0])
    assert bed.agent.enter(versions[0])
    bed.want(2, stable=BASE)
    assert versions[0] in bed.engine.adapters
    bed.now += bed.config.drain_s
    bed.settle()
    assert versions[0] not in bed.engine.adapters


def test_node_unloads_unknown_names_and_asks_after_a_lost_reply(bed: Bed, versions: list[str]) -> None:
    """The engine is believed, not the memory of the agent: what it should not have goes, a lost reply is looked up."""
    bed.settle()
    bed.engine.adapters["a000099-99999999"] = "/somewhere"
    bed.engine.lose_reply = True
    bed.want(1, stable=BASE, canary=versions[0])
    assert bed.states()[versions[0]] is READY
    assert set(bed.engine.adapters) == {versions[0]}


def test_node_quarantines_a_version_after_two_crashes(bed: Bed, versions: list[str]) -> None:
    """One crash is retried; two with the same newest version end it here, and stable serves on."""
    bed.want(1, stable=versions[0])
    bed.engine.dies_on = versions[1]
    bed.want(2, stable=versions[0], canary=versions[1])
    bed.settle()
    assert bed.states() == {versions[0]: READY, versions[1]: QUARANTINED}
    assert bed.agent.statuses()[versions[1]].reason == "crash"
    assert [name for call, name in bed.engine.calls if call == "load"].count(versions[1]) == 2
    assert bed.agent.restarts >= 2


def test_node_brings_everything_back_after_an_engine_restart(bed: Bed, versions: list[str]) -> None:
    """An engine that lost its names behind our back is proven again from the base on; meanwhile nothing is served."""
    bed.want(1, stable=versions[0], canary=versions[1])
    bed.engine.adapters = {}
    bed.engine.calls.clear()
    bed.settle()
    assert bed.states() == {versions[0]: READY, versions[1]: READY}
    assert bed.engine.calls[0] == ("probe", BASE)


def test_node_is_not_ready_while_its_engine_is_away(
    bed: Bed, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead engine closes the door at the next step, and opens it after the proofs."""
    bed.want(1, stable=versions[0])
    bed.engine.gone = True
    monkeypatch.setattr(bed.engine, "restart", bed.engine._alive)
    bed.agent.step()
    assert bed.agent.unready() == "stable is not ready"
    assert not bed.agent.enter(versions[0])
    bed.engine.gone = False
    bed.settle()
    assert bed.agent.unready() is None


def test_node_refuses_a_poisoned_version_without_asking_the_engine(bed: Bed) -> None:
    """Non-finite numbers are found in the bytes: no load, no probe, no request; stable serves on."""
    bad = bed.shop.publish_poisoned(70)
    bed.settle()
    bed.engine.calls.clear()
    bed.want(1, stable=BASE, canary=bad)
    status = bed.agent.statuses()[bad]
    assert (status.state, status.reason) == (QUARANTINED, "numbers")
    assert bed.engine.calls == []
    assert bed.agent.enter(BASE)
    assert ("quarantined", bad, "numbers") in bed.events


def test_node_refuses_what_was_changed_on_its_disk(bed: Bed, versions: list[str]) -> None:
    """One flipped byte between fetch and load."""
    target = bed.config.directory / versions[0]
    signers = trust(load_signer(bed.shop.folder / "key").public)
    Registry(bed.shop.folder / "store", signers, lambda: 0.0).fetch(versions[0], bed.config.directory)
    weights = target / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    bed.want(1, stable=BASE, canary=versions[0])
    assert bed.agent.statuses()[versions[0]].reason == "digest"
    (target / "extra.bin").write_bytes(b"x")
    with pytest.raises(Refused, match="extra_file"):
        verify(target, signers, bed.shop.foundation)


def test_node_refuses_wrong_weights_under_a_right_manifest_by_probe(
    bed: Bed, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers with other weights than it was given fails the fingerprint and is told to unload."""
    bed.settle()
    right = bed.engine.probe
    monkeypatch.setattr(bed.engine, "probe", lambda _name, *rest: right(None, *rest))
    bed.want(1, stable=BASE, canary=versions[0])
    assert bed.agent.statuses()[versions[0]].reason == "probe"
    assert versions[0] not in bed.engine.adapters


def test_node_retries_a_version_that_the_store_does_not_have_yet(bed: Bed, shop: Shop) -> None:
    """An unknown id is no verdict: it is asked for again later."""
    bed.want(1, stable=BASE, canary="a000099-99999999")
    assert bed.states()["a000099-99999999"] is NodeState.ABSENT
    del shop


def test_node_keeps_directories_until_no_engine_can_want_them(bed: Bed, versions: list[str]) -> None:
    """A retired directory stays for max_cpu_adapters later loads; disk use stays bounded."""
    for generation, version in enumerate(versions, 1):
        bed.want(generation, stable=BASE, canary=version)
    kept = {path.name for path in bed.config.directory.iterdir() if path.is_dir()}
    assert versions[-2] in kept
    assert versions[0] not in kept
    assert len(kept) <= bed.config.max_cpu_adapters + 2


RECORDS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6), st.booleans(), st.booleans()), max_size=8
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDS, st.integers(0, 2**16))
def test_node_reaches_the_newest_record_from_anywhere(
    shop: Shop, versions: list[str], tmp_path: Path, records: list[Any], seed: int
) -> None:
    """Any order of records, restarts, lost replies and engine deaths: in the end `loaded()` is what is desired."""
    folder = tmp_path / f"{seed}-{len(records)}-{random.Random(str(records)).random()}"
    bed = Bed(shop, folder)
    names = [BASE, *versions]
    newest = RolloutRecord()
    for generation, stable, canary, restart, lose in records:
        record = RolloutRecord(generation=generation, stable=names[stable], canary=names[canary])
        if bed.agent.accept(record):
            newest = record
        bed.engine.lose_reply = lose
        bed.agent.step()
        if restart:
            bed.agent = bed.agent_of()
    bed.engine.lose_reply = False
    bed.now += 100
    bed.settle()
    wanted = set(newest.roles()) - {v for v, s in bed.states().items() if s is QUARANTINED}
    assert set(bed.engine.adapters) == wanted - {BASE}
    assert {v for v, state in bed.states().items() if state is READY} == wanted


def test_node_breaker_opens_on_a_burst_and_stable_takes_over(bed: Bed, versions: list[str]) -> None:
    """Five bad ones of the last twenty quarantine the candidate; stable itself stays while nothing can replace it."""
    bed.want(1, stable=versions[0], canary=versions[1])
    for _ in range(5):
        bed.agent.note_answer(versions[1], good=False)
    assert bed.agent.statuses()[versions[1]].reason == "breaker"
    for _ in range(20):
        bed.agent.note_answer(versions[0], good=False)
    assert bed.states()[versions[0]] is READY
    breaker = Breaker(20, 5)
    assert not any(breaker.note("v", good=number % 5 != 0) for number in range(19))


def app_of(bed: Bed, flagged: list[str] | None = None) -> httpx.AsyncClient:
    """The node's door."""
    look = (flagged if flagged is not None else []).append
    doorway = Doorway(bed.agent, bed.engine, lambda _conversation, text: look(text))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(doorway)), base_url="http://node")


def ask(bed: Bed, model: str, **more: Any) -> httpx.Response:
    """One request through the door."""

    async def send() -> httpx.Response:
        async with app_of(bed) as http:
            body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **more}
            return await http.post("/v1/chat/completions", json=body)

    return asyncio.run(send())


def test_node_door_strips_what_kills_engines(bed: Bed, versions: list[str]) -> None:
    """`echo` and `prompt_logprobs` never reach the engine; unknown models get 404 and do not either."""
    bed.want(1, stable=versions[0])
    answer = ask(bed, versions[0], echo=True, logprobs=1, prompt_logprobs=1)
    assert (answer.status_code, answer.json()["model"]) == (200, versions[0])
    assert [call for call in bed.engine.calls if call[0] == "field"] == []
    bed.engine.calls.clear()
    assert ask(bed, "a000009-00000000").status_code == 404
    assert ask(bed, BASE).status_code == 404, "not named by the record"
    assert bed.engine.calls == []


def test_node_door_puts_stable_in_place_of_a_poisoned_version(bed: Bed, versions: list[str]) -> None:
    """A non-finite number: this answer comes from stable and says so, the version is gone, the engine starts afresh."""
    bed.want(1, stable=versions[0], canary=versions[1])
    bed.engine.answer = lambda name: Poisoned("nan") if name == versions[1] else "fine"
    answer = ask(bed, versions[1])
    assert (answer.status_code, answer.json()["model"]) == (200, versions[0])
    assert bed.agent.poisoned == (versions[1],)
    assert bed.states()[versions[1]] is QUARANTINED
    restarts = bed.agent.restarts
    bed.settle()
    assert bed.agent.restarts == restarts + 1
    assert set(bed.engine.adapters) == {versions[0]}
    assert ask(bed, versions[1]).status_code == 404


@pytest.mark.parametrize(("error", "status"), [(BadAsk("x"), 400), (EngineBusy("x"), 503), (EngineGone("x"), 503)])
def test_node_door_says_whose_fault_it_is(bed: Bed, error: Exception, status: int) -> None:
    """400 for the request's, 503 for ours; the in-flight count is back at 0 either way."""
    bed.settle()
    bed.engine.answer = error
    assert ask(bed, BASE).status_code == status
    assert bed.agent._entries[BASE].running == 0


@pytest.fixture(scope="module")
def embedded(shop: Shop) -> Iterator[EmbeddedEngine]:
    """The embedded engine on the tiny base."""
    engine = EmbeddedEngine(shop.base, lambda: 0.0, max_new_tokens=8)
    yield engine
    engine.close()


def test_node_embedded_engine_serves_through_the_agent(
    shop: Shop, versions: list[str], embedded: EmbeddedEngine, tmp_path: Path
) -> None:
    """Fetch, checks, load, probe and an answer, whole and streamed, equal to a fresh load of the version."""
    bed = Bed(shop, tmp_path, embedded)
    bed.want(1, stable=versions[1])
    assert bed.states() == {versions[1]: READY}
    whole = ask(bed, versions[1]).json()
    tree = load_adapter(load_base(shop.base), shop.folder / "out-1")
    wanted = generate(tree, [Said("customer", QUESTION)], Sampling(8))
    assert whole["choices"][0]["message"]["content"] == wanted
    assert whole["usage"]["completion_tokens"] >= 1
    streamed = ask(bed, versions[1], stream=True).text
    assert streamed.endswith("data: [DONE]\n\n")
    bad = ask(bed, versions[1], temperature="hot")
    assert bad.status_code == 400
    embedded.restart()


async def ask_any(engine: EmbeddedEngine, draw: random.Random) -> tuple[str, str] | None:
    """One answer of a version that is loaded now, with its name; None when there is none, or no more."""
    names = list(engine.loaded())
    if not names:
        await asyncio.sleep(0)
        return None
    name = draw.choice(names)
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6}
    try:
        (answer,) = [item async for item in engine.chat(name, body)]
    except BadAsk:
        return None
    return name, answer["choices"][0]["message"]["content"]


def test_node_embedded_trees_never_mix_versions_while_swapping(
    shop: Shop, versions: list[str], embedded: EmbeddedEngine
) -> None:
    """Threads ask all the time while versions come and go: every answer is the one of the version that it asked."""
    embedded.restart()
    base = load_base(shop.base)
    trees = {version: load_adapter(base, shop.folder / f"out-{seed}") for seed, version in enumerate(versions)}
    wanted = {v: generate(tree, [Said("customer", QUESTION)], Sampling(6)) for v, tree in trees.items()}
    stop = threading.Event()
    answers: list[tuple[str, str]] = []

    async def asking(seed: int) -> None:
        draw = random.Random(seed)
        while not stop.is_set():
            found = await ask_any(embedded, draw)
            if found is not None:
                answers.append(found)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(asking(seed))) for seed in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        embedded.load(versions[turn % len(versions)], shop.folder / f"out-{turn % len(versions)}")
        stop.wait(0.02)
        if turn >= 2:
            embedded.unload(versions[(turn - 2) % len(versions)])
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 20
    assert [name for name, text in answers if text != wanted[name]] == []
    embedded.restart()


def test_node_embedded_versions_share_the_base(shop: Shop, embedded: EmbeddedEngine) -> None:
    """A version owns its LoRA tensors only, and a torn file is refused without a trace."""
    embedded.restart()
    embedded.load("v1", shop.folder / "out-0")
    embedded.load("v2", shop.folder / "out-1")
    assert embedded._tree("v1").base is embedded._tree("v2").base
    torn = shop.folder / "torn"
    torn.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (torn / name).write_bytes((shop.folder / "out-0" / name).read_bytes()[:-9])
    with pytest.raises(LoadRefused):
        embedded.load("v3", torn)
    with pytest.raises(LoadRefused):
        embedded.load("v1", shop.folder / "out-0")
    assert set(embedded.loaded()) == {"v1", "v2"}
    embedded.restart()


def manifest_of(shop: Shop, version: str) -> Manifest:
    """A published manifest."""
    return shop.registry.manifest(version)


def noisy(values: Sequence[Sequence[float]], size: float, seed: int) -> list[list[float]]:
    """Values with uniform noise."""
    draw = random.Random(seed)
    return [[value + draw.uniform(-size, size) for value in row] for row in values]


@pytest.mark.parametrize(("precision", "noise"), [("fp32", 1e-6), ("bf16", 7e-3)])
def test_node_probe_passes_the_right_version_and_nothing_else(
    shop: Shop, versions: list[str], precision: Precision, noise: float
) -> None:
    """In fp32 and bf16 noise: own fingerprint passes, base's and parent's fail, NaN and missing rows fail."""
    probe = manifest_of(shop, versions[1]).probe
    level = probes.calibrate(noisy(probe.base_logprobs, noise, 1), probe, precision)
    difference, weak = probes.check(noisy(probe.logprobs, noise, 2), probe, level)
    assert difference < 4 * noise + 1e-3
    assert not weak
    for wrong in (probe.base_logprobs, probe.parent_logprobs, [[float("nan")] * 16] * 16, probe.logprobs[:-1]):
        with pytest.raises(Refused) as caught:
            probes.check(wrong, probe, level)
        assert caught.value.reason is Reason.PROBE


def test_node_probe_calls_tiny_updates_weak_and_wrong_bases_wrong(shop: Shop, versions: list[str]) -> None:
    """An update below the noise is never refused, only marked; a base that answers differently is."""
    probe = manifest_of(shop, versions[1]).probe
    near = Probe(
        prompts=probe.prompts, token_ids=probe.token_ids, logprobs=probe.logprobs, base_logprobs=probe.base_logprobs,
        parent_logprobs=tuple(tuple(value + 1e-4 for value in row) for row in probe.logprobs),
    )  # fmt: skip
    level = probes.calibrate(noisy(near.base_logprobs, 7e-3, 1), near, "bf16")
    assert probes.check(noisy(near.logprobs, 7e-3, 2), near, level)[1]
    with pytest.raises(Refused) as caught:
        probes.calibrate(noisy(near.base_logprobs, 2.0, 1), near, "bf16")
    assert caught.value.reason is Reason.BASE


def test_node_standing_refuses_older_versions_that_nobody_names(
    shop: Shop, versions: list[str], tmp_path: Path
) -> None:
    """A replayed record of an old version is stopped by the highest sequence; a named one passes."""
    signers = trust(load_signer(shop.folder / "key").public)
    folder = Registry(shop.folder / "store", signers, lambda: 0.0).fetch(versions[0], tmp_path)
    named = Standing(generation=2, seen_generation=2, named=frozenset({versions[0]}), highest_sequence=6)
    assert verify(folder, signers, shop.foundation, named).id == versions[0]
    other = Standing(generation=2, seen_generation=2, named=frozenset(), highest_sequence=6)
    with pytest.raises(Refused, match="rollback"):
        verify(folder, signers, shop.foundation, other)
