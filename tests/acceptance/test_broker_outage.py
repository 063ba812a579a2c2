"""A cluster under load that loses what tells its workers of jobs, and its workers too."""

import asyncio
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
        asyncio.run(server.settle())
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
