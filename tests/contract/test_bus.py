"""What every bus promises, within one process and between two."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec
import pytest

from stationmaster.live.bus import Bus, MemoryBus, Subscription
from stationmaster.live.connection import connected
from stationmaster.live.polling import PollingBus
from stationmaster.live.redis import RedisBus


@dataclass
class Line:
    """Where one publishes and another listens: the same bus, or two of different processes."""

    here: Bus
    there: Bus
    heard: Callable[[], Awaitable[None]]

    async def subscribe(self, topic: str, *, capacity: int = 1000) -> Subscription:
        """Listen; return once the subscription has reached whoever passes messages on."""
        subscription = self.there.subscribe(topic, capacity=capacity)
        await self.settled()
        subscription.reset()
        return subscription

    async def settled(self) -> None:
        """Return once everything that was published before has come."""
        await self.heard()


async def _at_once() -> None:
    pass


@pytest.fixture(params=["memory", "polling", "redis", "two on redis"])
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    if request.param == "memory":
        bus = MemoryBus()
        yield Line(bus, bus, _at_once)
        return
    if request.param == "polling":
        bus = PollingBus()
        yield Line(bus, bus, _at_once)
        return
    url = request.getfixturevalue("redis_url")
    async with AsyncExitStack() as stack:

        async def made() -> RedisBus:
            client = await stack.enter_async_context(connected(url))
            bus = RedisBus(client, encode=msgspec.json.encode, decode=msgspec.json.decode)
            running = asyncio.create_task(bus.run())
            stack.callback(running.cancel)
            async with asyncio.timeout(30):
                while not bus.shared:
                    await asyncio.sleep(0.01)
            return bus

        here = await made()
        there = here if request.param == "redis" else await made()

        async def heard() -> None:
            # Twice: what is asked of Redis at once is answered in any order.
            for topic in ("first probe", "second probe"):
                probe = there.subscribe(topic)
                try:
                    async with asyncio.timeout(30):
                        while not probe.missed:  # as Redis knows of it now
                            await asyncio.sleep(0.005)
                        probe.reset()
                        here.publish(topic, "end")
                        await probe.wait(30)
                finally:
                    there.unsubscribe(probe)

        yield Line(here, there, heard)


async def test_messages_come_in_order_to_every_listener_of_the_topic(line: Line) -> None:
    first, second, other = (
        await line.subscribe("a"),
        await line.subscribe("a"),
        await line.subscribe("b"),
    )
    for number in range(10):
        line.here.publish("a", number)
    await line.settled()
    assert await first.wait(30)
    assert await second.wait(30)
    assert first.take() == second.take() == list(range(10))
    assert other.take() == []


async def test_what_was_published_before_the_subscription_is_not_received(line: Line) -> None:
    line.here.publish("a", 1)
    await line.settled()
    subscription = await line.subscribe("a")
    line.here.publish("a", 2)
    assert await subscription.wait(30)
    assert subscription.take() == [2]


async def test_publishing_to_nobody_is_fine(line: Line) -> None:
    line.here.publish("nobody", 1)


async def test_a_listener_that_has_left_gets_nothing(line: Line) -> None:
    subscription, stays = await line.subscribe("a"), await line.subscribe("a")
    line.there.unsubscribe(subscription)
    line.there.unsubscribe(subscription)  # idempotent
    line.here.publish("a", 1)
    assert await stays.wait(30)
    assert subscription.take() == []
    assert stays.take() == [1]


async def test_waiting_ends_after_the_timeout(line: Line) -> None:
    subscription = await line.subscribe("a")
    assert not await subscription.wait(0)
    line.here.publish("a", 1)
    assert await subscription.wait(30)
    subscription.take()
    assert not await subscription.wait(0), "what was taken still wakes"


async def test_a_message_wakes_who_waits(line: Line) -> None:
    subscription = await line.subscribe("a")
    waiting = asyncio.create_task(subscription.wait(30))
    await asyncio.sleep(0)
    line.here.publish("a", 1)
    assert await waiting


async def test_too_many_messages_overflow_and_drop_all(line: Line) -> None:
    slow, quick = await line.subscribe("a", capacity=3), await line.subscribe("a", capacity=10)
    for number in range(4):
        line.here.publish("a", number)
    await line.settled()
    assert await slow.wait(30)
    assert [slow.overflowed, quick.overflowed] == [True, False]
    assert slow.take() == []
    assert await slow.wait(0), "an overflow must be noticed by whoever waits next"
    assert await quick.wait(30)
    assert quick.take() == [0, 1, 2, 3]
    slow.reset()
    assert [slow.overflowed, quick.overflowed] == [False, False]
    assert not await slow.wait(0)
    line.here.publish("a", 5)
    assert await slow.wait(30)
    assert slow.take() == [5]


async def test_capacity_messages_do_not_overflow(line: Line) -> None:
    subscription = await line.subscribe("a", capacity=3)
    for number in range(3):
        line.here.publish("a", number)
    await line.settled()
    assert await subscription.wait(30)
    assert not subscription.overflowed
    assert subscription.take() == [0, 1, 2]


def test_a_memory_bus_forgets_topics_without_listeners() -> None:
    bus = MemoryBus()
    subscriptions = [bus.subscribe(f"topic {number}") for number in range(10)]
    assert bus.listeners("topic 3") == 1
    for subscription in subscriptions:
        bus.unsubscribe(subscription)
    assert bus.listeners("topic 3") == 0
    assert not bus._topics
