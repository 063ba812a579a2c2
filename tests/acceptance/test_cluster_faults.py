"""A cluster under load that loses a part, and one whose servers are all started anew."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.cluster import Playing, Replica, cluster, settings
from tests.support.proxy import Proxy
from tests.support.redis import RedisServer, private_redis
from tests.support.traffic import traffic

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 120.0
LONG = "1m"  # a lease that a machine at work does not let run out


def watchful(database: str, redis: str, *, lease: str = "3s") -> dict[str, str]:
    often = {"LEASE_TIME": lease, "HEALTH_CHECK_INTERVAL": "1s"}
    return settings(database, redis, **often, MAX_QUEUE="1000")


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


def behind(url: str, proxy: Proxy) -> str:
    """The URL by way of a proxy."""
    return make_url(url).set(port=proxy.port).render_as_string(hide_password=False)


@pytest.mark.parametrize("how", ["stopped", "hangs", "cut off"])
async def test_everything_goes_on_without_redis(
    how: str, scratch: Path, postgres_url: str, redis: RedisServer
) -> None:
    port = make_url(redis.url).port
    assert port is not None
    async with (
        Proxy(port) as proxy,
        cluster(scratch, watchful(postgres_url, behind(redis.url, proxy))) as town,
    ):

        def drop(dropping: bool) -> None:
            proxy.dropping = dropping

        away, back = {
            "stopped": (redis.pause, redis.resume),
            "hangs": (redis.hang, redis.wake),
            "cut off": (lambda: drop(True), lambda: drop(False)),
        }[how]
        async with traffic(town.client) as seen:
            for replica in town.all:
                await redis_is(replica, "ok")
            await seen.until(4)
            away()
            try:
                await asyncio.gather(*(redis_is(replica, "down") for replica in town.all))
                await seen.until(8)
            finally:
                back()
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
    env = watchful(postgres_url, redis_url)
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


async def test_servers_come_and_go_under_load_and_nobody_notices(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    env = watchful(postgres_url, redis_url, lease="15s")
    async with cluster(scratch, env, apis=1, workers=1) as town, AsyncExitStack() as stack:
        [first] = town.apis
        # A reload closes connections that wait for a request, and one may be on its way.
        each_its_own = httpx.AsyncClient(
            base_url=town.url,
            headers=town.client.headers,
            timeout=town.client.timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        await stack.enter_async_context(each_its_own)
        async with traffic(each_its_own) as seen:
            await seen.until(4)
            more = [Playing(scratch, f"api-{number}", "api", env) for number in range(1, 5)]
            await asyncio.gather(*(stack.enter_async_context(each) for each in more))
            await town.front.use([each.port for each in (first, *more)])
            await seen.until(8)
            answered = [each.output.count("A request was answered.") for each in more]
            assert all(answered), answered

            stays, *leaving = more
            await town.front.use([first.port, stays.port])
            assert await asyncio.gather(*(each.stop() for each in leaving)) == [0, 0, 0]
            await seen.until(8)
            await town.front.use([first.port])
            assert await stays.stop() == 0
            await seen.until(4)
        assert seen.failed == []
        assert seen.gaps == {}
        assert sorted(seen.finished) == sorted(seen.tasks)
        states = await asyncio.gather(*(first.task(task_id) for task_id in seen.tasks))
        assert {task["status"] for task in states} == {"completed"}


async def test_slow_ways_to_postgresql_and_redis_fail_nothing(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    ports = [make_url(url).port for url in (postgres_url, redis_url)]
    assert ports[0]
    assert ports[1]
    async with Proxy(ports[0]) as database, Proxy(ports[1]) as news:
        env = watchful(behind(postgres_url, database), behind(redis_url, news))
        async with cluster(scratch, env, apis=1, workers=1) as town:
            async with traffic(town.client, workers=2) as seen:
                await seen.until(2)
                database.delay = news.delay = 0.03  # each way, at each piece
                await seen.until(3)
                database.delay = news.delay = 0.0
                await seen.until(1)
            assert seen.failed == []
            assert seen.gaps == {}
            assert sorted(seen.finished) == sorted(seen.tasks)


async def test_without_any_worker_runs_wait_and_all_else_goes_on(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    env = watchful(postgres_url, redis_url, lease=LONG)
    async with cluster(scratch, env, apis=1, workers=1) as town:
        [api], [worker] = town.apis, town.workers
        await worker.kill()
        made = await town.client.post("/v1/tasks", json={"description": "work"})
        assert made.status_code == 202, made.text
        call = {"model": "haiku", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        for path in ("/v1/messages", "/v1/chat/completions"):
            assert (await town.client.post(path, json=call)).status_code == 200
        assert (await api.client.get("/ready")).status_code == 200
        async with asyncio.timeout(WAIT_S):
            while await api.metric("runs_queued") != 1:
                await asyncio.sleep(0.1)
        assert (await api.task(made.json()["task_id"]))["status"] == "pending"
        await worker.start()
        assert (await api.finished(made.json()["task_id"]))["status"] == "completed"


async def test_without_any_api_what_runs_goes_on(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    env = watchful(postgres_url, redis_url, lease=LONG)
    async with cluster(scratch, env, apis=2, workers=1) as town:
        [worker] = town.workers
        task_id = await town.apis[0].submit("work")
        async with asyncio.timeout(WAIT_S):
            while "A run starts." not in worker.output:
                await asyncio.sleep(0.02)
        await asyncio.gather(*(api.kill() for api in town.apis))
        assert (await town.client.get("/v1/tasks")).status_code == 502  # of nginx
        async with asyncio.timeout(WAIT_S):
            while "A run ended." not in worker.output:
                await asyncio.sleep(0.02)
        await asyncio.gather(*(api.start() for api in town.apis))
        assert (await town.apis[1].task(task_id))["status"] == "completed"
        numbers = [event["seq"] for event in await town.apis[0].events(task_id)]
        assert numbers == list(range(1, len(numbers) + 1))


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
    env = watchful(postgres_url, redis_url)
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
