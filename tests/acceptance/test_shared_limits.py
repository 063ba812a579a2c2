"""Rate limits over several server processes on one Redis, one of which is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.redis import private_redis
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ALLOWED = 60  # requests


@pytest.fixture
async def replicas(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> AsyncIterator[list[ServerProcess]]:
    env = {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "a-secret-that-replicas-share",
        "AGENT": "scripted",
        "RATE_LIMIT_READ": f"{ALLOWED}/hour",
    }
    async with AsyncExitStack() as stack:
        servers = []
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            server = ServerProcess(tmp_path / name, env)
            servers.append(await stack.enter_async_context(server))
        yield servers


async def listed(server: ServerProcess) -> int | None:
    """The status of a request that counts as reading; None where the server has gone."""
    try:
        return (await server.client.get("/v1/tasks")).status_code
    except httpx.TransportError:
        return None


async def test_no_more_pass_than_are_allowed_whichever_replica_is_asked_and_killed(
    replicas: list[ServerProcess],
) -> None:
    first = await asyncio.gather(*(listed(replicas[number % 3]) for number in range(30)))
    assert first == [200] * 30
    asking = [asyncio.create_task(listed(replicas[number % 3])) for number in range(90)]
    await replicas[0].kill()
    second = await asyncio.gather(*asking)
    rest = await asyncio.gather(*(listed(server) for server in replicas[1:] for _ in range(30)))
    passed = (first + second + rest).count(200)
    lost = second.count(None)
    assert ALLOWED - lost <= passed <= ALLOWED
    assert [await listed(server) for server in replicas[1:]] == [429, 429]


async def test_a_redis_that_is_lost_and_comes_back_stops_nobody(tmp_path: Path) -> None:
    with private_redis() as redis:
        env = {"REDIS_URL": redis.url, "AGENT": "scripted", "RATE_LIMIT_READ": f"{ALLOWED}/hour"}
        async with ServerProcess(tmp_path, env) as server:
            assert await listed(server) == 200
            assert await store_of(server) == "ok"
            redis.pause()
            await until(server, shared=False)
            redis.resume()
            await until(server, shared=True)
            assert redis.command("DBSIZE") != b":0\r\n"
            assert "Redis is away" in server.output
            assert "Redis answers again" in server.output


async def store_of(server: ServerProcess) -> str:
    health = (await server.client.get("/health")).json()
    status: str = health["services"]["rate_limits"]["status"]
    return status


async def until(server: ServerProcess, *, shared: bool) -> None:
    """Ask, and be answered, until `/health` has noticed; it looks every few seconds."""
    async with asyncio.timeout(30):
        while (await store_of(server) == "ok") != shared:
            assert await listed(server) == 200
            await asyncio.sleep(0.5)
