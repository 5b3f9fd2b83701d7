"""The asyncio twin against the table it stands beside, on every server found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import asyncio as aioredis

from streams.replay import UNIFORM, Draw, Offset, ReplayBuffer, ServerFull, TableConfig, Wait, open_table
from streams.replay.aio import AsyncReplayBuffer
from streams.replay.audit import audit
from tests.replay_fuzz import KEY, sample
from tests.servers import RedisServer, executables


@pytest.fixture(params=sorted(executables()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own."""
    made = RedisServer(executables()[request.param], tmp_path)
    made.start()
    yield made
    made.kill()


@asynccontextmanager
async def twins(server: RedisServer) -> AsyncIterator[tuple[ReplayBuffer, AsyncReplayBuffer]]:
    """The same table on a blocking and on an asyncio client."""
    opened = open_table(server.client(), "train", TableConfig(), KEY, "ep", configure=True)
    client = aioredis.Redis(port=server.port)
    yield opened, AsyncReplayBuffer(opened, client)
    await client.aclose()


def test_aio_does_what_its_twin_does(server: RedisServer) -> None:
    """Insert, draw, fetch, sample, update, sweep and retire see and change the same table; draws are equal."""

    async def scenario() -> None:
        async with twins(server) as (opened, twin):
            now = float(opened.client.time()[0])
            items = [sample(i, received_at=now) for i in range(80)]
            source = [Offset("examples", 0, i) for i in range(80)]
            assert (await twin.insert(items, source)).inserted == 80
            assert opened.insert(items, source).duplicate == 80
            drawn = await twin.draw(UNIFORM, 16, seed=4)
            assert isinstance(drawn, Draw)
            here = opened.draw(UNIFORM, 16, seed=4)
            assert isinstance(here, Draw)
            assert drawn.records == here.records
            assert (await twin.fetch(drawn)).samples == opened.fetch(here).samples
            both = await twin.sample(UNIFORM, 16, seed=4)
            assert not isinstance(both, Wait)
            assert both[1].samples == opened.fetch(here).samples
            handles = [d.handle for d in drawn.records]
            assert (await twin.update(handles, [1.0] * 16, run=1, step=1)).applied == 16
            assert (await twin.sweep()).expired == 0
            assert await twin.retire([handles[0].digest], "superseded") == 1
            assert audit(opened, full=True) == []

    asyncio.run(scenario())


def test_aio_survives_script_flush_and_full_memory(server: RedisServer) -> None:
    """NOSCRIPT is not seen by the caller; a full server is `ServerFull` and nothing has happened."""

    async def scenario() -> None:
        async with twins(server) as (opened, twin):
            now = float(opened.client.time()[0])
            opened.client.script_flush()
            assert (await twin.insert([sample(1, received_at=now)])).inserted == 1
            opened.client.config_set("maxmemory", 1)
            with pytest.raises(ServerFull):
                await twin.insert([sample(2, received_at=now)])
            assert audit(opened, full=True) == []

    asyncio.run(scenario())


def test_aio_many_learners_lease_apart(server: RedisServer) -> None:
    """Eight tasks that lease at once hold different samples."""

    async def scenario() -> None:
        async with twins(server) as (opened, twin):
            now = float(opened.client.time()[0])
            await twin.insert([sample(i, received_at=now) for i in range(200)])
            draws = await asyncio.gather(*(twin.draw(UNIFORM, 8, seed=n, lease_s=60) for n in range(8)))
            held = [{d.handle for d in draw.records} for draw in draws if isinstance(draw, Draw)]
            assert len(held) == 8
            assert len(set.union(*held)) == sum(len(part) for part in held)
            assert audit(opened) == []

    asyncio.run(scenario())
