"""Real brokers on real servers, to be taken away and brought back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from stationmaster.jobs.broker import Broker, Lane
from stationmaster.jobs.rabbitmq import DEAD as DEAD_QUEUE
from stationmaster.jobs.rabbitmq import RabbitMQ
from stationmaster.jobs.redis_streams import DEAD as DEAD_STREAM
from stationmaster.jobs.redis_streams import RedisStreams
from stationmaster.live.connection import connected
from tests.support.rabbitmq import RabbitServer
from tests.support.redis import RedisServer

BOUND_S = 60.0  # that something has to happen in at all; nothing here takes nearly as long
END_S = 15.0  # for an end: more than every pause and time in it together


@dataclass
class Place:
    """A real server, and brokers on it."""

    server: RabbitServer | RedisServer
    stack: AsyncExitStack
    away: str = ""
    running: dict[Broker, asyncio.Task[None]] = field(default_factory=dict)

    def make(self, url: str | None = None, *, name: str = "a", receives: bool = True) -> Broker:
        """One that does not run yet."""
        url = url or self.server.url
        if url.startswith("amqp"):
            return RabbitMQ(url, receives=receives, timeout=3.0, pulse=0.1)
        client = connected(url, timeout=2.0)
        self.stack.push_async_callback(client.aclose)
        return RedisStreams(client, consumer=name, pulse=0.1, take_over=0.2)

    async def run(self, **how: Any) -> Broker:
        """One that runs, and is well."""
        broker = self.make(**how)
        self.start(broker)
        await until(lambda: broker.trouble is None)
        return broker

    def start(self, broker: Broker) -> None:
        self.running[broker] = asyncio.create_task(broker.run())

    async def end(self, broker: Broker) -> None:
        """Cancel its running, which must obey."""
        task = self.running.pop(broker)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=END_S)
        assert done, "It does not end."

    async def put(self, body: bytes, lane: Lane) -> None:
        if isinstance(self.server, RabbitServer):
            await self.server.put(body, f"stationmaster.{lane}")
        else:
            async with connected(self.server.url) as client:
                await client.xadd(f"stationmaster:jobs:{lane}", {b"ring": body})

    async def dead(self) -> bytes | None:
        """A dead letter, if there is one."""
        if isinstance(self.server, RabbitServer):
            return await self.server.take(DEAD_QUEUE)
        async with connected(self.server.url) as client:
            found: Any = await client.xrange(DEAD_STREAM)
            return found[0][1][b"ring"] if found else None

    async def empty(self) -> None:
        if isinstance(self.server, RabbitServer):
            await self.server.clear()
        else:
            self.server.command("FLUSHALL")

    async def delete(self) -> None:
        """Delete whatever the brokers have made there."""
        if isinstance(self.server, RabbitServer):
            await self.server.delete()
        else:
            self.server.command("FLUSHALL")

    def down(self, how: str) -> None:
        """Take the server away: `killed`, or `hung`."""
        self.away = how
        if how == "killed":
            self.server.pause()
        else:
            self.server.hang()

    async def up(self, how: str) -> None:
        """Bring it back."""
        self.away = ""
        if how != "killed":
            self.server.wake()
        elif isinstance(self.server, RabbitServer):
            self.server.launch()
            await asyncio.to_thread(self.server.ready)
        else:
            self.server.resume()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(params=["rabbitmq", "redis"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    server = request.getfixturevalue(f"{request.param}_server")
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        made = Place(server, stack)
        await made.empty()
        yield made
        for broker in list(made.running):
            await made.end(broker)
        if made.away:
            await made.up(made.away)
    left = {each for each in asyncio.all_tasks() - before if each is not asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=END_S)
    assert [task for task in left if not task.done()] == [], "Tasks are left."
