"""A cluster under load that loses Redis, and one whose servers are all started anew."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Replica, cluster
from tests.support.redis import RedisServer, private_redis
from tests.support.traffic import traffic

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 120.0


def settings(database: str, redis: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "PROVIDER": "offline",
        "LEASE_TIME": "3s",
        "AGENT_POOL_SIZE": "0",
        "HEALTH_CHECK_INTERVAL": "1s",
        "MAX_QUEUE": "1000",
    }


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with private_redis() as server:
        yield server


async def redis_is(replica: Replica, status: str) -> None:
    """Return once /health, /redis-check and the metrics say so."""
    there = status == "ok"
    async with asyncio.timeout(WAIT_S):
        while True:
            services = (await replica.health())["services"]
            told = [services[part]["status"] for part in ("redis", "news")]
            asked = await replica.client.get("/redis-check")
            up = await replica.metric('component_up{component="redis"}')
            shared = await replica.metric("news_shared")
            if told == [status] * 2 and {asked.status_code == 200, up == 1, shared == 1} == {there}:
                return
            assert (await replica.client.get("/ready")).status_code == 200
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["stopped", "hangs"])
async def test_everything_goes_on_without_redis(
    how: str, scratch: Path, postgres_url: str, redis: RedisServer
) -> None:
    async with cluster(scratch, settings(postgres_url, redis.url)) as town:
        async with traffic(town.client) as seen:
            for replica in town.all:
                await redis_is(replica, "ok")
            await seen.until(4)
            redis.pause() if how == "stopped" else redis.hang()
            try:
                await asyncio.gather(*(redis_is(replica, "down") for replica in town.all))
                await seen.until(8)
            finally:
                redis.resume() if how == "stopped" else redis.wake()
            await asyncio.gather(*(redis_is(replica, "ok") for replica in town.all))
            await seen.until(4)
        assert seen.failed == []
        assert seen.gaps == {}
        assert sorted(seen.finished) == sorted(seen.tasks)
        assert seen.reads > 10
        for api in town.apis:
            assert "news of other servers comes by polling" in api.output


async def restart(replica: Replica) -> None:
    assert await replica.stop() == 0, replica.output[-2000:]
    await replica.start()


async def test_servers_are_all_started_anew_and_nobody_notices(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    env = settings(postgres_url, redis_url)
    async with cluster(scratch, env, schedulers=2) as town:
        async with traffic(town.client) as seen:
            await seen.until(4)
            for replica in town.all:
                await restart(replica)
                await seen.until(1)
            await seen.until(4)
        assert seen.failed == []
        assert seen.gaps == {}
        assert sorted(seen.finished) == sorted(seen.tasks)
        assert seen.reconnects > 0, "no stream was moved"
        states = await asyncio.gather(*(town.apis[0].task(task_id) for task_id in seen.tasks))
        assert {task["status"] for task in states} == {"completed"}


async def leader_of(schedulers: list[Replica]) -> Replica:
    async with asyncio.timeout(WAIT_S):
        while True:
            for each in schedulers:
                if await each.metric("scheduler_leads"):
                    return each
            await asyncio.sleep(0.05)


async def test_one_scheduler_works_and_another_takes_over(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    env = settings(postgres_url, redis_url)
    async with cluster(scratch, env, apis=1, workers=0, schedulers=2) as town:
        first = await leader_of(town.schedulers)
        [second] = [each for each in town.schedulers if each is not first]
        assert await second.metric("scheduler_leads") == 0
        await first.kill()
        assert await leader_of([second]) is second
        await first.start()
        assert await first.metric("scheduler_leads") == 0
        assert await second.stop() == 0
        assert await leader_of([first]) is first
        await second.start()
