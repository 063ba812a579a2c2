"""A queue that came out of a crash of RabbitMQ without a leader."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
import structlog

from stationmaster.jobs.broker import LANES, Ring
from stationmaster.jobs.rabbitmq import PREFIX, RabbitMQ
from stationmaster.kernel.errors import Unavailable
from tests.support.brokers import BOUND_S, until
from tests.support.rabbitmq import RabbitServer, private_rabbitmq

CRASHES = 3  # that may leave the queues whole, which depends on what was written just then
ANSWER_S = 2.0
SURE_S = 10.0  # for an answer that does not come later either


@asynccontextmanager
async def running(server: RabbitServer) -> AsyncIterator[RabbitMQ]:
    broker = RabbitMQ(server.url, receives=True, timeout=ANSWER_S)
    task = asyncio.create_task(broker.run())
    yield broker
    task.cancel()
    await asyncio.wait({task})


async def leaderless(server: RabbitServer) -> bool:
    """Whether nobody can consume from a queue that is there."""
    connection = await aiormq.connect(server.url)
    try:
        for lane in ("runs", "jobs"):
            channel = await connection.channel()
            await channel.queue_declare(PREFIX + lane, passive=True)
            async with asyncio.timeout(SURE_S):
                await channel.basic_consume(PREFIX + lane, _ignore)
    except TimeoutError:
        return True
    finally:
        await asyncio.wait({asyncio.ensure_future(connection.close())}, timeout=ANSWER_S)
    return False


async def _ignore(_message: object) -> None: ...


async def broken(server: RabbitServer) -> bool:
    """Crash it just after its queues were declared, until that leaves one without a leader."""
    for _ in range(CRASHES):
        async with running(server) as broker:
            await until(lambda: broker.trouble is None)
            server.pause()
        await asyncio.to_thread(server.resume)
        if await leaderless(server):
            return True
        await server.delete()
    return False


async def told(broker: RabbitMQ, ring: Ring) -> None:
    """Publish it, also if the queue is just being deleted by the other."""
    while True:
        try:
            await broker.publish([ring])
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_two_workers_make_it_anew_at_once_and_are_told_of_jobs_again() -> None:
    """Each may delete what the other has just made."""
    with private_rabbitmq() as server:
        if not await broken(server):
            pytest.skip("This RabbitMQ does not lose a queue's leader by a crash.")
        with structlog.testing.capture_logs() as lines:
            async with running(server) as one, running(server) as other:
                await until(lambda: one.trouble is None and other.trouble is None)
                for lane in LANES:
                    await told(one, Ring(f"job_{lane}_1", "work", lane))
                    await told(other, Ring(f"job_{lane}_2", "work", lane))
                # Of runs nobody holds two: so each of them is told of one.
                async with asyncio.timeout(BOUND_S):
                    await asyncio.gather(one.receive("runs"), other.receive("runs"))
                    hearing = {asyncio.create_task(each.receive("jobs")) for each in (one, other)}
                    _, deaf = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
                for each in deaf:
                    each.cancel()
        made_anew = [line["queue"] for line in lines if "made anew" in line["event"]]
        assert made_anew
        assert set(made_anew) <= {f"{PREFIX}runs", f"{PREFIX}jobs"}
