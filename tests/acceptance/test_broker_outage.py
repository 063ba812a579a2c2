"""A cluster under load that loses what tells its workers of jobs, and its workers too."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Replica, cluster
from tests.support.rabbitmq import RabbitServer, private_rabbitmq
from tests.support.traffic import traffic

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 180.0


def settings(database: str, rabbitmq: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database,
        "RABBITMQ_URL": rabbitmq,
        "PROVIDER": "offline",
        "LEASE_TIME": "3s",
        "AGENT_POOL_SIZE": "0",
        "HEALTH_CHECK_INTERVAL": "1s",
        "MAX_QUEUE": "1000",
    }


@pytest.fixture
def rabbitmq() -> Iterator[RabbitServer]:
    with private_rabbitmq() as server:
        settling = threading.Thread(target=lambda: asyncio.run(server.settle()))
        settling.start()
        settling.join()
        yield server


async def broker_is(replica: Replica, status: str) -> None:
    """Return once /health, /broker-check and the metrics say so."""
    there = status == "ok"
    async with asyncio.timeout(WAIT_S):
        while True:
            told = (await replica.health())["services"]["broker"]["status"]
            asked = await replica.client.get("/broker-check")
            up = await replica.metric('component_up{component="broker"}')
            connected = await replica.metric("broker_connected")
            if told == status and {asked.status_code == 200, up == 1, connected == 1} == {there}:
                return
            assert (await replica.client.get("/ready")).status_code == 200
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["killed", "hangs"])
async def test_everything_goes_on_without_the_broker(
    how: str, scratch: Path, postgres_url: str, rabbitmq: RabbitServer
) -> None:
    env = settings(postgres_url, rabbitmq.url)
    async with cluster(scratch, env, apis=1, workers=1) as town:
        async with traffic(town.client) as seen:
            for replica in town.all:
                await broker_is(replica, "ok")
            await seen.until(4)
            sent = await town.apis[0].metric("jobs_sent_total")
            assert sent > 0, "nothing went through the broker"
            rabbitmq.pause() if how == "killed" else rabbitmq.hang()
            try:
                await asyncio.gather(*(broker_is(replica, "down") for replica in town.all))
                await seen.until(8)
            finally:
                if how == "killed":
                    rabbitmq.launch()
                    await asyncio.to_thread(rabbitmq.ready)
                else:
                    rabbitmq.wake()
            await asyncio.gather(*(broker_is(replica, "ok") for replica in town.all))
            sent = await town.apis[0].metric("jobs_sent_total")
            await seen.until(4)
            assert await town.apis[0].metric("jobs_sent_total") > sent
        assert seen.failed == []
        assert seen.gaps == {}
        assert sorted(seen.finished) == sorted(seen.tasks)
        for replica in town.all:
            assert "Jobs go by polling." in replica.output
            assert rabbitmq.password not in replica.output


@pytest.mark.parametrize("wrong", ["password", "host"])
async def test_a_server_whose_broker_is_wrong_says_so_and_serves(
    wrong: str, scratch: Path, postgres_url: str, rabbitmq: RabbitServer
) -> None:
    urls = {
        "password": rabbitmq.url.replace(rabbitmq.password, "not-the-secret-of-it"),
        "host": rabbitmq.url.replace("127.0.0.1", "no-such-host.invalid"),
    }
    env = settings(postgres_url, urls[wrong])
    async with cluster(scratch, env, apis=1, workers=1, schedulers=0) as town:
        task = await town.apis[0].run_task()
        assert task["status"] == "completed"
        told = (await town.apis[0].health())["services"]["broker"]
        refused = "broker_refused" if wrong == "password" else "broker_away"
        assert (told["status"], told["code"]) == ("down", refused)
        output = town.apis[0].output
        assert "Jobs go by polling." in output
        assert "not-the-secret-of-it" not in output
        assert rabbitmq.password not in output


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
async def test_a_worker_that_is_killed_loses_no_job(
    broker: str, scratch: Path, postgres_url: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("rabbitmq" if broker == "rabbitmq" else "redis_server")
    env = settings(postgres_url, server.url)
    if broker == "redis":
        env["REDIS_URL"] = env.pop("RABBITMQ_URL")
    async with cluster(scratch, env, apis=1, workers=2, schedulers=0) as town:
        for replica in town.all:
            await broker_is(replica, "ok")
        [api] = town.apis
        tasks = []
        for number in range(24):
            tasks.append(await api.submit())
            if number % 8 == 4:
                await town.workers[number // 8 % 2].kill()
            if number % 8 == 7:
                await town.workers[number // 8 % 2].start()
        async with asyncio.timeout(WAIT_S):
            ends = await asyncio.gather(*(api.finished(task) for task in tasks))
        # One whose worker was killed over it is interrupted, which is its end; none waits for ever.
        assert {end["status"] for end in ends} <= {"completed", "interrupted"}
        assert (await api.run_task())["status"] == "completed"
        async with asyncio.timeout(WAIT_S):
            while "jobs{" in (text := (await api.client.get("/metrics")).text):
                assert 'state="parked"' not in text
                await asyncio.sleep(0.2)
