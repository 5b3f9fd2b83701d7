"""The audit of a table that others write to: clean under traffic, and each broken invariant is found."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import redis

from streams.replay import UNIFORM, Draw, Offset, Quota, ReplayBuffer, TableConfig, open_table
from streams.replay.erasure import erase
from streams.replay.probe import Probe
from streams.replay.tables import text
from tests.replay_fuzz import KEY, Fuzzer, sample

PREFIX = "{rb:train}"


def table(client: redis.Redis, quota: int = 1_000) -> ReplayBuffer:
    """A table of 200 samples of 50 customers, some trained, some under a lease, some slots free."""
    config = TableConfig(quotas={"*": Quota(quota)})
    made = open_table(client, "train", config, KEY, "ep", configure=True)
    now = float(client.time()[0])
    items = [sample(i, received_at=now, customer=f"k1:{i % 50}", lane=f"l{i % 3}") for i in range(200)]
    made.insert(items, [Offset("examples", 0, i) for i in range(200)])
    for step, lease in ((1, 0), (2, 60)):
        drawn = made.draw(UNIFORM, 40, seed=step, lease_s=lease)
        assert isinstance(drawn, Draw)
        if not lease:
            made.update([d.handle for d in drawn.records], [1.5] * 40, run=1, step=step)
    erase([made], [made.customer_digest("k1:7")])
    return made


def walked(probe: Probe) -> list[str]:
    """The invariants that one whole walk finds broken."""
    found, before = [], probe.walks
    while probe.walks == before:
        found += probe.step()
    return sorted({violation.invariant for violation in found})


def leased(client: redis.Redis) -> bytes:
    """A slot under a lease."""
    (slot, *_) = client.zrange(f"{PREFIX}:ls", 0, 0)
    assert isinstance(slot, bytes)
    return slot


def bucket(client: redis.Redis) -> str:
    """The one bucket that holds the samples."""
    (name,) = client.hkeys(f"{PREFIX}:bk")
    return text(name)


def first(client: redis.Redis, start: int, end: int) -> bytes:
    """Bytes of slot 0's record."""
    raw = client.getrange(f"{PREFIX}:m:0", start, end)
    assert isinstance(raw, bytes)
    return raw


def erased(client: redis.Redis) -> None:
    """Bury a customer without deleting anything."""
    client.zadd(f"{PREFIX}:tomb", {first(client, 16, 23): 1.0})


def payload(client: redis.Redis) -> tuple[str, bytes, bytes]:
    """Key, digest and stored value of some sample."""
    key = f"{PREFIX}:d:{bucket(client)}"
    held: dict[bytes, bytes] = client.hgetall(key)  # type: ignore[assignment]  # replies are bytes
    digest, value = next(iter(held.items()))
    return key, digest, value


def shortened(client: redis.Redis) -> None:
    """Cut a stored payload short."""
    key, digest, value = payload(client)
    client.hset(key, digest, value[:-1])


def swapped(client: redis.Redis) -> None:
    """Let a digest lead to another slot."""
    key, digest, value = payload(client)
    client.hset(key, digest, (int.from_bytes(value[:4]) ^ 1).to_bytes(4) + value[4:])


DAMAGE: dict[str, tuple[Callable[[redis.Redis], object], list[str]]] = {
    "cell": (lambda r: r.setrange(f"{PREFIX}:b:0:0", 0, b"\0\0\0\1"), ["I1"]),
    "count": (lambda r: r.setrange(f"{PREFIX}:bc:1", 3, b"\x09"), ["I2"]),
    "lane count": (lambda r: r.setrange(f"{PREFIX}:lc", 3, b"\x09"), ["I2"]),
    "n": (lambda r: r.hincrby(f"{PREFIX}:n", "n", 1), ["I10", "I2", "I5"]),
    "bucket count": (lambda r: r.hincrby(f"{PREFIX}:bk", bucket(r), 1), ["I2"]),
    "payload": (lambda r: r.hdel(f"{PREFIX}:d:{bucket(r)}", first(r, 0, 7)), ["I2", "I3"]),
    "length": (shortened, ["I3"]),
    "digest": (swapped, ["I9"]),
    "customer": (lambda r: r.delete(b"{rb:train}:c:" + first(r, 16, 23)), ["I4"]),
    "free": (lambda r: r.lpush(f"{PREFIX}:free", 0), ["I5"]),
    "tombstone": (erased, ["I8"]),
    "intake": (lambda r: r.hincrby(f"{PREFIX}:n", "ins", 1), ["I10"]),
    "lease": (lambda r: r.zrem(f"{PREFIX}:ls", leased(r)), ["I11"]),
}  # fmt: skip


def test_probe_finds_nothing_in_a_sound_table(redis_client: redis.Redis) -> None:
    """Walk after walk, also while a lowered quota is stepped down."""
    probe = Probe(table(redis_client))
    assert [walked(probe), walked(probe)] == [[], []]
    lowered = table(redis_client, quota=40)
    for _ in range(3):  # a script takes out 32 of the 76 that are too many, the first lane's first
        assert walked(probe) == []
        lowered.sweep(0)
    assert walked(probe) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_probe_finds_damage(redis_client: redis.Redis, damage: str) -> None:
    """Whatever disagrees is named by its invariant within one walk."""
    probe = Probe(table(redis_client))
    break_it, names = DAMAGE[damage]
    break_it(redis_client)
    assert walked(probe) == names


def test_probe_finds_a_limit_that_is_not_kept(redis_client: redis.Redis) -> None:
    """What stays above its limit over a walk is broken; what comes down is a lowered limit on its way."""
    made = table(redis_client)
    probe = Probe(made)
    redis_client.hset(f"{PREFIX}:cfg", "cap", 150)
    assert walked(probe) == []
    assert walked(probe) == ["I7"]
    made.sweep(10_000)
    assert walked(probe) == []
    redis_client.rpush(f"{PREFIX}:q:0", *[b"\0" * 8] * 2_000)
    assert [walked(probe), walked(probe)] == [[], ["I6"]]


class Unlimited(Fuzzer):
    """Its limits stay as they are: lowered twice between two looks, one would seem not to be kept."""

    def resize(self) -> None:
        """Nothing."""


def test_probe_is_clean_while_others_write(redis_client: redis.Redis) -> None:
    """Inserts that evict, leases, updates, erasures and sweeps beside it break nothing."""
    fuzzer, done = Unlimited(redis_client, 5), threading.Event()
    probe = Probe(fuzzer.table)
    found: list[object] = []

    def walk() -> None:
        while not done.is_set():
            found.extend(probe.step())

    thread = threading.Thread(target=walk)
    thread.start()
    try:
        fuzzer.run(150, audit_every=50)
    finally:
        done.set()
        thread.join()
    assert found == []
    assert probe.walks > 0


def test_probe_begins_again_after_an_error(redis_client: redis.Redis) -> None:
    """A piece that Redis did not answer is told, and the walk goes on from the start."""
    made = table(redis_client)
    probe = Probe(made)
    probe.step()
    redis_client.delete(f"{PREFIX}:n")
    redis_client.set(f"{PREFIX}:n", "no hash")
    with pytest.raises(redis.ResponseError):
        walked(probe)
    redis_client.delete(f"{PREFIX}:n")
    assert "I2" in walked(probe)
