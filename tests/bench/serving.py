"""Router overhead, swaps under load and the kill switch, on a fleet of processes: `driftline bench serving`.

Overhead: the same one-token request straight to the node and through the router, interleaved, one connection each.
Swaps: clients ask all the time while versions are promoted by hand; every answer must be the one that the version
it names gives, byte for byte. Kill: from the POST to the last answer of the candidate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx

from learner.adapter import Said, Sampling, Tree, generate, load_adapter, load_base
from learner.registry import BASE
from services.local import redis_server
from services.local.supervisor import free_port
from services.rollout.commands import run as command
from tests.fleet import ADMIN, Fleet, Shop, until

QUESTIONS = ("hello, my parcel has not arrived yet", "the refund takes five days", "my printer is broken")
TOKENS = 8
WARM_UP = 20


def main(argv: list[str]) -> int:
    """Print the table; 1 when an answer failed or was mixed."""
    parser = argparse.ArgumentParser(prog="driftline bench serving\n")
    parser.add_argument("--requests", type=int, default=300, help="pairs of requests for the overhead")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--swaps", type=int, default=20)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), args)


def _measure(folder: Path, args: argparse.Namespace) -> int:
    broker = subprocess.Popen([sys.executable, "-m", "services.local.broker", str(folder / "broker.json")])
    (folder / "redis").mkdir()
    port = free_port()
    server = subprocess.Popen(redis_server.command(port, folder / "redis"), stdout=subprocess.DEVNULL)
    until((folder / "broker.json").exists, "broker")
    bootstrap = json.loads((folder / "broker.json").read_text())["bootstrap"]
    # a promotion by hand needs no evidence, and the next one must not wait for a soak
    fleet = Fleet(Shop(folder), bootstrap, f"redis://127.0.0.1:{port}/0", soak_s=0.0, holdback=0.0)
    try:
        fleet.start()
        rows = _overhead(fleet, args.requests)
        kill = _kill(fleet)
        swaps, failed = _swaps(fleet, args.clients, args.swaps)
        _show([*rows, kill, *swaps])
        return int(failed)
    finally:
        fleet.stop()
        for process in (broker, server):
            process.terminate()
            process.wait(10)


def _overhead(fleet: Fleet, count: int) -> list[tuple[str, str]]:
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 1}
    node, router = httpx.Client(timeout=30), httpx.Client(timeout=30)
    times: dict[str, list[float]] = {"node": [], "router": []}
    for number in range(count + WARM_UP):
        for name, client, url, model in (
            ("node", node, fleet.urls["node-1"], BASE), ("router", router, fleet.router, "driftline"),
        ):  # fmt: skip
            began = time.perf_counter()
            headers = {"X-Conversation-Id": f"overhead-{number}"}
            client.post(f"{url}/v1/chat/completions", json={**body, "model": model}, headers=headers).raise_for_status()
            if number >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - began))
    p50 = {name: statistics.median(values) for name, values in times.items()}
    p95 = {name: statistics.quantiles(values, n=20)[18] for name, values in times.items()}
    return [
        ("node alone, ms p50 / p95", f"{p50['node']:.2f} / {p95['node']:.2f}"),
        ("through the router, ms p50 / p95", f"{p50['router']:.2f} / {p95['router']:.2f}"),
        ("router overhead, ms p50 (target 2)", f"{p50['router'] - p50['node']:.2f}"),
    ]


def _kill(fleet: Fleet) -> tuple[str, str]:
    version = fleet.shop.publish(900)
    fleet.announce(version)
    until(partial(fleet.running, version), "canary")
    numbers = [n for n in range(60) if fleet.ask("hello", f"kill-{n}").json()["model"] == version]
    began = time.perf_counter()
    httpx.post(f"{fleet.router}/v1/rollout/kill", headers={"Authorization": f"Bearer {ADMIN}"}).raise_for_status()
    last = 0.0
    for number in numbers:
        if fleet.ask("hello", f"kill-{number}").json()["model"] == version:
            last = time.perf_counter() - began
    until(partial(fleet.denied, version), "denied")
    until(lambda: fleet.record()["canary"] is None, "over")
    return "kill switch -> last answer of the candidate, s (target 1)", f"{last:.2f}"


def _swaps(fleet: Fleet, clients: int, swaps: int) -> tuple[list[tuple[str, str]], bool]:
    base = load_base(fleet.shop.base)
    trees = {BASE: Tree(base)}
    stop = threading.Event()
    answers: list[tuple[str, str, str]] = []
    failures: list[int] = []

    def client(name: int) -> None:
        with httpx.Client(timeout=60) as http:
            turn = 0
            while not stop.is_set():
                turn += 1
                question = QUESTIONS[turn % len(QUESTIONS)]
                body = {"model": "driftline", "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS}
                try:
                    found = http.post(
                        f"{fleet.router}/v1/chat/completions", json=body,
                        headers={"X-Conversation-Id": f"{name}-{turn}"},
                    )  # fmt: skip
                    found.raise_for_status()
                    said = found.json()
                    answers.append((said["model"], question, said["choices"][0]["message"]["content"]))
                except httpx.HTTPError:
                    failures.append(turn)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    took, stable = [], BASE
    for number in range(swaps):
        version = fleet.shop.publish(number, stable)
        trees[version] = load_adapter(base, fleet.folder / f"out-{number}")
        began = time.perf_counter()
        fleet.announce(version, stable)
        until(partial(fleet.running, version), version, 60)
        command(argparse.Namespace(action="promote", json=False, actor="bench"), fleet.settings)
        until(partial(_settled, fleet, version), version, 60)
        took.append(time.perf_counter() - began)
        stable = version
    stop.set()
    for thread in threads:
        thread.join()
    wanted = {
        (v, q): generate(tree, [Said("customer", q)], Sampling(TOKENS)) for v, tree in trees.items() for q in QUESTIONS
    }
    mixed = sum(1 for version, question, text in answers if wanted[version, question] != text)
    served = len(Counter(version for version, _, _ in answers))
    return [
        (f"answers of {clients} clients through {swaps} swaps", f"{len(answers)}, by {served} versions"),
        ("failed / mixed answers (target 0 / 0)", f"{len(failures)} / {mixed}"),
        ("record -> stable everywhere, s p50 / max", f"{statistics.median(took):.2f} / {max(took):.2f}"),
    ], bool(failures or mixed)


def _settled(fleet: Fleet, version: str) -> bool:
    record = fleet.record()
    return bool(record["stable"] == version and record["state"] == "idle")


def _show(rows: list[tuple[str, str]]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    sys.stdout.write(f"commit {commit}, {cores} cores, driftline bench serving\n")
    for name, value in rows:
        sys.stdout.write(f"| {name:55} | {value:>20} |\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
