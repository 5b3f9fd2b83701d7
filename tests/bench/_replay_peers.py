"""One peer of the replay benchmark, run by its own interpreter: answers commands on stdin with seconds on stdout.

    python _replay_peers.py PEER REDIS_PORT ITEMS BYTES

A command is `insert N`, `one N`, `sample K`, `client K` or `update K`; the answer is JSON {"wall": seconds}. What a
peer needs is imported by its own function: each has an environment of its own. `driftline-L` is ours with L lanes.
"""

# ruff: noqa: PLC0415 - each peer's imports exist in its own environment only
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

Operation = Callable[[int], Any]


def payloads(count: int, size: int, seed: int = 1) -> list[bytes]:
    """The same bytes for every peer."""
    rng = random.Random(seed)
    return [rng.randbytes(size) for _ in range(count)]


def driftline(port: int, items: int, size: int, lanes: int, database: int) -> dict[str, Operation]:
    """Ours: whole samples in and out, compressed, with offset bits, ledger, priorities, quotas and lineage."""
    import redis

    from streams.events import Sample, Turn
    from streams.replay import DEFAULT, Draw, Offset, Quota, TableConfig, Wait, open_table

    client = redis.Redis(port=port, db=database)
    config = TableConfig(capacity=items, max_bytes=2**32, quotas={"*": Quota(items)})
    table = open_table(client, "train", config, b"k" * 32, "bench", configure=True)
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 9))) for _ in range(2_000)]
    now = float(client.time()[0])
    state: dict[str, Any] = {"next": 0, "draw": None, "step": 0}
    me = os.getpid()  # two writers of one table bring different samples

    def made() -> Sample:
        i = state["next"]
        state["next"] += 1
        text = " ".join(rng.choices(words, k=size // 7))[: size - 330]
        turns = (
            Turn(role="customer", text=text[: len(text) // 3]),
            Turn(role="agent", text=text[len(text) // 3 :], is_target=True, event_id=f"e{me}-{i}"),
        )
        return Sample(
            sample_id=f"e{me}-{i}/sft/0", conversation=f"fixed:{i:032x}", customer=f"k1:{i // 4:032x}",
            lane=f"l{i % lanes}",
            split="train", turns=turns, received_at=now, completed_at=now, event_ids=(f"e{me}-{i}",),
        )  # fmt: skip

    ready = [made() for _ in range(64)]

    def prepare(n: int) -> None:
        ready[:] = [made() for _ in range(n)]

    def insert(n: int) -> None:
        first = state["next"] - len(ready)
        table.insert(ready[:n], [Offset("examples", me, first + i) for i in range(n)])

    def sample(k: int) -> None:
        state["seed"] = state.get("seed", 0) + 1
        answer = table.sample(DEFAULT, k, seed=state["seed"])
        assert not isinstance(answer, Wait)
        state["draw"] = answer[0]

    def draw_fetch(k: int) -> None:
        state["seed"] = state.get("seed", 0) + 1
        drawn = table.draw(DEFAULT, k, seed=state["seed"])
        assert isinstance(drawn, Draw)
        table.fetch(drawn)

    def update(k: int) -> None:
        state["step"] += 1
        handles = [d.handle for d in state["draw"].records][:k]
        table.update(handles, [rng.uniform(0.1, 5) for _ in handles], run=1, step=state["step"])

    return {
        "prepare": prepare, "insert": insert, "one": insert, "sample": sample, "client": draw_fetch, "update": update,
    }  # fmt: skip


def reverb_server(port: int, items: int, size: int) -> dict[str, Operation]:
    """dm-reverb's table in a process of its own, as a store that several processes share has to be."""
    del port
    import reverb as rv
    import tensorflow as tf

    table = rv.Table(
        "t", rv.selectors.Prioritized(0.6), rv.selectors.Fifo(), max_size=items,
        rate_limiter=rv.rate_limiters.MinSize(1), signature=tf.TensorSpec((1, size), tf.uint8),
    )  # fmt: skip
    server = rv.Server([table])
    return {f"port:{server.port}": lambda _: server}


def reverb(port: int, items: int, size: int) -> dict[str, Operation]:
    """dm-reverb: prioritised table, client.sample and a tf.data pipeline."""
    import numpy as np
    import reverb as rv

    command = [sys.executable, "-P", __file__, "reverb-server", str(port), str(items), str(size)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    place = "localhost:" + json.loads(child.stdout.readline())["ready"][0].split(":")[1]
    client = rv.Client(place)
    data = [np.frombuffer(p, np.uint8) for p in payloads(256, size)]
    streams: dict[int, Any] = {}
    keys: list[int] = []

    def insert(n: int) -> None:
        with client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for i in range(n):
                writer.append(data[i % 256])
                writer.create_item("t", priority=1.0, trajectory=writer.history[-1:])
            writer.flush()

    def sample(k: int) -> None:
        if k not in streams:
            made = rv.TrajectoryDataset.from_table_signature(place, "t", max_in_flight_samples_per_worker=k)
            streams[k] = iter(made.batch(k))
        info = next(streams[k]).info
        keys[:] = [int(key) for key in info.key.numpy()]

    def client_sample(k: int) -> None:
        list(client.sample("t", num_samples=k))

    def update(k: int) -> None:
        client.mutate_priorities(
            "t", updates={key: random.uniform(0.1, 5) for key in (keys * (k // max(len(keys), 1) + 1))[:k]}
        )

    return {
        "insert": insert, "one": lambda _: insert(1), "sample": sample, "client": client_sample,
        "update": update, "keep": lambda _: child,
    }  # fmt: skip


def torchrl(port: int, items: int, size: int) -> dict[str, Operation]:
    """TorchRL's StoreStorage on the same Redis, uniform sampling: its prioritised one does not load here."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import ReplayBuffer
    from torchrl.data.replay_buffers import StoreStorage

    torch.set_num_threads(1)
    buffer = ReplayBuffer(storage=StoreStorage(max_size=items, port=port, db=8), batch_size=32)
    data = torch.stack([torch.frombuffer(bytearray(p), dtype=torch.uint8) for p in payloads(256, size)])

    def insert(n: int) -> None:
        buffer.extend(TensorDict({"payload": data[torch.arange(n) % 256]}, [n]))

    return {"insert": insert, "one": lambda _: insert(1), "sample": lambda k: buffer.sample(k)["payload"]}


def cpprb(port: int, items: int, size: int) -> dict[str, Operation]:
    """cpprb in this process: no server, no durability, no features; what a bare sum tree costs."""
    del port
    import numpy as np
    from cpprb import PrioritizedReplayBuffer

    buffer = PrioritizedReplayBuffer(items, {"payload": {"shape": size, "dtype": np.uint8}})
    data = np.stack([np.frombuffer(p, np.uint8) for p in payloads(256, size)])
    last: list[Any] = [np.zeros(1, int)]

    def sample(k: int) -> None:
        last[0] = buffer.sample(k)["indexes"]

    return {
        "insert": lambda n: buffer.add(payload=data[np.arange(n) % 256]),
        "one": lambda _: buffer.add(payload=data[0]),
        "sample": sample,
        "update": lambda k: buffer.update_priorities(np.resize(last[0], k), np.random.uniform(0.1, 5, k)),  # noqa: NPY002
    }


def naive(port: int, items: int, size: int) -> dict[str, Operation]:
    """What most tutorials do: a hash an item, a sorted set of priorities, weights read by the client."""
    import redis

    client = redis.Redis(port=port, db=9)
    data = payloads(256, size)
    state = {"next": 0}

    def insert(n: int) -> None:
        pipe = client.pipeline(transaction=False)
        for _ in range(n):
            i = state["next"]
            state["next"] += 1
            fields: dict[Any, Any] = {"payload": data[i % 256], "customer": i % 1000, "lane": "l", "times": 0, "ts": i}
            pipe.hset(f"item:{i}", mapping=fields)
            pipe.zadd("priorities", {str(i): 1.0})
            if i >= items:
                pipe.delete(f"item:{i - items}")
                pipe.zrem("priorities", str(i - items))
        pipe.execute()

    def sample(k: int) -> None:
        members: list[Any] = client.zrange("priorities", 0, -1, withscores=True)
        chosen = random.choices([m for m, _ in members], [w**0.6 for _, w in members], k=k)
        pipe = client.pipeline(transaction=False)
        for member in chosen:
            pipe.hgetall(b"item:" + member)
        pipe.execute()

    def update(k: int) -> None:
        low = max(0, state["next"] - items)
        client.zadd("priorities", {str(random.randrange(low, state["next"])): random.uniform(0.1, 5) for _ in range(k)})

    return {"insert": insert, "one": lambda _: insert(1), "sample": sample, "update": update}


PEERS = {"reverb": reverb, "reverb-server": reverb_server, "torchrl": torchrl, "cpprb": cpprb, "naive": naive}


def main(argv: list[str]) -> int:
    """Build the peer, say ready, and serve commands until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a peer's own chatter does not mix with the answers
    name, numbers = argv[0], [int(text) for text in argv[1:4]]
    if name.startswith("driftline-"):
        lanes = int(name.split("-")[1])
        operations = driftline(numbers[0], numbers[1], numbers[2], lanes, {1: 0, 16: 1, 64: 2, 256: 3}[lanes])
    else:
        operations = PEERS[name](numbers[0], numbers[1], numbers[2])
    print(json.dumps({"ready": sorted(operations)}), file=out, flush=True)
    for line in sys.stdin:
        name, _, number = line.strip().partition(" ")
        started = time.perf_counter()
        operations[name](int(number or 1))
        print(json.dumps({"wall": time.perf_counter() - started}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
